"""Statistics of tables by group: exact, so the same however the rows are spread over sites.

Both operations are reductions. The partial result of a table, or of a piece of one, are counts and
sums without any rounding (:mod:`dataflow.operations.exact`); those of several sites are added, and
what was asked for is worked out of the totals in rational numbers and rounded once. So a mean, a
variance or a regression over data at five sites has, bit for bit, the value that it has over the same
rows at one place.

Quantiles are made of how often each value occurs: of a column of measurements that partial result is
as large as the column. Rows whose value is missing (NULL, NaN) do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dataflow.agreements import COMPUTE_PROVIDER
from dataflow.graph.operation import operation
from dataflow.operations.exact import (
    code_of,
    folded,
    number_of,
    pieces,
    products,
    rounded,
    value_of,
)
from dataflow.storage.tabular import Tabular, tabular

#: What can be asked for of a column.
STATISTICS = ("mean", "sum", "count", "variance", "std", "min", "max", "quantiles", "regression")
_SIMPLE = STATISTICS[:7]
#: Partial tables of so many batches are added up at a time.
_FOLD_EVERY = 16

Digits = Mapping[str, Sequence[tuple[int, int]]]


def added(left: Any, right: Any) -> Any:
    """One partial result of two."""
    ask, one = _understood(left)
    _, other = _understood(right)
    return _partial(ask, folded([one, other], _group(ask)))


def answered(partial: Any) -> Any:
    """What was asked for, one row for each group, groups in order."""
    ask, table = _understood(partial)
    by = _group(ask)
    groups: dict[tuple[Any, ...], dict[str, list[tuple[int, int]]]] = {}
    columns = [table[name].to_pylist() for name in by]
    rest = (table["term"].to_pylist(), table["exponent"].to_pylist(), table["digits"].to_pylist())
    for row in zip(*columns, *rest, strict=True):
        *group, term, exponent, digits = row
        groups.setdefault(tuple(group), {}).setdefault(term, []).append((exponent, digits))
    if not by:
        groups = groups or {(): {}}
    order = sorted(groups, key=lambda group: [(v is None, v) for v in group])
    kept = [g for g in order if _count(groups[g], "rows") >= ask["least"]]
    found = [_answers(groups[group], ask) for group in kept]
    keys = {
        name: pa.array([group[i] for group in kept], table.schema.field(label).type).to_pandas()
        for i, (name, label) in enumerate(zip(ask["by"], by, strict=True))
    }
    names = list(_answers({}, ask))
    types = {name: "int64" if name.rpartition("_")[2] == "count" else "float64" for name in names}
    values = {name: pd.Series([line[name] for line in found], dtype=types[name]) for name in names}
    return pd.DataFrame({**keys, **values})


@operation(
    kind="reduction",
    name="aggregate",
    version="1",
    role=COMPUTE_PROVIDER,
    combine=added,
    finish=answered,
)
def aggregate(
    table: Any,
    *,
    values: Mapping[str, Sequence[str]],
    by: Sequence[str] = (),
    least: int = 0,
) -> Any:
    """Several statistics of several columns by group, over the tables of all providers.

    ``aggregate(a, b, values={"Salschal": ["mean", "max"]}, by=["Geslacht"])``

    Parameters
    ----------
    table
        One table, or several of the same columns.
    values
        Column → which of mean, sum, count, variance, std, min and max.
    by
        Columns that make the groups.
    least
        Groups of fewer rows are left out.

    Returns
    -------
    pandas.DataFrame
        A row for each group: the columns of ``by``, then ``COLUMN_STATISTIC`` in the order asked for.
    """
    wrong = sorted({word for words in values.values() for word in words} - set(_SIMPLE))
    if wrong:
        raise ValueError(f"aggregate: {', '.join(wrong)} is none of {', '.join(_SIMPLE)}")
    asked = [[column, word] for column, words in values.items() for word in words]
    return _digits_of(table, {"values": asked, "by": list(by), "least": int(least)})


@operation(
    kind="reduction",
    name="algorithm",
    version="1",
    role=COMPUTE_PROVIDER,
    combine=added,
    finish=answered,
)
def algorithm(
    table: Any,
    *,
    name: str,
    column: str,
    by: Sequence[str] = (),
    on: Sequence[str] = (),
    quantiles: Sequence[float] = (0.25, 0.5, 0.75),
    least: int = 0,
) -> Any:
    """One statistic of one column by group, over the tables of all providers.

    ``algorithm(a, b, name="mean", column="Salschal", by=["Geslacht"])``

    Parameters
    ----------
    table
        One table, or several of the same columns.
    name
        mean, sum, count, variance, std (both with n - 1), min, max, quantiles (interpolated linearly
        between values) or regression (least squares, with intercept).
    column
        Of which; for a regression the dependent one.
    by
        Columns that make the groups.
    on
        Columns that a regression is on.
    quantiles
        Between 0 and 1.
    least
        Groups of fewer rows are left out.

    Returns
    -------
    pandas.DataFrame
        A row for each group: the columns of ``by``, the statistic under its name (``q0.5`` …;
        ``intercept``, ``on_COLUMN`` … and ``r2``), and the ``count`` of values that it is made of.
    """
    if name not in STATISTICS:
        raise ValueError(f"algorithm: {name!r} is none of {', '.join(STATISTICS)}")
    if name == "regression" and not on:
        raise ValueError("algorithm: a regression needs on=, the columns that it is on")
    if not all(0 <= q <= 1 for q in quantiles):
        raise ValueError("algorithm: quantiles are between 0 and 1")
    return _digits_of(
        table,
        {
            "name": name,
            "column": column,
            "by": list(by),
            "on": list(on),
            "quantiles": [float(q) for q in quantiles],
            "least": int(least),
        },
    )


aggregate.function.reads = "tables"  # type: ignore[attr-defined]
algorithm.function.reads = "tables"  # type: ignore[attr-defined]


# --- partial results --------------------------------------------------------------------------------


def _digits_of(table: Any, ask: Mapping[str, Any]) -> pd.DataFrame:
    source = tabular(table)
    _must_have(source, ask)
    done = [_empty(source.schema, ask)]
    for batch in source.batches():
        done.append(folded(list(_terms(batch, ask)), _group(ask)))
        if len(done) >= _FOLD_EVERY:
            done = [folded(done, _group(ask))]
    return _partial(ask, folded(done, _group(ask)))


def _must_have(source: Tabular, ask: Mapping[str, Any]) -> None:
    wanted = dict.fromkeys([*_columns(ask), *ask["by"]])
    missing = [name for name in wanted if name not in source.schema.names]
    if missing:
        raise ValueError(
            f"the table has no column {missing[0]!r}; it has {', '.join(source.schema.names)}"
        )
    for name in _columns(ask):
        kind = source.schema.field(name).type
        counted = all(word == "count" for column, word in _asked(ask) if column == name)
        if not (counted or _is_number(kind)):
            raise ValueError(f"column {name!r} is {kind}, and numbers are wanted")


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def _terms(batch: pa.RecordBatch, ask: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Digits of one batch, one table for each term and place."""
    groups = [_plain(batch[name]) for name in ask["by"]]
    rows = batch.num_rows
    everything = np.ones(rows, bool)
    yield _table(groups, ask, "rows", everything, [(0, np.ones(rows, np.int64))])
    if ask.get("name") == "regression":
        yield from _terms_of_regression(batch, groups, ask)
        return
    for column in dict.fromkeys(_columns(ask)):
        words = {word for name, word in _asked(ask) if name == column}
        values, there = _values(batch[column], only_count=words == {"count"})
        yield _table(groups, ask, f"n {column}", there, [(0, np.ones(rows, np.int64))])
        if words & {"mean", "sum", "variance", "std"}:
            yield _table(groups, ask, f"s {column}", there, pieces(values))
        if words & {"variance", "std"}:
            yield _table(groups, ask, f"q {column}", there, products(values, values))
        for word, term in (("quantiles", "v"), ("min", "min"), ("max", "max")):
            if word in words:
                one = [(code_of(values), np.ones(rows, np.int64))]
                yield _table(groups, ask, f"{term} {column}", there, one)


