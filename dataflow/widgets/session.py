"""LiveSession: what there is in the federation, to search, to look into, and to ask about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataflow.datasets import Dataset
from dataflow.graph.graph import Graph, merge, of_dataset
from dataflow.graph.operation import operation
from dataflow.widgets.session_facts import answer, details, federation, offered, page
from dataflow.widgets.shown import Shown

if TYPE_CHECKING:
    from dataflow.session import Session

#: Elements of an array, and rows of a table, that a preview reads in each direction.
CORNER = 8


@operation(kind="opaque", output=1_000)
def your_function(data: Any) -> Any:
    """Stands for whatever a person would run; it is asked about and never run."""
    return data


class LiveSession(Shown):
    """The federation of a session, live; made by :func:`dataflow.view`.

    Datasets by words, tags and site, a page at a time; one dataset with its chunks, its copies and
    what one may do with it where; sites and links; and what owners would say to a request that
    nobody sends. Nothing is read of any data before *show values* is pressed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: dict[str, Any] = {}
        self._found: list[Dataset] = []
        super().__init__("session", facts=self._facts())
        self._commands = {
            "find": self._find,
            "look": self._look,
            "values": self._values,
            "try": self._try,
            "refresh": self._refresh,
        }

    def text(self) -> str:
        return repr(self._session)

    def html(self) -> str:
        return self._session._repr_html_()

    def _facts(self) -> dict[str, Any]:
        snapshot = self._session._snapshot()
        self._found = snapshot.search(**self._asked)
        return {
            "head": repr(self._session).strip("<>"),
            "federation": federation(snapshot.topology, self._session.loads()),
            "offered": offered(snapshot.datasets),
            "first": page(self._found, snapshot, 0),
        }

    def _refresh(self) -> dict[str, Any]:
        self.facts = self._facts()
        return {}

    def _find(
        self,
        text: str = "",
        tags: tuple[str, ...] = (),
        site: str = "",
        kind: str = "",
        number: int = 0,
    ) -> dict[str, Any]:
        """A page of a search; it is searched once for all of its pages."""
        asked: dict[str, Any] = {"text": text or None, "site": site or None, "kind": kind or None}
        asked["tags"] = dict(tag.partition("=")[::2] for tag in tags) or None
        snapshot = self._session._snapshot()
        if asked != self._asked:
            self._asked, self._found = asked, snapshot.search(**asked)
        return page(self._found, snapshot, number)

    def _look(self, id: str) -> dict[str, Any]:
        snapshot = self._session._snapshot()
        dataset = snapshot.resolve(id)
        verdicts = self._session.verdicts(your_function(of_dataset(dataset)))
        return details(dataset, snapshot, verdicts)

    def _values(self, id: str) -> dict[str, Any]:
        """A corner of the data, read now."""
        data = self._session.open(id)
        if hasattr(data, "data_vars"):
            names = list(data.data_vars)
            data = data[names[0]] if names else data
        if hasattr(data, "isel"):
            last = data.dims[-2:]
            corner = {dim: slice(0, CORNER) if dim in last else 0 for dim in data.dims}
            return {"values": str(data.isel(corner).to_numpy())}
        if hasattr(data, "head"):
            return {"values": str(data.head(CORNER))}
        return {"values": str(data)}

    def _try(
        self, datasets: list[str], request: str = "", purpose: str = "", archetype: str = ""
    ) -> dict[str, Any]:
        """What the owners would say; nothing is sent."""
        snapshot = self._session._snapshot()
        graphs = [your_function(of_dataset(snapshot.resolve(name))) for name in datasets]
        whole: Graph = merge(graphs)
        asked = {"request": request, "purpose": purpose, "archetype": archetype}
        return answer(self._session.verdicts(whole, **asked))
