"""Registering: which site is to look at data that a user names, and when its word has arrived."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataflow.datasets import Dataset
from dataflow.errors import ConfigError, DataflowError, SiteRefused, SiteUnreachable
from dataflow.participant import Participant

#: How long registering waits for the news of it to come back (s).
NEWS_SECONDS = 30.0


async def register(
    participant: Participant, site: str | None, url: str | Path, asked: dict[str, Any]
) -> Dataset:
    """At the site where the data lies; ``None`` is this participant's own.

    Raises
    ------
    ConfigError
        If it is not clear where that is.
    """
    here = participant.federation.me
    topology = participant.topology()
    site = site or here
    if not site:
        names = ", ".join(sorted(record.name for record in topology.sites))
        raise ConfigError(f"say where the data lies, with site=: {names or 'no site is known'}")
    if site in topology.stores_only:
        return await _in_store(participant, site, as_url(url), asked)
    if site == here:
        return await participant.register(as_url(url), **asked)
    there = str(url)
    if "://" not in there:
        if not there.startswith("/"):
            raise ConfigError(f"{there!r}: at another site a path must begin with /")
        there = f"file://{quote(there)}"
    return await _at(participant, site, there, asked)


def as_url(url: str | Path) -> str:
    """A path as a URL; URLs stay as they are."""
    text = str(url)
    return text if "://" in text else Path(text).expanduser().absolute().as_uri()


async def _in_store(
    participant: Participant, site: str, url: str, asked: dict[str, Any]
) -> Dataset:
    """At a site of stores: by a site that opens them, so that others hear of it; else by us."""
    topology = participant.topology()
    able = [
        who
        for who, store in topology.views
        if store.site == site and store.holds(url) and who in topology.site_by_name
    ]
    here = participant.federation.me
    last: DataflowError | None = None
    for who in sorted(set(able) - topology.away, key=lambda who: (who != here, who)):
        if who == here:
            break
        try:
            return await _at(participant, who, url, asked)
        except (SiteUnreachable, SiteRefused) as error:
            last = error
    if any(store.site == site and store.holds(url) for store in participant.stores()):
        return await participant.register(url, **asked)
    raise last or ConfigError(
        f"{url} does not lie in a store of {site!r} that this session, or a site that answers, "
        "opens\nWhat you can do: declare the store in your site file, with "
        f"site: {site} and the name of a credential."
    )


async def _at(participant: Participant, site: str, url: str, asked: dict[str, Any]) -> Dataset:
    dataset = await participant.ways.to(site).register(url, **asked)
    await participant.see(site, dataset, NEWS_SECONDS)
    return dataset