def _terms_of_regression(
    batch: pa.RecordBatch, groups: list[Any], ask: Mapping[str, Any]
) -> Iterator[pa.Table]:
    names = _columns(ask)
    found = {name: _values(batch[name]) for name in names}
    there = np.logical_and.reduce([present for _, present in found.values()])
    yield _table(groups, ask, "n", there, [(0, np.ones(batch.num_rows, np.int64))])
    for i, name in enumerate(names):
        yield _table(groups, ask, f"s {i}", there, pieces(found[name][0]))
        for j in range(i, len(names)):
            yield _table(
                groups, ask, f"q {i} {j}", there, products(found[name][0], found[names[j]][0])
            )


def _values(column: Any, *, only_count: bool = False) -> tuple[Any, Any]:
    """Numbers, with 0 where there is none, and where there is one."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if only_count and not _is_number(column.type):
        return np.zeros(len(column)), there
    if pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float64())
    values = column.fill_null(False if pa.types.is_boolean(column.type) else 0).to_numpy(
        zero_copy_only=False
    )
    if values.dtype.kind == "f":
        there = there & ~np.isnan(values)
        values = np.where(there, values, 0.0)
    return values, there


def _plain(column: Any) -> Any:
    """A column of keys in a type that other sites have as well."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    return column


def _table(
    groups: Sequence[Any],
    ask: Mapping[str, Any],
    term: str,
    there: Any,
    pairs: Sequence[tuple[Any, Any]],
) -> pa.Table:
    """Digits of one term, added up by group and exponent."""
    by = _group(ask)
    found = []
    for exponent, digits in pairs:
        rows = len(digits)
        places = np.full(rows, exponent, np.int64) if np.ndim(exponent) == 0 else exponent
        table = pa.table(
            [*groups, pa.array(places), pa.array(digits)], names=[*by, "exponent", "digits"]
        )
        if not there.all():
            table = table.filter(pa.array(there))
        found.append(table)
    keys = [*by, "exponent"]
    summed = pa.concat_tables(found).group_by(keys, use_threads=False)
    total = summed.aggregate([("digits", "sum")])
    total = total.select([*keys, "digits_sum"]).rename_columns([*keys, "digits"])
    words = pa.array([term] * len(total), pa.large_string())
    return total.add_column(len(by), "term", words)


