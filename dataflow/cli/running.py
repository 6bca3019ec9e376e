"""Commands that plan and run: ``plan``, ``run``, ``why``, ``crate``, ``verify`` and ``batch``; parts of ``dataflow``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataflow.cli.entry import FAILED, AsJson, Tags, pairs, session, site_file

if TYPE_CHECKING:
    from dataflow.session.jobs import Job

Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py[:FUNCTION]",
        help="A function (default: graph) that gets the session and gives a graph.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Of the function."),
]
Scope = Annotated[str | None, typer.Option(help="Where, as in a notebook: {parity: uva}.")]
Objective = Annotated[
    str, typer.Option(metavar="balanced|time|bytes|money|energy", help="What is to be least.")
]


def plan(
    source: Source,
    parameter: Parameters = None,
    scope: Scope = None,
    objective: Objective = "balanced",
    json: AsJson = False,
) -> None:
    """Show where each step of a graph would run, what would move, and what it would cost."""
    from dataflow.cli import tables
    from dataflow.cli.graphs import graph_of

    with session() as opened:
        graph = graph_of(source, opened, pairs(parameter))
        with tables.busy("planning"):
            made = opened.plan(graph, scope=scope, objective=objective)
    if json:
        tables.documents(made)
    else:
        print(made.table())


def run(
    source: Source,
    parameter: Parameters = None,
    scope: Scope = None,
    objective: Objective = "balanced",
    tag: Tags = None,
    wait: Annotated[bool, typer.Option(help="Until it has ended; a bar shows how far.")] = True,
    json: AsJson = False,
) -> None:
    """Run a graph; what is stored already is not computed again."""
    from dataflow.cli import tables
    from dataflow.cli.graphs import graph_of
    from dataflow.errors import from_document

    with session() as opened:
        graph = graph_of(source, opened, pairs(parameter))
        with tables.busy("planning"):
            made = opened.plan(graph, scope=scope, objective=objective)
        job = opened.submit(made, tags=pairs(tag))
        if wait:
            _followed(job, quiet=json)
        view = job.view()
    if json:
        tables.documents(view)
    else:
        results = ", ".join(f"{one.site}/{one.name}" for one in view.results.values())
        print(f"job {view.id} {view.status}{f': {results}' if results else ''}")
    if view.error is not None:
        raise from_document(view.error)
    if wait and view.status != "done":
        raise typer.Exit(FAILED)


def _followed(job: Job, *, quiet: bool) -> None:
    try:
        job.wait(told=False, progress=False if quiet else None)
    except KeyboardInterrupt:
        print(f"job {job.id} goes on; `dataflow job {job.id}` shows it", file=sys.stderr)
        raise typer.Exit(130) from None


def why(
    id: Annotated[str, typer.Argument(help="A job.")],
    step: Annotated[str | None, typer.Argument(help="Label of a step; default: all.")] = None,
    json: AsJson = False,
) -> None:
    """Say why each step of a job runs where it runs, and what would change that."""
    from dataflow.cli import tables

    with session() as opened:
        made = opened.job(id).plan
        labels = [made.label(one.key) for one in made.assignments] if step is None else [step]
        reasons = [made.why(label) for label in labels]
    if json:
        tables.documents(reasons)
    else:
        print("\n\n".join(repr(one) for one in reasons))


def crate(
    id: Annotated[str, typer.Argument(help="A job that has ended.")],
    path: Annotated[Path, typer.Argument(help="A folder to be made, or a .zip file.")],
    json: AsJson = False,
) -> None:
    """Describe a job as an RO-Crate: inputs, operations, sites, plan, ledger, results."""
    from dataflow.cli import tables

    if path.exists():
        raise typer.BadParameter(f"{path} is there already")
    with session() as opened:
        written = opened.job(id).crate(path)
    if json:
        tables.documents({"job": id, "crate": str(written)})
    else:
        print(written)


def verify(
    result: Annotated[str, typer.Argument(help="Name, site/name, id or key.")],
    site: Annotated[str | None, typer.Option(help="Whose copy; default the nearest.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Also compute it at another site, and compare.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Whether every byte of a result is what its writer noted; exit code 1 if not."""
    from dataflow.cli import tables
    from dataflow.session.verifying import verified

    with session() as opened, tables.counted("files", shown=not json) as told:
        found = verified(opened, result, site=site, recompute=recompute, told=told)
    if json:
        from dataflow.documents import to_document

        tables.documents({"holds": bool(found), **to_document(found)})
    else:
        print("\n".join((repr(found).strip("<>"), *found.reasons())))
    if not found:
        raise typer.Exit(FAILED)


def batch(
    sweep: Annotated[Path, typer.Argument(help="Which notebooks, with which parameters (YAML).")],
    parallel: Annotated[
        int | None, typer.Option("--parallel", "-j", min=1, help="So many at a time.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what would be run.")] = False,
    json: AsJson = False,
) -> None:
    """Run many notebooks by papermill, each where its data are; a table says what became of them.

    Exit codes: 0 all done, 1 some failed, 2 a wrong file.
    """
    from dataflow.cli import batch as command

    if not command.run(sweep, sites=site_file(), parallel=parallel, dry=dry, json_=json):
        raise typer.Exit(FAILED)


def add_to(app: typer.Typer) -> None:
    """Make these commands of ``app``."""
    for command in (plan, run, why, crate, verify, batch):
        app.command()(command)
