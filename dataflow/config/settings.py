"""Settings: how this process behaves, from the environment or from ``dask.config``.

======================== ============ =====================================================
setting                  default      meaning
======================== ============ =====================================================
``site_file``            none         what ``connect()`` reads when it is given nothing
``user``                 account name in whose name jobs run
``keep``                 results      ``results`` or ``all``: what of a job is stored
``result_at``            (computed)   site at which results must end
``retries``              1            attempts after the first; never for the user's errors
``time_limit``           none         longest time of a job, such as ``2 h``
``sync_period``          0.5 s        how often sites look for news of one another
``progress``             true         progress bars
======================== ============ =====================================================

Each is read from ``DATAFLOW_<NAME>`` (``DATAFLOW_RETRIES=3``), else from ``dataflow.<name>`` in
``dask.config`` (a YAML file in ``~/.config/dask``, or ``DASK_DATAFLOW__RETRIES=3``), else the
default holds. The directory for state is ``DATAFLOW_STATE_DIR``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from dataflow._quantities import parse_seconds
from dataflow.config.marked import did_you_mean
from dataflow.documents import adapter
from dataflow.errors import ConfigError

_PREFIX = "DATAFLOW_"
_DURATIONS = ("time_limit", "sync_period")
_YES_NO = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of this process; see the module's text. Times are in seconds."""

    site_file: str | None = None
    user: str = ""
    keep: Literal["results", "all"] = "results"
    result_at: str = ""
    retries: int = 1
    time_limit: float | None = None
    sync_period: float = 0.5
    progress: bool = True


_NAMES = tuple(field.name for field in fields(Settings))


def read_settings(
    environ: Mapping[str, str] | None = None, configured: Mapping[str, Any] | None = None
) -> Settings:
    """The settings that hold now.

    Parameters
    ----------
    environ
        Instead of the process's environment.
    configured
        Instead of ``dataflow`` in ``dask.config``.

    Raises
    ------
    ConfigError
        If a setting is unknown, lacks its unit or is not of its kind.
    """
    environ = os.environ if environ is None else environ
    if configured is None:
        import dask.config

        configured = dask.config.get("dataflow", {}) or {}
    values = {}
    for written, value in configured.items():
        name = str(written).replace("-", "_")
        if name not in _NAMES:
            raise ConfigError(
                f"unknown setting{did_you_mean(name, _NAMES)}", "dask.config", f"dataflow.{written}"
            )
        if value is not None:
            values[name] = _checked(name, value, f"dataflow.{written}", "dask.config")
    for name in _NAMES:
        text = environ.get(_PREFIX + name.upper(), "")
        if text:
            values[name] = _checked(name, text, _PREFIX + name.upper(), "environment")
    values.setdefault("user", _account(environ))
    return Settings(**values)


def settings_schema() -> dict[str, Any]:
    """JSON schema of the settings, as they are written under ``dataflow:`` in ``dask.config``."""
    schema: dict[str, Any] = adapter(Settings).json_schema()
    for name in _DURATIONS:
        schema["properties"][name] = {"type": "string", "examples": ["10 ms", "30 s", "2 h"]}
    return schema | {"additionalProperties": False}


def state_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where this account keeps catalogs and journals; not made here.

    ``DATAFLOW_STATE_DIR``, by default ``~/.local/state/dataflow``.
    """
    environ = os.environ if environ is None else environ
    told = environ.get("DATAFLOW_STATE_DIR", "")
    return Path(told).expanduser() if told else Path.home() / ".local" / "state" / "dataflow"


def _checked(name: str, value: Any, path: str, source: str) -> Any:
    try:
        if name in _DURATIONS:
            seconds = parse_seconds(value, what=name)
            if seconds <= 0:
                raise ConfigError(f"{name}: must be longer than nothing, not {value!r}")
            return seconds
        if name == "retries":
            return _count(value)
        if name == "progress":
            return value if isinstance(value, bool) else _YES_NO[str(value).lower()]
        if name == "keep" and value not in ("results", "all"):
            raise ConfigError(f"must be 'results' or 'all', not {value!r}")
    except ConfigError as error:
        raise ConfigError(error.message.removeprefix(f"{name}: "), source, path) from None
    except (KeyError, ValueError):
        kind = "a whole number, 0 or more" if name == "retries" else "true or false"
        raise ConfigError(f"must be {kind}, not {value!r}", source, path) from None
    if not isinstance(value, str):
        raise ConfigError(f"must be text, not {value!r}", source, path)
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool | float) or int(value) < 0:
        raise ValueError(value)
    return int(value)


def _account(environ: Mapping[str, str]) -> str:
    for name in ("LOGNAME", "USER", "USERNAME"):
        if environ.get(name):
            return environ[name]
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return str(os.getuid())
