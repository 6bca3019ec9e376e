"""``papermill --engine dataflow``: the notebook goes to the data, and its cells come back.

Parameters that name datasets of the catalog decide the site, by size and by the owners' agreements
(request type ``notebook``). Without any the notebook runs here, as without this engine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
from papermill.engines import Engine, NBClientEngine
from papermill.log import logger

from dataflow.errors import ConfigError, DataflowError, NotGranted, SiteUnreachable, UnknownJob
from dataflow.execution.invitation import NOTEBOOK, is_notebook
from dataflow.integrations.notebook_step import notebook_graph
from dataflow.integrations.serving import answering
from dataflow.session.jobs import LATE_QUESTIONS, PATIENCE

if TYPE_CHECKING:
    from papermill.engines import NotebookExecutionManager

    from dataflow.execution.programs import Program
    from dataflow.placement.plan import Plan
    from dataflow.session.jobs import Job
    from dataflow.session.session import Session

#: Longest question (s) for cells that have ended.
POLL_SECONDS = 10.0
#: Seconds between two looks whether the notebook has begun.
GLANCE_SECONDS = 0.3

#: Environment variables of the engine, as papermill hands on no options of an engine.
SCOPE, AGAIN, PURPOSE = "DATAFLOW_NOTEBOOK_SCOPE", "DATAFLOW_NOTEBOOK_AGAIN", "DATAFLOW_PURPOSE"


class DataflowEngine(Engine):  # type: ignore[misc]
    """Runs a notebook at the site of the datasets that its parameters name."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **kwargs: Any
    ) -> None:
        """Have the notebook run, and put each cell into it as soon as it has ended.

        Raises
        ------
        DataflowError
            If it could not be run; a cell that failed is for papermill to tell.
        """
        import dataflow as flow

        # papermill has all that libraries say written down, and Dask says a lot
        dask.config.set({"logging.distributed": "warning"})
        with flow.connect() as session:
            names = datasets_of(_parameters(nb_man.nb), session)
            if names:
                _run(session, nb_man, names)
                return
        logger.info("no parameter names a dataset: the notebook runs here")
        NBClientEngine.execute_managed_notebook(nb_man, kernel_name, **kwargs)


def datasets_of(parameters: Mapping[str, Any], session: Session) -> list[str]:
    """The datasets that parameters name, each once: texts and lists of texts, as the catalog has them."""
    found: dict[str, None] = {}
    for value in parameters.values():
        for word in value if isinstance(value, list | tuple) else [value]:
            if isinstance(word, str) and word and word in session:
                found[word] = None
    return list(found)


def _parameters(notebook: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = notebook.metadata.get("papermill", {}).get("parameters", {})
    return found


def _run(session: Session, nb_man: NotebookExecutionManager, names: list[str]) -> None:
    language = nb_man.nb.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise ConfigError(
            f"notebooks of {language} are not moved to the data\n"
            "What you can do: leave --engine dataflow out"
        )
    again = os.environ.get(AGAIN, "")
    graph = notebook_graph(nb_man.nb, [session[name] for name in names], again=again)
    plan = session.plan(
        graph,
        request=NOTEBOOK,
        purpose=os.environ.get(PURPOSE, ""),
        scope=os.environ.get(SCOPE) or None,
    )
    site = site_of(plan)
    with answering(session, site):
        job = session.submit(plan, tags={"name": NOTEBOOK}, attach=True)
        logger.info("the notebook is job %s at %s, over %s", job.id, site, ", ".join(names))
        nb_man.nb.metadata.papermill["dataflow"] = {"job": job.id, "site": site}
        try:
            _follow(session, job, nb_man)
        except KeyboardInterrupt:
            logger.warning(
                "job %s goes on at %s; the same command takes it up again, and "
                "`dataflow job %s --cancel` ends it",
                job.id,
                site,
                job.id,
            )
            raise


def site_of(plan: Plan) -> str:
    """Where the notebook of a plan runs; empty if it is there already."""
    return next(
        (
            one.site
            for one in plan.assignments
            if any(is_notebook(s.operation) for s in plan.steps if s.key == one.key)
        ),
        "",
    )


def _follow(session: Session, job: Job, nb_man: NotebookExecutionManager) -> None:
    failed = False
    for number, event, cell in events_of(session, job):
        if event == "begun":
            nb_man.cell_start(nb_man.nb.cells[number], number)
            continue
        _take(nb_man, number, cell)
        if event == "failed":
            failed = True
            nb_man.cell_exception(nb_man.nb.cells[number], number)
        else:
            nb_man.cell_complete(nb_man.nb.cells[number], number)
    try:
        paths = job.result()
    except DataflowError:
        if failed:  # papermill raises it, with the cell
            return
        raise
    executed = json.loads(Path(paths[0] if isinstance(paths, list) else paths).read_bytes())
    for number, cell in enumerate(executed["cells"]):
        if cell["cell_type"] == "code":
            _take(nb_man, number, cell)
            if nb_man.nb.cells[number].metadata.papermill.get("status") != nb_man.COMPLETED:
                nb_man.cell_complete(nb_man.nb.cells[number], number)


def _take(nb_man: NotebookExecutionManager, number: int, cell: Mapping[str, Any]) -> None:
    import nbformat

    mine = nb_man.nb.cells[number]
    mine.outputs = [nbformat.from_dict(one) for one in cell.get("outputs", ())]
    mine.execution_count = cell.get("execution_count")


def events_of(session: Session, job: Job) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """What becomes of the cells of a notebook: number, ``begun``, ``executed`` or ``failed``, the cell.

    Ends when the job has ended. A notebook that is run anew after its site was lost begins anew here.
    """
    run, since = "", 0
    #: Sites that do not answer, and since when.
    silent: dict[str, float] = {}
    while True:
        try:
            over = job.view().over
            program = _program(job)
        except SiteUnreachable as error:
            _be_patient(session, silent, error)
            continue
        if program is not None and program.run != run:
            run, since = program.run, 0
        if program is None or program.status in ("new", "pending"):
            silent.clear()
            if over:
                return
            time.sleep(GLANCE_SECONDS)
            continue
        try:
            wait = 0.0 if over or program.over else POLL_SECONDS
            found = session.cells(program.site, run, since, wait)
        except UnknownJob:  # it has ended well, and is stored; or its agent began anew
            silent.clear()
            if over:
                return
            time.sleep(GLANCE_SECONDS)
            continue
        except SiteUnreachable as error:
            _be_patient(session, silent, error)
            continue
        except NotGranted as error:
            logger.warning("the cells are not shown before the end: %s", error)
            return
        silent.clear()
        for line in found.lines:
            told = json.loads(line)
            yield int(told["index"]), str(told["event"]), told.get("cell", {})
        since = found.next
        if found.lines:
            continue
        if over:
            return
        if not wait:  # it has ended, and its job has not yet
            time.sleep(GLANCE_SECONDS)


def _be_patient(session: Session, silent: dict[str, float], error: SiteUnreachable) -> None:
    """Wait a little for a site that does not answer; raises the error when that was long enough."""
    began = silent.setdefault(error.site, time.monotonic())
    late = session.participant.ways.slowness(error.site)
    if time.monotonic() - began > PATIENCE + LATE_QUESTIONS * late:
        raise error
    time.sleep(GLANCE_SECONDS)


def _program(job: Job) -> Program | None:
    return next((one for one in job.programs() if one.run), None)
