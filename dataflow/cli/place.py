"""``dataflow place``: plan a problem from a file, or play a plan."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dataflow.errors import ConfigError

if TYPE_CHECKING:
    from dataflow.placement.engine.race import Objective

#: Up to so many steps a first plan is made without waiting for a compiler.
_WITHOUT_COMPILER = 300
#: What can be played; see :mod:`~dataflow.placement.engine.simulate`.
_NETWORKS = ("serial", "free", "fair")


def read(path: Path) -> Any:
    """JSON out of a file, compressed or not.

    Raises
    ------
    ConfigError
        The file cannot be read or is not JSON.
    """
    import pydantic_core

    try:
        data = path.read_bytes()
        return pydantic_core.from_json(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, EOFError) as error:
        raise ConfigError(f"cannot be read: {error}", str(path)) from None
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", str(path)) from None


def write(path: Path, document: Any) -> None:
    """JSON into a file, compressed if its name says so."""
    import pydantic_core

    data = pydantic_core.to_json(document)
    try:
        path.write_bytes(gzip.compress(data, 6) if path.suffix == ".gz" else data)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error}", str(path)) from None


def objective(text: str) -> Objective:
    """``makespan``, ``bytes`` or a weight."""
    if text in ("makespan", "bytes"):
        return text  # type: ignore[return-value]
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0.0 <= weight <= 1.0:
        raise typer.BadParameter(f"{text!r} is not makespan, bytes or a weight from 0 to 1")
    return weight


def _ready(steps: int) -> None:
    """See to it that nobody waits for a compiler who need not."""
    from dataflow.placement.engine import compiled

    if compiled.is_kept() or compiled.PLAIN:
        return
    if not compiled.has_compiler():
        if steps > _WITHOUT_COMPILER:
            print(
                "without a compiler this takes a hundred times as long: "
                "pip install 'jupyter-dataflow[placement]'",
                file=sys.stderr,
            )
        return
    if steps <= _WITHOUT_COMPILER:
        compiled.PLAIN = True
        subprocess.Popen(
            ["nice", "-n", "15", sys.executable, "-m", "dataflow.placement.engine.warm"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    else:
        print("compiling for this machine, once; this takes a minute", file=sys.stderr)


def _steps(document: Any) -> int:
    try:
        return len(document["tasks"]["work"])
    except (KeyError, TypeError):
        return 0


def plan(
    problem: Path,
    wanted: Objective,
    *,
    network: str,
    seed: int,
    budget: float | None,
    prove: float,
    output: Path | None,
    json: bool,
) -> None:
    """Make a plan, print what it leads to, write it."""
    if network not in (*_NETWORKS, "any"):
        raise typer.BadParameter(f"{network!r} is not serial, free, fair or any")
    document = read(problem)
    _ready(_steps(document))
    from dataflow.cli import tables
    from dataflow.placement.engine.interchange import read_problem, write_plan
    from dataflow.placement.engine.search import place
    from dataflow.placement.engine.warm import warm

    instance = read_problem(document)
    del document
    warm()  # loading programs is not planning
    begun = time.perf_counter()
    clock = time.perf_counter if budget else None
    with tables.busy("looking for a better plan"):
        placed = place(
            instance,
            wanted,
            seed=seed,
            budget=budget,
            clock=clock,
            prove=prove,
            network=network,  # type: ignore[arg-type]
        )
    seconds = time.perf_counter() - begun
    outcome, bounds = placed.outcome, placed.bounds
    figures = {
        "makespan": outcome.makespan,
        "bytes": outcome.nbytes,
        "bounds": {"makespan": bounds.makespan, "bytes": bounds.nbytes},
        "gap": dict(zip(("makespan", "bytes"), placed.gap, strict=True)),
    }
    if output is not None:
        write(output, write_plan(instance, placed.choice, seconds, predicted=figures))
    figures |= {
        "rivals": {
            name: {"makespan": makespan, "bytes": nbytes}
            for name, (makespan, nbytes) in placed.rivals.items()
        },
        "found_by": placed.origin,
        "plans": placed.plans,
        "engine_seconds": seconds,
    }
    if json:
        tables.documents(figures)
        return
    _show(figures, instance.steps)


def _show(figures: Any, steps: int) -> None:
    from dataflow._quantities import format_bytes
    from dataflow.cli import tables

    least = figures["bounds"]
    tables.table(
        ["", "seconds>", "bytes>"],
        [
            ("this plan", f"{figures['makespan']:.6g}", format_bytes(int(figures["bytes"]))),
            (
                "no plan is below",
                f"{least['makespan']:.6g}",
                format_bytes(int(least["bytes"])),
            ),
            *(
                (name, f"{one['makespan']:.6g}", format_bytes(int(one["bytes"])))
                for name, one in figures["rivals"].items()
            ),
        ],
    )
    seconds = figures["engine_seconds"]
    print(
        f"{figures['plans']} plans played in {seconds:.3g} s, "
        f"{1e6 * seconds / max(1, steps):.3g} us a step; found by {figures['found_by']}"
    )


def check(problem: Path, plan: Path, *, network: str, json: bool) -> None:
    """Play a plan and print what becomes of it."""
    document = read(problem)
    _ready(_steps(document))
    from dataflow.placement.engine.interchange import read_plan, read_problem
    from dataflow.placement.engine.simulate import simulate

    if network not in _NETWORKS:
        raise typer.BadParameter(f"{network!r} is not serial, free or fair, which can be played")
    instance = read_problem(document)
    outcome = simulate(instance, read_plan(read(plan), instance), network)  # type: ignore[arg-type]
    figures = {
        "legal": True,
        "makespan": outcome.makespan,
        "bytes": outcome.nbytes,
        "transfers": len(outcome.moves),
    }
    from dataflow.cli import tables

    if json:
        tables.documents(figures)
        return
    from dataflow._quantities import format_bytes

    tables.fields(
        {
            "makespan": f"{outcome.makespan:.9g} s",
            "bytes": f"{format_bytes(int(outcome.nbytes))} ({outcome.nbytes:.0f})",
            "transfers": str(len(outcome.moves)),
        }
    )
