"""The command line: ``dataflow sites``, ``dataflow agent`` and so on.

A command reads its arguments, asks the session, and prints. Nothing heavy is imported before a
command needs it, so that ``dataflow --help`` is instant.

Exit codes: 0 done · 1 failed · 2 wrong usage or a wrong file · 3 a site does not answer ·
4 somebody who may say no said no · 130 interrupted; jobs go on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from dataflow.cli import running
from dataflow.cli.entry import (
    FAILED,
    REFUSED,
    UNREACHABLE,
    USAGE,
    AsJson,
    Globals,
    Tags,
    pairs,
    session,
)
from dataflow.errors import (
    ConfigError,
    DataflowError,
    PolicyError,
    SiteRefused,
    SiteUnreachable,
)

#: Exit code of an error: the first class in this list that it belongs to decides.
_CODES: Sequence[tuple[type[DataflowError], int]] = (
    (SiteUnreachable, UNREACHABLE),
    (SiteRefused, REFUSED),
    (PolicyError, REFUSED),
    (ConfigError, USAGE),
    (DataflowError, FAILED),
)

app = typer.Typer(
    name="dataflow",
    help="Move the computation to the data: sites, datasets, jobs and what crossed the links.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or file, 3 a site does not answer, "
    "4 refused, 130 interrupted (a job goes on).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing help with rich takes longer than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import dataflow

        print(f"dataflow {dataflow.__version__}")
        raise typer.Exit


@app.callback()
def _before(
    sites: Annotated[
        Path | None,
        typer.Option(
            "--sites",
            "-s",
            metavar="FILE",
            envvar="DATAFLOW_SITE_FILE",
            help="Site file; without one, this machine is the only site.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    Globals.sites, Globals.debug = sites, debug


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    try:
        app(args=list(arguments) if arguments is not None else None)
    except DataflowError as error:
        if Globals.debug:
            raise
        leave(error)
    except BrokenPipeError:  # the reader of a pipe had enough, as `head` does
        sys.stderr.close()
        sys.exit(FAILED)
    sys.exit(0)


def leave(error: DataflowError) -> NoReturn:
    """Say what went wrong, and leave the process with the exit code for it."""
    print(f"{error.kind}: {error}", file=sys.stderr)
    sys.exit(next(code for cls, code in _CODES if isinstance(error, cls)))


# --- looking ----------------------------------------------------------------------------------


@app.command()
def sites(json: AsJson = False) -> None:
    """List all sites, and which are away."""
    from dataflow._quantities import format_bytes
    from dataflow.cli import tables

    with session() as opened:
        topology = opened.topology()
    if json:
        tables.documents(topology)
        return
    tables.table(
        ["site", "", "workers>", "threads>", "memory>", "speed>", "trust", "stores", "address"],
        [
            (
                site.name,
                "away" if site.name in topology.away else "here",
                site.workers,
                site.threads,
                format_bytes(site.memory),
                f"{site.speed:g}",
                site.trust,
                [store.name for store in topology.stores_at(site.name)],
                site.address or "",
            )
            for site in topology.sites
        ],
    )


@app.command()
def datasets(
    tag: Tags = None,
    text: Annotated[str | None, typer.Option(help="Words to look for.")] = None,
    owner: Annotated[str | None, typer.Option()] = None,
    site: Annotated[str | None, typer.Option()] = None,
    json: AsJson = False,
    stac: Annotated[bool, typer.Option("--stac", help="Print STAC items instead.")] = False,
) -> None:
    """List datasets anywhere in the federation."""
    from dataflow._quantities import format_bytes
    from dataflow.cli import tables

    asked: dict[str, Any] = {"tags": pairs(tag) or None, "text": text, "owner": owner}
    with session() as opened:
        listing = opened.datasets(**asked, site=site)
        found = list(listing)
    if stac or json:
        tables.documents(listing.stac() if stac else found)
        return
    tables.table(
        ["name", "site", "kind", "shape", "size>", "owner", "tags", "id"],
        [
            (
                dataset.name,
                dataset.site,
                dataset.kind,
                " x ".join(map(str, dataset.extent.shape or ())),
                format_bytes(dataset.extent.nbytes),
                dataset.owner,
                tables.pairs(dataset.tags),
                dataset.id[:12],
            )
            for dataset in found
        ],
        empty="no datasets; `dataflow register URL` makes one",
    )


@app.command()
def jobs(json: AsJson = False) -> None:
    """List jobs, newest first."""
    from dataflow.cli import tables

    with session() as opened:
        found = list(opened.jobs())
    if json:
        tables.documents(found)
        return
    tables.table(
        ["job", "status", "user", "coordinator", "created", "tags"],
        [
            (
                view.id,
                view.status,
                view.user,
                view.coordinator,
                tables.moment(view.created),
                tables.pairs(view.tags),
            )
            for view in found
        ],
        empty="no jobs yet",
    )


@app.command()
def job(
    id: Annotated[str, typer.Argument(help="The job's id.")],
    events: Annotated[bool, typer.Option("--events", help="Show its journal.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel it.")] = False,
    json: AsJson = False,
) -> None:
    """Show one job, its journal, or cancel it."""
    from dataflow.cli import tables

    with session() as opened:
        handle = opened.job(id)
        if cancel:
            handle.cancel()
        journal = list(handle.events()) if events else []
        view = handle.view()
    if json:
        tables.documents(journal if events else view)
        return
    if events:
        tables.table(
            ["time", "event", "unit", "site"],
            [
                (
                    tables.moment(event.time),
                    event.type,
                    getattr(event, "unit", ""),
                    getattr(event, "site", ""),
                )
                for event in journal
            ],
        )
        return
    tables.fields(
        {
            "job": view.id,
            "status": view.status,
            "done": f"{view.done} of {view.total}",
            "user": view.user,
            "coordinator": view.coordinator,
            "created": tables.moment(view.created),
            "updated": tables.moment(view.updated),
            "tags": tables.pairs(view.tags),
            "results": [dataset.name for dataset in view.results.values()],
            "message": view.message,
        }
    )


@app.command()
def ledger(id: Annotated[str, typer.Argument(help="The job's id.")], json: AsJson = False) -> None:
    """Show what crossed which link for a job."""
    from dataflow._quantities import format_bytes
    from dataflow.cli import tables

    with session() as opened:
        found = list(opened.ledger(id))
    if json:
        tables.documents(found)
        return
    tables.table(
        ["from", "to", "size>", "seconds>", "key"],
        [
            (
                entry.source,
                entry.target,
                format_bytes(entry.nbytes),
                f"{entry.seconds:.2f}",
                entry.key[:12],
            )
            for entry in found
        ],
        empty="nothing crossed a link",
    )


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="A site file.")
    ] = None,
    sites: Annotated[
        Path | None, typer.Option("--sites", "-s", metavar="FILE", help="The same.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a site file, and all that it names; say what to do about what fails."""
    if config is not None and sites is not None:
        raise typer.BadParameter("give one file, by --config or by --sites")
    from dataflow.cli.doctor import run

    run(config or sites or Globals.sites, json=json)


