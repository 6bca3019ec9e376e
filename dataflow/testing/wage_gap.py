"""Tables like those of the wage-gap question: the numbers of rows, the distributions and the means of two
universities, and nobody's data.

``Personen`` and ``Aanstellingen`` belong together by (Unieknr, Peildat): four yearly snapshots, so that a
join on Unieknr alone multiplies rows. Personen has lines that end in CR CR LF, Aanstellingen in CR.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SNAPSHOTS = (20171231, 20181231, 20191231, 20201231)
#: The question, and what joins on both columns of the key.
JOIN = (
    "SELECT p.Geslacht, a.Salschal FROM Personen p "
    "JOIN Aanstellingen a ON p.Unieknr = a.Unieknr AND p.Peildat = a.Peildat"
)
#: What makes rows in any number.
CARTESIAN = "SELECT * FROM Personen p, Aanstellingen a LIMIT {limit}"


@dataclass(frozen=True)
class University:
    """What is known of one: persons by how many snapshots they are in, rows, and means by gender.

    ``joined`` is gender → rows of the join and sum of their scales; ``scales`` are all of these.
    """

    code: str
    snapshots: tuple[int, ...]
    joined: dict[str, tuple[int, int]]
    scales: dict[int, int]
    unmatched: int = 0

    @property
    def means(self) -> dict[str, float]:
        """Gender → mean scale over the join, to three decimals."""
        return {gender: round(total / rows, 3) for gender, (rows, total) in self.joined.items()}


#: Scales at UVA: ten counts are the original's, the others make the sum.
_UVA = {10: 6302, 11: 2457, 12: 1788, 7: 1661, 8: 1414, 9: 1263, 13: 888, 16: 651, 99: 200}
_UVA |= {3: 20, 4: 20, 5: 20, 17: 20, 18: 20, 6: 704, 14: 909, 15: 302}

UNIVERSITIES = {
    "uva": University(
        "UVA", (1878, 7924, 100, 0), {"M": (8116, 99_445), "V": (10_523, 110_544)}, _UVA
    ),
    "vu": University(
        "DDD",
        (2000, 7000, 71, 1),
        {"M": (8007, 86_924), "V": (8618, 83_224)},
        {9: 4000, 10: 5852, 11: 5648, 12: 1125},
        unmatched=1,
    ),
}
#: Both together: gender → mean scale and rows.
TOGETHER = {"M": (11.559, 16_123), "V": (10.123, 19_141)}
#: What somebody gets who counts one of them twice.
COUNTED_TWICE = {"M": 11.792, "V": 10.259}


def tables(site: str, *, seed: int = 20171231) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Personen and Aanstellingen of a university, always the same."""
    about = UNIVERSITIES[site]
    rng = np.random.default_rng([seed, len(site)])
    persons = _personen(about, rng)
    return persons, _aanstellingen(about, persons, rng)


def write(site: str, folder: Path) -> tuple[Path, Path]:
    """Both as CSV files with semicolons and the line ends of the original."""
    found = []
    for name, ends, table in zip(
        ("Personen", "Aanstellingen"), ("\r\r\n", "\r"), tables(site), strict=True
    ):
        path = folder / f"{name}.csv"
        lines = table.to_csv(sep=";", index=False, lineterminator="\n").splitlines()
        path.write_bytes((ends.join(lines) + ends).encode())
        found.append(path)
    return found[0], found[1]


def _personen(about: University, rng: np.random.Generator) -> pd.DataFrame:
    people = sum(about.snapshots)
    number = np.repeat(np.arange(1, 5), about.snapshots)
    rng.shuffle(number)
    male = rng.random(people) < 0.44
    first = (rng.random(people) * (5 - number)).astype(int)
    who = np.repeat(np.arange(people), number)
    which = np.concatenate([np.arange(n) + start for n, start in zip(number, first, strict=True)])
    rows = len(who)
    return pd.DataFrame(
        {
            "Instcode": about.code,
            "Unieknr": 100_000 + who,
            "Geslacht": np.where(male[who], "M", "V"),
            "Gebdat": (1945 + rng.integers(0, 57, people))[who] * 10_000 + 101,
            "Nationaliteit": _codes(people, rng)[who],
            "BKO": (rng.random(rows) < 0.23).astype(int),
            "SKO": (rng.random(rows) < 0.001).astype(int),
            "Peildat": np.array(SNAPSHOTS)[which],
        }
    )


def _codes(count: int, rng: np.random.Generator) -> Any:
    known = np.array(["0001", "0055", "0052", *(f"{n:04}" for n in range(100, 198))])
    weights = np.array([0.72, 0.07, 0.06, *[0.15 / 98] * 98])
    return rng.choice(known, count, p=weights / weights.sum())


def _aanstellingen(
    about: University, persons: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Each belongs to one row of persons: the numbers of rows by gender are those of the join."""
    chosen = []
    for gender, (rows, _) in about.joined.items():
        theirs = persons.index[persons["Geslacht"] == gender].to_numpy()
        chosen.append(np.resize(theirs, rows) if len(theirs) < rows else theirs[:rows])
    scales = _dealt(about, rng)
    index = np.concatenate(chosen)
    key = persons.loc[index, ["Unieknr", "Peildat"]].reset_index(drop=True)
    if about.unmatched:
        more = pd.DataFrame({"Unieknr": [999_999] * about.unmatched, "Peildat": SNAPSHOTS[0]})
        key = pd.concat([key, more], ignore_index=True)
        scales = np.concatenate([scales, [10] * about.unmatched])
    rows = len(key)
    found = pd.DataFrame(
        {
            "Instcode": about.code,
            "Unieknr": key["Unieknr"],
            "Volgnrar": key.groupby(["Unieknr", "Peildat"]).cumcount() + 1,
            "Aadnstvb": np.where(rng.random(rows) < 0.59, "V", "T"),
            "Ingdatdv": rng.choice([19000101, 20100101, 20150901, 20180201], rows),
            "Eindatdv": 99990101,
            "HOOPgeb": rng.choice(["G&M", "ECON", "DIV", "NATU", "RECH", "T&C"], rows),
            "Functcat": rng.integers(11000, 11251, rows),
            "WelGeenHGL": (rng.random(rows) < 0.04).astype(int),
            "Salschal": scales,
            "Taakomv": rng.integers(1, 101, rows) * 100,
            "Aanst_22": rng.choice(["V", "K", "L", "T"], rows),
            "Peildat": key["Peildat"],
        }
    )
    return found.sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)


def _dealt(about: University, rng: np.random.Generator) -> Any:
    """All scales, in an order in which those of the first gender add up to what they have to."""
    scales = np.repeat(list(about.scales), list(about.scales.values()))
    rng.shuffle(scales)
    (rows, wanted), *_ = about.joined.values()
    one, other = scales[:rows], scales[rows:]
    missing = wanted - int(one.sum())
    sign = 1 if missing > 0 else -1
    for _ in range(20):
        for i, j in zip(rng.permutation(len(one)), rng.permutation(len(other)), strict=False):
            gain = int(other[j] - one[i])
            if missing and 0 < sign * gain <= min(abs(missing), 8):
                one[i], other[j] = other[j], one[i]
                missing -= gain
    assert not missing, "the scales cannot be dealt so"
    return scales
