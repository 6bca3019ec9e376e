"""Table: verdicts as a person reads them, a row for each step and a column for each site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dataflow import _html
from dataflow.policy.check import Verdict

#: Rows beyond these are counted, not shown.
MOST_ROWS = 200


class Verdicts(Mapping[str, Mapping[str, Verdict]]):
    """Label of a step → site → whether it may run there, because of which rule.

    Parameters
    ----------
    rows
        One for each step.
    missing
        What is not granted at all → why.
    notes
        What else the owners say.

    Examples
    --------
    >>> Verdicts({"mean": {"uva": Verdict(False, "away", "the site does not answer")}})
    <Verdicts 1 step at 1 site: 0 of 1 allowed>
    """

    def __init__(
        self,
        rows: Mapping[str, Mapping[str, Verdict]],
        *,
        missing: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._rows = dict(rows)
        self.missing = dict(missing or {})
        self.notes = tuple(notes)

    def __getitem__(self, label: str) -> Mapping[str, Verdict]:
        return self._rows[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._rows)

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, in the order of the first row."""
        return tuple(dict.fromkeys(site for row in self._rows.values() for site in row))

    def __repr__(self) -> str:
        asked = [verdict for row in self._rows.values() for verdict in row.values()]
        steps, sites = len(self), len(self.sites)
        return (
            f"<Verdicts {steps} step{'' if steps == 1 else 's'} at {sites} "
            f"site{'' if sites == 1 else 's'}: {sum(map(bool, asked))} of {len(asked)} allowed"
            f"{f', {len(self.missing)} not granted' if self.missing else ''}>"
        )

    def _repr_html_(self) -> str:
        sites = self.sites
        rows = [
            (label, *(_cell(row.get(site)) for site in sites))
            for label, row in list(self._rows.items())[:MOST_ROWS]
        ]
        parts: list[object] = [_html.Markup(f"<p>{_html.escape(repr(self).strip('<>'))}</p>")]
        if rows:
            parts.append(_html.table(("step", *sites), rows))
        if len(self) > MOST_ROWS:
            parts.append(f"… and {len(self) - MOST_ROWS} more")
        if self.missing:
            refused = [f"{label}: {why}" for label, why in self.missing.items()]
            parts.append(_html.disclosure("not granted", _html.listing(refused), opened=True))
        if self.notes:
            parts.append(_html.disclosure("what the owners say", _html.listing(self.notes)))
        return _html.block(*parts).text


def _cell(verdict: Verdict | None) -> object:
    if verdict is None:
        return ""
    if verdict:
        return "✓ allowed"
    return _html.disclosure(f"✗ {verdict.rule}", verdict.because)