@app.command()
def place(
    problem: Annotated[Path, typer.Argument(help="A placement-bench/1 file, may be .gz.")],
    plan: Annotated[
        Path | None, typer.Argument(help="With --check: a placement-plan/1 file.")
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="makespan|bytes|WEIGHT",
            help="What is least; a weight from 0 (makespan) to 1 (bytes) balances.",
        ),
    ] = "makespan",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal plans.")] = 0,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.0001, metavar="SECONDS", help="For deciding; by default 0.1 ms a step, >= 50 ms."
        ),
    ] = None,
    prove: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="On top, for better bounds on small problems."),
    ] = 0.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PLAN", help="Where the plan goes.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Play PLAN instead of making one.")
    ] = False,
    network: Annotated[
        str,
        typer.Option(
            metavar="serial|free|fair|any",
            help="How links are shared; any: a plan that does with queues and without.",
        ),
    ] = "serial",
    json: AsJson = False,
) -> None:
    """Decide where the steps of a problem run, or play a plan.

    Exit codes: 0 done or legal, 1 no legal plan exists or PLAN is not legal, 2 wrong usage or file.
    """
    from dataflow.cli import place as command

    if check != (plan is not None):
        raise typer.BadParameter("--check goes with a PLAN, and a PLAN with --check")
    if plan is not None:
        command.check(problem, plan, network=network, json=json)
        return
    wanted = command.objective(objective)
    if prove and network == "free":
        raise typer.BadParameter("--prove is for networks with queues, and free has none")
    command.plan(
        problem,
        wanted,
        network=network,
        seed=seed,
        budget=budget,
        prove=prove,
        output=output,
        json=json,
    )