def _empty(schema: pa.Schema, ask: Mapping[str, Any]) -> pa.Table:
    columns = [_plain(pa.array([], schema.field(name).type)) for name in ask["by"]]
    rest = [pa.array([], pa.large_string()), pa.array([], pa.int64()), pa.array([], pa.int64())]
    return pa.table([*columns, *rest], names=[*_group(ask), "term", "exponent", "digits"])


def _partial(ask: Mapping[str, Any], table: pa.Table) -> pd.DataFrame:
    # ``finish`` gets nothing but the partial result: what is asked is the name of its last column.
    name = json.dumps(ask, sort_keys=True)
    frame: pd.DataFrame = table.rename_columns([*table.column_names[:-1], name]).to_pandas()
    return frame


def _understood(partial: Any) -> tuple[dict[str, Any], pa.Table]:
    table = tabular(partial).loaded()
    ask: dict[str, Any] = json.loads(table.column_names[-1])
    columns = [_plain(table[name].combine_chunks()) for name in table.column_names]
    return ask, pa.table(columns, names=[*table.column_names[:-1], "digits"])


def _group(ask: Mapping[str, Any]) -> list[str]:
    return [f"by {number}" for number in range(len(ask["by"]))]


def _columns(ask: Mapping[str, Any]) -> list[str]:
    if "values" in ask:
        return [column for column, _ in ask["values"]]
    return [ask["column"], *ask["on"]] if ask["name"] == "regression" else [ask["column"]]


