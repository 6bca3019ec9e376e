"""Sums that do not depend on the order or the grouping of what is added, by group.

A double is a whole number times a power of two, and so is a product of two. Their sums are kept as
*digits*: whole numbers, each with the exponent of the power that it counts. Adding digits of the same
exponent is exact, so whatever parts a table is read in, or lies in, the digits of the whole stand for
the same number, which is rounded once, at the very end.

Digits come as Arrow tables: the columns of the group, ``term`` (what is summed), ``exponent`` and
``digits``. Some terms keep values in place of exponents (:func:`code_of`): ``v`` counts each value,
``min`` and ``max`` keep the outermost.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Ints = np.ndarray[Any, np.dtype[np.int64]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]

#: Bits of a digit: so many leave room for 2**36 additions.
BITS = 27
#: Exponents that stand for plus and minus infinity; doubles do not get that far.
PLUS, MINUS = 10_000, 10_001
#: Products of whole numbers whose sum stays below this are added as they are.
SAFE = 2.0**62


def pieces(values: Any) -> list[tuple[Ints | int, Ints]]:
    """Numbers as pairs of exponents and digits, whose sum over all pairs is the number itself."""
    if values.dtype.kind in "iub" and values.dtype.itemsize <= 4:
        return [(0, values.astype(np.int64))]
    if values.dtype.kind in "iu":
        return _cut(values, 0)
    number = values.astype(np.float64)
    finite = np.isfinite(number)
    mantissa, exponent = np.frexp(np.where(finite, number, 0.0))
    whole = (mantissa * 2.0**53).astype(np.int64)
    found = _cut(whole, exponent.astype(np.int64) - 53)
    return found if finite.all() else found + _infinite(number)


def products(left: Any, right: Any) -> list[tuple[Ints | int, Ints]]:
    """The same for the products of two columns."""
    if left.dtype.kind in "iub" and right.dtype.kind in "iub":
        a, b = left.astype(np.int64), right.astype(np.int64)
        most = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0))
        if most * max(len(a), 1) < SAFE:
            return [(0, a * b)]
    found: list[tuple[Ints | int, Ints]] = []
    with np.errstate(over="ignore", invalid="ignore"):
        number = left.astype(np.float64) * right.astype(np.float64)
        strange = ~(np.isfinite(left.astype(np.float64)) & np.isfinite(right.astype(np.float64)))
    for one, a in pieces(np.where(strange, 0, left)):
        for other, b in pieces(np.where(strange, 0, right)):
            found += _cut(a * b, one + other)
    return found + _infinite(np.where(strange, number, 0.0)) if strange.any() else found


def _cut(whole: Any, exponent: Ints | int) -> list[tuple[Ints | int, Ints]]:
    """Whole numbers below 2**63 (2**64 without sign) as digits."""
    low = (whole & whole.dtype.type(2**BITS - 1)).astype(np.int64)
    rest = whole >> whole.dtype.type(BITS)
    middle = (rest & rest.dtype.type(2**BITS - 1)).astype(np.int64)
    high = (rest >> rest.dtype.type(BITS)).astype(np.int64)
    found: list[tuple[Ints | int, Ints]] = [(exponent, low), (exponent + BITS, middle)]
    return [*found, (exponent + 2 * BITS, high)] if high.any() else found


def _infinite(number: Doubles) -> list[tuple[Ints | int, Ints]]:
    strange = np.isnan(number)
    return [
        (PLUS, ((number == np.inf) | strange).astype(np.int64)),
        (MINUS, ((number == -np.inf) | strange).astype(np.int64)),
    ]


def code_of(values: Any) -> Ints:
    """Doubles as whole numbers in the same order."""
    bits = (values.astype(np.float64) + 0.0).view(np.int64)  # there is one zero only
    coded: Ints = np.where(bits < 0, np.int64(-(2**63)) - bits - 1, bits)
    return coded


def value_of(code: int) -> float:
    """What :func:`code_of` made a number of."""
    bits = code if code >= 0 else -(2**63) - code - 1
    return float(np.int64(bits).view(np.float64))


def folded(tables: Sequence[pa.Table], by: Sequence[str]) -> pa.Table:
    """Digits of the same group, term and exponent added up, and cut to size again."""
    table = pa.concat_tables(tables, promote_options="permissive")
    keys = [*by, "term", "exponent"]
    summed = table.group_by(keys, use_threads=False).aggregate([("digits", "sum")])
    summed = summed.select([*keys, "digits_sum"]).rename_columns([*keys, "digits"])
    summed = _outermost(_cut_again(summed), by)
    return summed.filter(pc.not_equal(summed["digits"], 0))


def _cut_again(table: pa.Table) -> pa.Table:
    """Digits that have grown, with what is too much of them at the next exponents."""
    digits = table["digits"].to_numpy()
    exponents = table["exponent"].to_numpy()
    counts = np.zeros(len(digits), bool)
    for word in ("v ", "min ", "max "):
        counts |= pc.starts_with(table["term"], word).to_numpy()
    grown = (np.abs(digits) >= 2 ** (BITS + 8)) & ~counts & (exponents < PLUS)
    if not grown.any():
        return table
    place = table.schema.get_field_index("exponent")
    rows = np.nonzero(grown)[0]
    kept = table.take(pa.array(np.nonzero(~grown)[0]))
    parts = [kept]
    for exponent, part in _cut(digits[rows], exponents[rows]):
        cut = table.take(pa.array(rows))
        cut = cut.set_column(place, "exponent", pa.array(np.asarray(exponent)))
        parts.append(cut.set_column(place + 1, "digits", pa.array(part)))
    keys = table.column_names[:-1]
    together = pa.concat_tables(parts).group_by(keys, use_threads=False)
    summed = together.aggregate([("digits", "sum")])
    return summed.select([*keys, "digits_sum"]).rename_columns([*keys, "digits"])


def _outermost(table: pa.Table, by: Sequence[str]) -> pa.Table:
    for word in ("min", "max"):
        mine = pc.starts_with(table["term"], f"{word} ")
        if not pc.any(mine).as_py():
            continue
        keys = [*by, "term"]
        found = (
            table.filter(mine)
            .group_by(keys, use_threads=False)
            .aggregate([("exponent", word)])
            .rename_columns([*keys, "exponent"])
        )
        found = found.append_column("digits", pa.array(np.ones(len(found), np.int64)))
        table = pa.concat_tables([table.filter(pc.invert(mine)), found.cast(table.schema)])
    return table


def number_of(digits: Sequence[tuple[int, int]]) -> Fraction | float:
    """The number that pairs of exponent and digit stand for; infinities and NaN as floats."""
    strange = {exponent for exponent, digit in digits if exponent >= PLUS and digit}
    if strange:
        return float("nan") if len(strange) > 1 else float("inf" if PLUS in strange else "-inf")
    if not digits:
        return Fraction(0)
    least = min(exponent for exponent, _ in digits)
    whole = sum(digit << (exponent - least) for exponent, digit in digits)
    return Fraction(whole) * Fraction(2) ** least


def rounded(number: Fraction | float) -> float:
    """The double that is nearest; infinite where there is none."""
    try:
        return float(number)
    except OverflowError:
        return float("inf" if number > 0 else "-inf")