@app.command()
def agreements(
    site: Annotated[str | None, typer.Argument(help="Of this site only.")] = None,
    json: AsJson = False,
) -> None:
    """What owners grant, as far as you may know of it."""
    from dataflow.cli import tables

    with session() as opened:
        found = opened.agreements(site)
    if json:
        tables.documents(found)
        return
    rows = [
        (
            a.site,
            a.name,
            r.id,
            r.users,
            r.request_types,
            r.datasets,
            r.archetypes,
            r.compute_providers,
        )
        for a in found
        for r in a.relations
    ]
    columns = ("site", "agreement", "relation", "users", "requests", "data", "archetypes", "by")
    tables.table(columns, rows, empty="nothing is granted to you")


audit = typer.Typer(help="The audit log of a site.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(audit, name="audit")


@audit.command()
def verify(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The site's file.")] = None,
    file: Annotated[Path | None, typer.Argument(help="The log itself, instead.")] = None,
    json: AsJson = False,
) -> None:
    """Whether the log is whole: nothing changed, taken out or put in before its last entry."""
    from dataflow.config import read_site_file
    from dataflow.participant.audit import FILE
    from dataflow.participant.audit import verify as look

    if (config is None) == (file is None):
        raise typer.BadParameter("give the site's file by --config, or the log itself")
    path = file if file is not None else read_site_file(config or "").state / FILE
    found = look(path)
    if json:
        from dataflow.cli import tables

        tables.documents({"file": str(path), "holds": not found.broken, **asdict(found)})
    elif found.broken:
        print(f"{path}: broken at {found.broken}; the {found.entries} entries before it hold")
    else:
        print(f"{found.entries} entries hold; the last is {found.last}")
    if found.broken:
        raise typer.Exit(FAILED)


# --- doing ------------------------------------------------------------------------------------


@app.command()
def register(
    url: Annotated[str, typer.Argument(help="A path, file:///… or s3://bucket/…")],
    name: Annotated[str | None, typer.Option(help="A name, unique at its site.")] = None,
    tag: Tags = None,
    variable: Annotated[str | None, typer.Option(help="One array of a file with several.")] = None,
    json: AsJson = False,
    site: Annotated[str | None, typer.Option(help="Where it lies; default this machine.")] = None,
    listing: Annotated[
        bool,
        typer.Option("--listing", help="URL is a file with STAC items or an intake catalog: all."),
    ] = False,
) -> None:
    """Make a dataset of data that stays where it is, or of all that a listing names."""
    from dataflow.cli import tables

    tags = pairs(tag)
    if listing:
        if name is not None or variable is not None:
            raise typer.BadParameter("--name and --variable are for one dataset, not for --listing")
        with session() as opened, tables.busy(f"reading what {url} names"):
            made = opened.register_all(url, site=site, tags=tags)
        if json:
            tables.documents(made)
        else:
            tables.table(["name", "site", "id"], [(d.name, d.site, d.id) for d in made])
        return
    with session() as opened, tables.busy(f"reading {url}"):
        dataset = opened.register(url, name=name, tags=tags, variable=variable, site=site)
    if json:
        tables.documents(dataset)
    else:
        print(f"{dataset.site}/{dataset.name}  {dataset.id}")


@app.command()
def agent(
    config: Annotated[Path, typer.Option("--config", "-c", help="The site's file.")],
    host: Annotated[str | None, typer.Option(help="Instead of the file's.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one.")] = None,
    socket: Annotated[Path | None, typer.Option(help="A Unix socket instead.")] = None,
    state: Annotated[Path | None, typer.Option(help="State directory instead.")] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="Token file; by default `tokens` in the state directory, made if missing."
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start it unless it runs, print where it answers.")
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="End when nobody wanted anything for so long."),
    ] = None,
    certificate: Annotated[
        bool,
        typer.Option("--certificate", help="Only show its certificate, to be given to others."),
    ] = False,
) -> None:
    """Serve a site until it is told to stop."""
    from dataflow.cli.agent import run, show_certificate

    if certificate:
        show_certificate(config, state=state)
        return

    run(
        config,
        host=host,
        port=port,
        socket=socket,
        state=state,
        tokens=tokens,
        debug=Globals.debug,
        detach=detach,
        idle=idle,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For the picture.")] = Path(
        "demo-out"
    ),
    megabits: Annotated[float, typer.Option(min=0.1, help="Speed of the links, Mbit/s.")] = 20.0,
) -> None:
    """Show the main thing in one go: three sites on this machine, a plan, a run, a ledger, a picture."""
    from dataflow.cli.demo import run

    status = run(out, megabits)
    if status:
        raise typer.Exit(status)


running.add_to(app)