def _asked(ask: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "values" in ask:
        return [(column, word) for column, word in ask["values"]]
    return [(column, ask["name"]) for column in _columns(ask)]


# --- answers ----------------------------------------------------------------------------------------


def _answers(digits: Digits, ask: Mapping[str, Any]) -> dict[str, Any]:
    if "values" in ask:
        return {
            f"{column}_{word}": _statistic(digits, column, word) for column, word in ask["values"]
        }
    name, column = ask["name"], ask["column"]
    if name == "regression":
        return _regression(digits, ask["on"])
    count = _count(digits, f"n {column}")
    if name == "count":
        return {"count": count}
    if name == "quantiles":
        return {**_quantiles(digits, column, ask["quantiles"]), "count": count}
    return {name: _statistic(digits, column, name), "count": count}


def _count(digits: Digits, term: str) -> int:
    return int(number_of(digits.get(term, ())))


def _statistic(digits: Digits, column: str, word: str) -> float | int:
    count = _count(digits, f"n {column}")
    if word == "count":
        return count
    if word in ("min", "max"):
        found = digits.get(f"{word} {column}", ())
        return value_of(found[0][0]) if found else nan
    total = number_of(digits.get(f"s {column}", ()))
    if word == "sum":
        return rounded(total)
    if isinstance(total, float) or not count:
        return rounded(total) if count and word == "mean" else nan
    if word == "mean":
        return rounded(total / count)
    squares = number_of(digits.get(f"q {column}", ()))
    if isinstance(squares, float) or count < 2:
        return nan
    variance = rounded((squares - total * total / count) / (count - 1))
    return sqrt(variance) if word == "std" else variance


def _quantiles(digits: Digits, column: str, wanted: Sequence[float]) -> dict[str, float]:
    counted = sorted(digits.get(f"v {column}", ()))
    ends = np.cumsum([count for _, count in counted])

    def ranked(rank: int) -> float:
        return value_of(counted[int(np.searchsorted(ends, rank, side="right"))][0])

    found = {}
    for quantile in wanted:
        if not counted:
            found[f"q{quantile:g}"] = nan
            continue
        place = Fraction(quantile) * (int(ends[-1]) - 1)
        low = int(place)
        below, above = ranked(low), ranked(min(low + 1, int(ends[-1]) - 1))
        part = place - low
        if part == 0 or below == above or not np.isfinite([below, above]).all():
            found[f"q{quantile:g}"] = below
        else:
            between = Fraction(below) + (Fraction(above) - Fraction(below)) * part
            found[f"q{quantile:g}"] = rounded(between)
    return found


def _regression(digits: Digits, on: Sequence[str]) -> dict[str, Any]:
    """Least squares by the normal equations, which rational numbers solve without any error."""
    count = _count(digits, "n")
    names = ["intercept", *(f"on_{name}" for name in on)]
    sums = [number_of(digits.get(f"s {i}", ())) for i in range(len(on) + 1)]
    moments = {
        (i, j): number_of(digits.get(f"q {i} {j}", ()))
        for i in range(len(on) + 1)
        for j in range(i, len(on) + 1)
    }
    nothing = {**dict.fromkeys([*names, "r2"], nan), "count": count}
    if any(isinstance(value, float) for value in (*sums, *moments.values())):
        return nothing
    size = len(on) + 1
    matrix = [
        [_entry(i, j, count, sums, moments) for j in range(size)] + [_right(i, sums, moments)]
        for i in range(size)
    ]
    found = _solved(matrix)
    if found is None:
        return nothing
    total = moments[0, 0] - sums[0] * sums[0] / Fraction(count)
    explained = sum(
        (beta * _right(i, sums, moments) for i, beta in enumerate(found)), Fraction(0)
    ) - sums[0] * sums[0] / Fraction(count)
    r2 = rounded(explained / total) if total else nan
    return {**dict(zip(names, map(rounded, found), strict=True)), "r2": r2, "count": count}


def _entry(i: int, j: int, count: int, sums: Any, moments: Any) -> Fraction:
    """Of the matrix of all sums of products, the intercept being a column of ones."""
    low, high = sorted((i, j))
    if high == 0:
        return Fraction(count)
    found: Fraction = sums[high] if low == 0 else moments[low, high]
    return found


def _right(i: int, sums: Any, moments: Any) -> Fraction:
    found: Fraction = sums[0] if i == 0 else moments[0, i]
    return found


def _solved(matrix: list[list[Fraction]]) -> list[Fraction] | None:
    """Gauss-Jordan; ``None`` if there is no single solution."""
    size = len(matrix)
    for column in range(size):
        pivot = next((row for row in range(column, size) if matrix[row][column]), None)
        if pivot is None:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        scale = matrix[column][column]
        matrix[column] = [value / scale for value in matrix[column]]
        for row in range(size):
            factor = matrix[row][column]
            if row != column and factor:
                matrix[row] = [
                    a - factor * b for a, b in zip(matrix[row], matrix[column], strict=True)
                ]
    return [row[-1] for row in matrix]
