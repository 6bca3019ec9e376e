"""``%load_ext dataflow``: the session's questions as one line magics, for notebooks and IPython."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.session.session import Session

USAGE = """\
%flow jobs [STATUS]           jobs of the federation, newest first
%flow job ID                  one of them, to come back to
%flow datasets [WORDS]        datasets anywhere
%flow sites                   all sites
%flow why JOB STEP            why a step runs where it runs
%flow ledger JOB              what crossed links for a job"""


def flow(line: str) -> Any:
    """Answer a line of ``%flow``; without words, what can be asked.

    Raises
    ------
    ConfigError
        If it is none of these questions.
    """
    from dataflow.session.connecting import current

    words = shlex.split(line)
    if not words or words[0] in ("help", "-h", "--help"):
        print(USAGE)
        return None
    return _answer(current(), words[0], words[1:], line)


def _answer(session: Session, what: str, rest: list[str], line: str) -> Any:
    count = len(rest)
    if what == "jobs" and count <= 1:
        return session.jobs(status=rest[0] if rest else None)
    if what == "job" and count == 1:
        return session.job(rest[0])
    if what == "datasets":
        return session.datasets(text=" ".join(rest) or None)
    if what == "sites" and not rest:
        return session.topology()
    if what == "why" and count == 2:
        return session.job(rest[0]).plan.why(rest[1])
    if what == "ledger" and count == 1:
        return session.ledger(rest[0])
    raise ConfigError(f"%flow {line.strip()}: this is no question; there are\n{USAGE}")


def load(shell: Any) -> None:
    """Add ``%flow`` to an IPython shell."""
    shell.register_magic_function(flow, "line", "flow")
