"""Installed: the operations that a steward runs for others, as it has them itself."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from dataflow.errors import ConfigError
from dataflow.execution.code import CodeStore, pack
from dataflow.graph.hiding import OWN
from dataflow.graph.operation import Operation, OperationFunction


def install(references: Sequence[str], code: CodeStore) -> Mapping[str, Operation]:
    """``name@version`` → operation, for all references; their code is packed here, from here.

    What workers open later is what was packed from this site's own modules, so that nothing that
    somebody sent is ever unpickled.

    Parameters
    ----------
    references
        ``module:name`` of each.

    Raises
    ------
    ConfigError
        If one is not there, or is no operation.
    """
    found: dict[str, Operation] = {}
    for reference in references:
        declared = _load(reference)
        operation = declared.operation
        if not operation.command:
            code.put(operation.code, pack(declared.functions))
        found[f"{operation.name}@{operation.version}"] = operation
    if references:
        for own in OWN:
            code.put(own.operation.code, pack(own.functions))
    return found


def _load(reference: str) -> OperationFunction[..., object]:
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"operation {reference!r} is not installed here: {error}") from error
    if not isinstance(found, OperationFunction):
        raise ConfigError(f"{reference!r} is no operation: decorate it with @flow.operation")
    return found
