"""The end of a move: this site gives up a copy of its own, when another site has the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dataflow.datasets import Dataset, Replica
from dataflow.errors import CorruptResult, PolicyError, SiteError
from dataflow.execution.events import Errand, Released, ReleaseOrder, Report
from dataflow.execution.failures import Broken, broken
from dataflow.execution.workplace import Workplace, as_broken
from dataflow.storage.credentials import resolve
from dataflow.storage.release import compare, delete_replica
from dataflow.stores import Store, store_for

Tell = Callable[[Report], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRecords:
    """What a site's own catalog says of its data, and how a copy leaves it.

    Attributes
    ----------
    datasets
        Key → the site's own records of it.
    replicas
        All copies at the site.
    stores
        The site's own stores.
    withdraw
        Takes a copy out of the catalog.
    second
        What the site of a result says of it itself, if it has made it; ``None`` if it does not, or
        not yet.
    """

    datasets: Callable[[str], Sequence[Dataset]]
    replicas: Callable[[], Sequence[Replica]]
    stores: Callable[[], Sequence[Store]]
    withdraw: Callable[[Replica], None]
    second: Callable[[Replica], Replica | None]


async def run_release(
    order: ReleaseOrder, workplace: Workplace, own: OwnRecords, tell: Tell
) -> None:
    """Carry out an order; the same order again finds nothing left to do.

    Raises
    ------
    Broken
        If the copies differ, the user may not do this, or a store does not; nothing is deleted then.
    """
    replica = next((r for r in own.replicas() if r.url == order.replica.url), None)
    if replica is not None:
        store = may_release(order, replica, own)
        workplace.claims.take([name := f"release/{order.key}/{replica.url}"])
        try:
            await _compare(order, replica, store, workplace)
            own.withdraw(replica)
            await asyncio.to_thread(
                delete_replica,
                replica,
                root=store.url,
                credentials=resolve(store.credentials),
                options=store.options,
            )
        except (CorruptResult, SiteError) as error:
            raise broken(error, "site") from error
        except Exception as error:
            raise as_broken(error) from error
        finally:
            workplace.claims.release([name])
    tell(Released(key=order.key, site=workplace.site.name, url=order.replica.url))


def may_release(order: ReleaseOrder, replica: Replica, own: OwnRecords) -> Store:
    """The store from which this copy may be deleted for this user.

    Raises
    ------
    Broken
        If it may not: it is somebody else's, something else lies in the same files, or they are not
        in a store of the site.
    """
    url = replica.url
    owners = {dataset.owner for dataset in own.datasets(order.key)}
    store = store_for(url, own.stores())
    others = [r for r in own.replicas() if r is not replica and _overlap(r.url, url)]
    if replica.key != order.key:
        reason = f"{url} has other data by now"
    elif owners - {order.user}:
        reason = f"{url} belongs to {', '.join(sorted(o or 'the site' for o in owners))}"
    elif others or replica.variable is not None:
        reason = f"other datasets lie in the same files as {url}"
    elif store is None:
        reason = f"{url} lies in no store of the site"
    else:
        return store
    raise broken(
        PolicyError(
            f"{reason}; it is not given up\n"
            "What you can do: session.replicate() makes a copy and leaves this one."
        ),
        "user",
    )


def _overlap(one: str, other: str) -> bool:
    a, b = one.rstrip("/"), other.rstrip("/")
    return a == b or a.startswith(b + "/") or b.startswith(a + "/")


async def _compare(
    order: ReleaseOrder, replica: Replica, store: Store, workplace: Workplace
) -> None:
    if order.copy.key != order.key or order.copy.site == workplace.site.name:
        raise Broken(
            broken(PolicyError(f"{order.copy.url} is no copy at another site"), "user").failure
        )
    errand = Errand(job=order.job, user=order.user, to=order.site)
    files = await workplace.source_of(order.copy, errand).listing()
    await asyncio.to_thread(
        compare,
        replica,
        files,
        where=f"{order.copy.site}: {order.copy.url}",
        credentials=resolve(store.credentials),
        options=store.options,
    )
