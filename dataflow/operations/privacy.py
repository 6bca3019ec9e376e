"""Anonymise: columns made coarser, hidden, disturbed or renamed, as they stream by.

What is secret comes from the site, never from who asks: pseudonyms and noise are made with the site's
key, the credential ``pseudonyms`` (field ``key``) on the machine that runs the step. Without the key
nobody can undo a pseudonym by trying all numbers, or subtract noise whose seed he chose himself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow.agreements import DATA_PROVIDER
from dataflow.errors import ConfigError
from dataflow.graph.operation import operation
from dataflow.storage.credentials import resolve
from dataflow.storage.tabular import Tabular, gathered, tabular

#: Rules of one word, and those that need a number.
WORDS = ("year", "month", "mask", "pseudonym", "drop")
NUMBERS = ("round", "first", "perturb")
#: What stands in place of a hidden value.
MASK = "*"
#: Name of the credential that has the site's key.
KEY = "pseudonyms"
#: Results of at most so many bytes are handed on in memory, larger ones through the store.
SMALL_NBYTES = 32 * 2**20


@operation(name="anonymise", version="1", role=DATA_PROVIDER)
def anonymise(
    table: Any,
    *,
    columns: Mapping[str, Any],
    seed: int = 0,
    k: int = 0,
    among: Sequence[str] = (),
) -> Any:
    """The rows of a table with some columns changed; the others as they are.

    ``anonymise(table, columns={"Gebdat": "year", "Unieknr": "pseudonym", "Salschal": {"perturb": 1}})``

    Parameters
    ----------
    table
        One table.
    columns
        Column → rule: ``"year"`` or ``"month"`` of a date (also of one written as 19600101 or
        "1960-01-01"), ``{"round": 10}`` down to multiples, ``{"first": 4}`` characters, ``"mask"``,
        ``"pseudonym"`` (the same value, the same pseudonym, at this site), ``{"perturb": scale}`` adds
        Laplace noise of that scale, ``"drop"``.
    seed
        Other noise for another seed; the same for the same.
    k, among
        Leave out the rows whose values in the columns ``among``, as they are after the rules, fewer
        than ``k`` rows share.

    Raises
    ------
    ValueError
        For a column that is not there, or a rule that is none or does not fit.
    ConfigError
        If a rule needs the site's key, and there is none.
    """
    source = tabular(table)
    _check(source.schema, columns, k, among)
    keyed = any(_rule(rule)[0] in ("pseudonym", "perturb") for rule in columns.values())
    key = _site_key() if keyed else b""
    empty = pa.RecordBatch.from_arrays(
        [pa.array([], field.type) for field in source.schema], schema=source.schema
    )
    schema = _changed(empty, columns, key, seed, 0).schema
    stream = _stream(source, columns, key, seed)
    if k > 1:
        stream = _common(stream, _groups(_stream(source, columns, key, seed), among), k, among)
    return gathered(schema, stream, SMALL_NBYTES)


anonymise.function.reads = "tables"  # type: ignore[attr-defined]


def _check(schema: pa.Schema, columns: Mapping[str, Any], k: int, among: Sequence[str]) -> None:
    for name, rule in columns.items():
        if name not in schema.names:
            there = ", ".join(schema.names)
            raise ValueError(f"anonymise: there is no column {name!r}; there are {there}")
        word, number = _rule(rule)
        if word in NUMBERS and not number > 0:
            raise ValueError(f"anonymise: {name!r}: {word} needs a number above 0")
        kind = schema.field(name).type
        if word in ("round", "perturb") and not _is_number(kind):
            raise ValueError(f"anonymise: {name!r} is {kind}, and {word} is for numbers")
    if k > 1 and not among:
        raise ValueError("anonymise: k needs among=, the columns that could single somebody out")
    dropped = {name for name, rule in columns.items() if rule == "drop"}
    for name in among:
        if name not in schema.names or name in dropped:
            raise ValueError(f"anonymise: among names {name!r}, which is not in the result")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _rule(rule: Any) -> tuple[str, float]:
    if isinstance(rule, str) and rule in WORDS:
        return rule, 0.0
    if isinstance(rule, Mapping) and len(rule) == 1:
        ((word, number),) = rule.items()
        if word in NUMBERS and isinstance(number, int | float) and not isinstance(number, bool):
            return str(word), float(number)
    words = ", ".join([*WORDS, *(f"{{{word!r}: number}}" for word in NUMBERS)])
    raise ValueError(f"anonymise: {rule!r} is no rule; there are {words}")


def _site_key() -> bytes:
    try:
        key = resolve(KEY).get("key", "")
    except ConfigError as error:
        raise ConfigError(
            "this site has no key for pseudonyms and noise\n"
            f"What you can do: ask its administrator to add the credential {KEY!r} with a field 'key'.",
            path=KEY,
        ) from error
    if len(key) < 16:
        raise ConfigError(
            "the site's key for pseudonyms is shorter than 16 characters: too easy to guess",
            path=KEY,
        )
    return key.encode()


def _stream(
    source: Tabular, columns: Mapping[str, Any], key: bytes, seed: int
) -> Iterator[pa.RecordBatch]:
    row = 0
    for batch in source.batches():
        yield _changed(batch, columns, key, seed, row)
        row += batch.num_rows


def _changed(
    batch: pa.RecordBatch, columns: Mapping[str, Any], key: bytes, seed: int, row: int
) -> pa.RecordBatch:
    """One batch, whose first row is the table's ``row``-th."""
    found: dict[str, Any] = {}
    for name in batch.schema.names:
        values = batch[name]
        if name not in columns:
            found[name] = values
            continue
        word, number = _rule(columns[name])
        match word:
            case "drop":
                continue
            case "mask":
                found[name] = pa.array([MASK] * batch.num_rows, pa.string())
            case "year" | "month":
                found[name] = _beginning(values, 4 if word == "year" else 7)
            case "first":
                found[name] = pc.utf8_slice_codeunits(_text(values), 0, int(number))
            case "round":
                found[name] = _rounded(values, number)
            case "pseudonym":
                found[name] = _pseudonyms(values, key, name)
            case _:
                found[name] = _disturbed(values, number, key, f"{seed} {name}", row)
    return pa.RecordBatch.from_pydict(found)


