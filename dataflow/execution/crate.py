"""Crate: a job as an RO-Crate, so that others can say what was done without this program. Pure.

An RO-Crate (https://w3id.org/ro/crate/1.1) is a folder with a JSON-LD file that describes what was made,
of what, by what, where, when and for whom, in the words of schema.org. Ours follows the profile for
runs of processes: each step that ran is an action with an operation as instrument. Beside it lie the plan,
the ledger and the journal, whole. Data stay where they are: the crate has their keys and digests.

Nothing in plans, ledgers and journals is secret; what stands before the host or behind the path of a URL
is left out all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from dataflow.catalog.exchange import plain_url
from dataflow.datasets import Dataset, Replica
from dataflow.documents import to_document
from dataflow.errors import JobError
from dataflow.execution.events import Ended, Event, JobCreated, UnitReported, UnitStarted
from dataflow.execution.state import JobState, replay
from dataflow.execution.view import LedgerEntry
from dataflow.graph.operation import Operation
from dataflow.placement.plan import Assignment

METADATA = "ro-crate-metadata.json"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PLAN, LEDGER, JOURNAL = "plan.json", "ledger.json", "journal.jsonl"
#: What a job's end is called there.
_ENDS = {
    True: "http://schema.org/CompletedActionStatus",
    False: "http://schema.org/FailedActionStatus",
}

Entity = dict[str, Any]


def crate_of(
    events: Sequence[Event], ledger: Sequence[LedgerEntry], *, version: str = ""
) -> dict[str, bytes]:
    """All files of the crate by name.

    The same job gives the same bytes: nothing in it depends on when or where it was written.

    Parameters
    ----------
    events
        The job's whole journal.
    ledger
        What crossed links for it.
    version
        Of this program.

    Raises
    ------
    JobError
        If the journal is not of a job that has ended.
    """
    created = events[0] if events else None
    if not isinstance(created, JobCreated):
        raise JobError("this journal does not begin with a job")
    state = replay(events)
    if not state.over:
        raise JobError(
            f"job {state.job} is {state.status}. What you can do: job.wait(), then ask again"
        )
    files = {
        PLAN: _json(to_document(state.plan)),
        LEDGER: _json([to_document(entry) for entry in ledger]),
        JOURNAL: b"".join(_line(event) for event in events),
    }
    described = _described(state, created, events, files, version)
    files[METADATA] = _json({"@context": CONTEXT, "@graph": described})
    return files


def _described(
    state: JobState,
    created: JobCreated,
    events: Sequence[Event],
    files: Mapping[str, bytes],
    version: str,
) -> list[Entity]:
    found: dict[str, Entity] = {}

    def add(entity: Entity) -> Entity:
        return _ref(found.setdefault(entity["@id"], entity))

    plan, times = state.plan, _times(events)
    segments = {key: segment.id for segment in plan.segments for key in segment.steps}
    user = add({"@id": f"#user-{created.user}", "@type": "Person", "name": created.user})
    engine = add(_program(version))
    results = {
        key: next((one.dataset for (k, _), one in state.stored.items() if k == key), None)
        for key in (*plan.outputs, *(step.key for step in plan.steps))
    }
    known = {key: dataset for key, dataset in results.items() if dataset is not None}
    for key, record in {**plan.sources, **known}.items():
        copies = [one.replica for (k, _), one in state.stored.items() if k == key]
        copies += [plan.replicas[key]] if not copies and key in plan.replicas else []
        add(_data(record, copies))
    reused = {made.key: made.reused for made in plan.assignments if made.reused is not None}
    for key, copy in reused.items():
        add(_reused(copy, plan.label(key)))
    actions = []
    for step in plan.steps:
        chosen = plan.assignment_by_key[step.key]
        if chosen.reused is not None:
            continue
        dataset = results.get(step.key)
        begun, ended = times.get(segments.get(step.key, ""), (0.0, 0.0))
        action: Entity = {
            "@id": f"#step-{step.key}",
            "@type": "CreateAction",
            "name": step.label,
            "instrument": add(_operation(step.operation, dataset)),
            "object": [
                *(
                    add({"@id": _id(key), "@type": "Dataset", "name": plan.label(key), **_key(key)})
                    for key in step.inputs
                ),
                *(add(one) for one in _parameters(step.key, step.parameters)),
            ],
            "location": add(_site(chosen)),
            "agent": user,
            **_when(begun, ended),
        }
        if dataset is not None:
            action["result"] = [{"@id": _id(step.key)}]
        actions.append(add(action))
    there = {*known, *plan.sources, *reused}
    wanted = [{"@id": _id(key)} for key in plan.outputs if key in there]
    actions.append(
        add(
            {
                "@id": f"#job-{state.job}",
                "@type": "CreateAction",
                "name": f"job {state.job}",
                "description": state.status if state.error is None else _error(state),
                "instrument": engine,
                "object": [{"@id": _id(key)} for key in plan.sources],
                "result": wanted,
                "agent": user,
                "actionStatus": _ref_to(_ENDS[state.status == "done"]),
                **_when(created.time, state.updated),
            }
        )
    )
    parts = [add(_file(name, body)) for name, body in sorted(files.items())]
    add({"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"})
    tags = [f"{name}={value}" for name, value in sorted(created.tags.items())]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"dataflow job {state.job}",
        "description": f"{len(actions) - 1} steps at "
        f"{len({e['name'] for e in found.values() if e['@type'] == 'Place'})} sites: "
        f"{', '.join(plan.label(key) for key in plan.outputs)}",
        "datePublished": _moment(state.updated),
        "license": "as the owners of the data say; nothing is granted by this description",
        "conformsTo": _ref_to(PROFILE),
        "hasPart": parts,
        "mentions": actions,
        **({"keywords": ", ".join(tags)} if tags else {}),
    }
    descriptor: Entity = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": _ref_to("./"),
        "conformsTo": _ref_to(SPECIFICATION),
    }
    return [descriptor, root, *found.values()]


def _times(events: Sequence[Event]) -> Mapping[str, tuple[float, float]]:
    """Unit → when its last order was sent, and when it had ended, in seconds since the epoch."""
    times: dict[str, tuple[float, float]] = {}
    for event in events:
        if isinstance(event, UnitStarted):
            times[event.unit] = (event.time, 0.0)
        elif isinstance(event, UnitReported) and isinstance(event.report, Ended):
            times[event.unit] = (times.get(event.unit, (0.0, 0.0))[0], event.time)
    return times


def _data(dataset: Dataset, copies: Sequence[Replica]) -> Entity:
    made = dataset.lineage
    return {
        "@id": _id(dataset.key),
        "@type": "Dataset",
        "name": dataset.name,
        **_key(
            dataset.key, *((f"digest at {c.site}", c.fingerprint) for c in copies if c.fingerprint)
        ),
        "contentSize": str(sum(c.nbytes for c in copies[:1]) or dataset.extent.nbytes),
        **({"url": [plain_url(c.url) for c in copies]} if copies else {}),
        **({"encodingFormat": copies[0].format} if copies else {}),
        **({"dateCreated": _moment(dataset.created)} if dataset.created else {}),
        **({"creator": dataset.owner} if dataset.owner else {}),
        "description": f"{dataset.kind}; record of site {dataset.site}"
        + (f"; made by {made.operation} {made.version}" if made is not None else ""),
    }


def _reused(copy: Replica, name: str) -> Entity:
    """A result that was there already; what made it is in the crate of the job that did."""
    digests = [(f"digest at {copy.site}", copy.fingerprint)] if copy.fingerprint else []
    return {
        "@id": _id(copy.key),
        "@type": "Dataset",
        "name": name,
        **_key(copy.key, *digests),
        "contentSize": str(copy.nbytes),
        "url": [plain_url(copy.url)],
        "encodingFormat": copy.format,
        "description": f"computed before this job; the copy at {copy.site} was used",
    }


def _operation(operation: Operation, made: Dataset | None) -> Entity:
    lineage = made.lineage if made is not None else None
    needs = {} if lineage is None else lineage.environment
    return {
        "@id": f"#operation-{operation.name}-{operation.version}",
        "@type": "SoftwareApplication",
        "name": operation.name,
        "softwareVersion": operation.version,
        "identifier": [_value("digest of the code", operation.code)],
        "description": operation.command or operation.reference or f"{operation.kind} function",
        **(
            {"softwareRequirements": [f"{k} {v}" for k, v in sorted(needs.items())]}
            if needs
            else {}
        ),
    }


def _program(version: str) -> Entity:
    return {
        "@id": "#dataflow",
        "@type": "SoftwareApplication",
        "name": "dataflow",
        "softwareVersion": version,
    }


def _site(chosen: Assignment) -> Entity:
    return {"@id": f"#site-{chosen.site}", "@type": "Place", "name": chosen.site}


def _parameters(key: str, parameters: Mapping[str, Any]) -> list[Entity]:
    return [
        {
            "@id": f"#parameter-{key[:16]}-{name}",
            "@type": "PropertyValue",
            "name": name,
            "value": value if isinstance(value, str | int | float) else json.dumps(value),
        }
        for name, value in sorted(parameters.items())
    ]


def _file(name: str, body: bytes) -> Entity:
    return {
        "@id": name,
        "@type": "File",
        "name": name,
        "encodingFormat": "application/json" if name.endswith(".json") else "application/jsonl",
        "contentSize": str(len(body)),
        "identifier": [_value("sha256", sha256(body).hexdigest())],
    }


def _key(key: str, *more: tuple[str, str]) -> Entity:
    return {"identifier": [_value(name, value) for name, value in (("key", key), *more)]}


def _value(name: str, value: str) -> str:
    """A digest with its name; one text, so that nothing has to be looked up."""
    return f"{name}: {value}"


def _when(begun: float, ended: float) -> Entity:
    known = {"startTime": begun, "endTime": ended}
    return {name: _moment(time) for name, time in known.items() if time}


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")


def _error(state: JobState) -> str:
    error = state.error or {}
    return f"{state.status}: {error.get('kind', 'error')}"


def _id(key: str) -> str:
    return f"#data-{key}"


def _ref(entity: Entity) -> Entity:
    return {"@id": entity["@id"]}


def _ref_to(id: str) -> Entity:
    return {"@id": id}


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _line(event: Event) -> bytes:
    document = to_document(event)
    return (json.dumps(document, sort_keys=True, ensure_ascii=False) + "\n").encode()