def _text(values: Any) -> Any:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        whole = values.filter(values.is_valid())
        if pc.all(pc.equal(whole, pc.floor(whole))).as_py() is not False:
            values = values.cast(pa.int64())  # 19600101.0, where a date is missing elsewhere
    return values.cast(pa.string())


def _beginning(values: Any, length: int) -> Any:
    """The first 4 (year) or 7 characters of a date as text, ``1960-01``."""
    text = _text(values)
    if length == 7:
        # 19600101 gets its dashes.
        bare = pc.match_substring_regex(text, r"^\d{6,8}(\.0)?$")
        dashed = pc.replace_substring_regex(text, r"^(\d{4})(\d{2}).*$", r"\1-\2")
        text = pc.if_else(pc.fill_null(bare, False), dashed, text)
    return pc.utf8_slice_codeunits(text, 0, length)


def _rounded(values: Any, step: float) -> Any:
    if pa.types.is_integer(values.type) and step == int(step):
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        whole = numbers // int(step) * int(step)
        return pa.array(whole, values.type, mask=values.is_null().to_numpy(zero_copy_only=False))
    return pc.multiply(pc.floor(pc.divide(values.cast(pa.float64()), step)), step)


def _pseudonyms(values: Any, key: bytes, column: str) -> Any:
    encoded = _text(values).dictionary_encode()
    names = [_hashed(key, f"pseudonym {column}", value) for value in encoded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(encoded.indices)


def _hashed(key: bytes, purpose: str, value: str) -> str:
    return hmac.new(key, f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()[:24]


def _disturbed(values: Any, scale: float, key: bytes, seed: str, row: int) -> Any:
    """Laplace noise that is the same for a row wherever the table is cut into batches."""
    number = int.from_bytes(hmac.new(key, f"noise {seed}".encode(), hashlib.sha256).digest()[:16])
    skipped = row % 4  # four numbers come of each count
    philox = np.random.Philox(key=number, counter=row // 4)
    uniform = np.random.Generator(philox).random(len(values) + skipped)[skipped:] - 0.5
    tail = np.maximum(1.0 - 2.0 * np.abs(uniform), np.finfo(float).tiny)
    noise = -scale * np.sign(uniform) * np.log(tail)
    return pc.add(values.cast(pa.float64()), pa.array(noise))


def _groups(stream: Iterator[pa.RecordBatch], among: Sequence[str]) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for batch in stream:
        counted = (
            pa.Table.from_batches([batch]).group_by(list(among)).aggregate([([], "count_all")])
        )
        columns = [counted[name].to_pylist() for name in among]
        for *group, count in zip(*columns, counted["count_all"].to_pylist(), strict=True):
            found[tuple(group)] += count
    return found


def _common(
    stream: Iterator[pa.RecordBatch],
    groups: Counter[tuple[Any, ...]],
    k: int,
    among: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    for batch in stream:
        rows = zip(*(batch[name].to_pylist() for name in among), strict=True)
        yield batch.filter(pa.array([groups[row] >= k for row in rows], pa.bool_()))
