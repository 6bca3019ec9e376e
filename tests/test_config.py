"""Site files and settings: what is read, and what is said when something is wrong."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

import dataflow.config
import dataflow.config.site_file as site_file
from dataflow.config import (
    Backend,
    Federation,
    Listen,
    PeerAddress,
    Registration,
    load_schema,
    parse_site_file,
    read_settings,
    read_site_file,
    state_directory,
)
from dataflow.config.marked import dotted, read_marked
from dataflow.config.records import Issuer
from dataflow.config.settings import Settings, settings_schema
from dataflow.errors import ConfigError
from dataflow.sites import Link, Site
from dataflow.stores import Store

EXAMPLES = [
    textwrap.dedent(block)
    for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", site_file.__doc__ or "")
]
TWO = "site: {name: a}\nsites: [{name: b, address: 'http://b:1'}]\n"


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse_site_file(text, file="s.yaml")
    return str(raised.value).split("\nalso ")


def error(text: str) -> str:
    (only,) = errors(text)
    return only


# --- what is read ------------------------------------------------------------------------------


def test_prices_power_and_how_long_workers_live() -> None:
    (site,) = parse_site_file(
        "site: {name: cloud, watts: 15, egress: 0.09, egress_to: {uva: 0, amc: 0.02}}\n"
        "backend: {kind: sge, sge: {queue: all.q, walltime: 1 h}}\n"
    ).sites
    assert (site.watts, site.egress, site.walltime) == (15.0, pytest.approx(0.09e-9), 3600.0)
    assert dict(site.egress_to) == {"amc": pytest.approx(0.02e-9), "uva": 0.0}
    assert "egress" in error("site: {name: cloud, egress: -1}")


def test_a_scientists_file_has_eight_lines() -> None:
    assert len(EXAMPLES[0].strip().splitlines()) == 8
    assert parse_site_file(EXAMPLES[0], directory="/home/anna") == Federation(
        sites=(
            Site(name="laptop", workers=2, memory=4_000_000_000),
            Site(name="uva", address="https://uva.example.org:8787", credentials="uva"),
            Site(name="amc", address="https://amc.example.org:8787", credentials="amc"),
        ),
        stores=(Store(name="results", site="laptop", url="file:///home/anna/results"),),
        links=(
            Link(source="uva", target="amc", bandwidth=6_250_000.0, latency=0.01),
            Link(source="amc", target="uva", bandwidth=6_250_000.0, latency=0.01),
        ),
        me="laptop",
        peers=(
            PeerAddress(address="https://uva.example.org:8787", credentials="uva", site="uva"),
            PeerAddress(address="https://amc.example.org:8787", credentials="amc", site="amc"),
        ),
        state=state_directory() / "laptop",
        backend=Backend(workers=2, memory=4_000_000_000),
        file="<text>",
    )


def test_an_agents_file(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(EXAMPLES[1])
    found = read_site_file(file)
    assert found.site == Site(
        name="uva", workers=8, threads=2, memory=16_000_000_000, trust="steward"
    )
    assert found.listen == Listen(host="127.0.0.1", port=8787)
    assert found.state == tmp_path / "state"
    assert [store.url for store in found.stores] == [
        (tmp_path / "data").as_uri(),
        "s3://uva-results",
    ]
    assert dict(found.stores[1].options) == {
        "endpoint": "http://127.0.0.1:9000",
        "path_style": "true",
    }
    run1 = (tmp_path / "data" / "run1.h5").as_uri()
    assert found.datasets == (
        Registration(url=run1, name="run1", tags={"system": "adk"}, owner="anna"),
    )
    assert found.peers == (PeerAddress(address="https://amc.example.org:8787"),)
    assert (found.away_after, found.lost_after) == (5.0, 8.0)
    assert found.file == str(file)


def test_empty_is_a_visitor_who_knows_nobody() -> None:
    found = parse_site_file("")
    assert (found.me, found.site, found.sites, found.state) == (None, None, (), state_directory())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("./data", "file:///here/data"),
        ("data/", "file:///here/data"),
        ("../data", "file:///data"),
        ("/abs/x y", "file:///abs/x%20y"),
        ("file:///abs/", "file:///abs"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("~/data", (Path.home() / "data").as_uri()),
    ],
)
def test_store_urls(written: str, meant: str) -> None:
    text = f"site: {{name: a}}\nstores: [{{name: s, url: '{written}'}}]"
    assert parse_site_file(text, directory="/here").stores[0].url == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("localhost:80", Listen(host="localhost", port=80)),
        ("'[::1]:80'", Listen(host="::1", port=80)),
        ("unix:run/a.sock", Listen(socket=Path("/here/run/a.sock"))),
        ("unix:///run/a.sock", Listen(socket=Path("/run/a.sock"))),
        ("unix:/run/a.sock", Listen(socket=Path("/run/a.sock"))),
        (
            "{address: 'h:1', certificate: c.pem, key: /k.pem}",
            Listen(host="h", port=1, certificate=Path("/here/c.pem"), key=Path("/k.pem")),
        ),
        ("{address: 'h:1', certificate: own}", Listen(host="h", port=1, own=True)),
    ],
)
def test_listen(written: str, meant: Listen) -> None:
    text = f"site: {{name: a}}\nlisten: {written}"
    assert parse_site_file(text, directory="/here").listen == meant


def test_numbers_of_workers_may_stand_with_the_backend() -> None:
    found = parse_site_file("site: {name: a}\nbackend: {kind: local, workers: 3, memory: 1 GB}")
    assert found.site == Site(name="a", workers=3, memory=1_000_000_000)
    assert found.backend == Backend(workers=3, memory=1_000_000_000)


def test_tags_are_words_whatever_yaml_thinks() -> None:
    text = "site: {name: a}\ndatasets: [{url: x, tags: {run: 007, ok: yes, on: 2024-01-02}}]"
    tags = parse_site_file(text).datasets[0].tags
    assert tags == {"run": "007", "ok": "yes", "on": "2024-01-02"}


def test_one_way_link_and_store_elsewhere() -> None:
    found = parse_site_file(
        TWO
        + "stores: [{name: s, site: b, url: 's3://x'}]\n"
        + "links: [{source: a, target: b, bandwidth: 1 MB/s, latency: 0}]"
    )
    assert found.links == (Link(source="a", target="b", bandwidth=1e6, latency=0.0),)
    assert found.stores[0].site == "b"


def test_a_site_without_an_address_is_its_stores() -> None:
    text = """
sites:
- {name: cloud, workers: 0}
- {name: ams, address: "http://a:1"}
stores:
- {name: bucket, site: cloud, url: "s3://b/flow", credentials: mine}
- {name: results, site: ams, url: "s3://b/ams"}
"""
    found = parse_site_file(text)
    assert [(site.name, site.stores_only) for site in found.sites] == [
        ("cloud", True),
        ("ams", False),
    ]
    assert [peer.site for peer in found.peers] == ["ams"]
    assert [store.name for store in found.views] == ["bucket", "results"]


def test_merge_keys_work() -> None:
    text = "site: &base {name: a, workers: 2}\nsites: [{<<: *base, name: b, address: 'http://b:1'}]"
    assert parse_site_file(text).sites[1].workers == 2


# --- what is wrong -------------------------------------------------------------------------------


#: A site file with one relation, and what else it says.
RELATION = (
    "site: {{name: a}}\nagreements: [{{name: w, relations: [{{id: r, users: [u], request_types: [q], "
    "datasets: [d], archetypes: [c], {}}}]}}]"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "site:\n  name: a\n  wokers: 3",
            "s.yaml:3: site.wokers: unknown key 'wokers'; did you mean 'workers'?",
        ),
        ("site: {name: a, memory: 4}", "s.yaml:1: site.memory: '4' has no unit: write '4 GB'"),
        ("site: {name: a, memory: '4'}", "s.yaml:1: site.memory: '4' has no unit: write '4 GB'"),
        ("site: {name: a, memory: 0 GB}", "s.yaml:1: site.memory: must be more than 0"),
        ("site: {name: a, workers: four}", "site.workers: must be a whole number, not 'four'"),
        ("site: {name: a, workers: -1}", "site.workers: must be at least 0, not -1"),
        ("site: {name: a, speed: 0}", "site.speed: must be more than 0, not 0"),
        ("site: {name: no}", "site.name: must be text, not False; put it in quotes"),
        ("site: {name: a/b}", "site.name: 'a/b' is no name"),
        ("site: {name: a, trust: freind}", "site.trust: must be 'lab' or 'steward', not 'freind'"),
        ("site: {workers: 1}", "site.name: 'name' is missing"),
        ("site: uva", "site: must be a mapping, not 'uva'"),
        ("sites: {name: a}", "sites: must be a list, each entry after a dash"),
        ("sites:\n- {name: a}", "s.yaml:2: sites[0]: 'address' is missing"),
        ("sites: [{name: a, workers: 0}]", "sites[0]: it has no address, so it is its stores"),
        (
            "sites: [{name: a, workers: 0, credentials: c}]\nstores: [{name: s, site: a, url: x}]",
            "give them to the store",
        ),
        ("sites: [{name: a, address: htp://x}]", "sites[0].address: 'htp://x' is no address"),
        ("sites: [{name: a, address: 'http://u:p@x'}]", "a secret must not stand in this file"),
        ("peers: ['https://']", "peers[0].address: 'https://' is no address"),
        ("site: {name: a}\nsite: {name: b}", "s.yaml:2: site: stands here again; first in line 1"),
        (
            "site: {name: a}\nbackend: {kind: slurm}",
            "backend.kind: must be 'local', 'ssh', 'sge', 'kubernetes' or 'jobqueue', not 'slurm'",
        ),
        (
            "site: {name: a, workers: 1}\nbackend: {workers: 1}",
            "s.yaml:2: backend.workers: is said twice: here and in site.workers",
        ),
        ("stores: [{name: s, url: x}]", "stores[0]: whose is it?"),
        ("site: {name: a}\nstores: [{name: s, site: b, url: x}]", "no site is called 'b'"),
        ("site: {name: a}\nstores: [{name: s, url: 'gs://x'}]", "'gs' is no kind of store"),
        ("site: {name: a}\nstores: [{name: s, url: 's3://k:s@b'}]", "a secret must not stand"),
        (
            "site: {name: a}\nstores: [{name: s, url: 's3://b', options: {secret_key: x}}]",
            "stores[0].options: 'secret_key': a secret must not stand in this file",
        ),
        ("listen: localhost:80", "listen: is for a site that is served: say which in site:"),
        ("site: {name: a}\nlisten: nonsense", "s.yaml:2: listen: 'nonsense' is neither host:port"),
        ("site: {name: a}\nlisten: h:99999", "listen: 'h:99999' is neither"),
        ("site: {name: a}\nlisten: unix:/" + "x" * 120, "Unix socket has 1 to 107 bytes"),
        ("site: {name: a}\nlisten: {address: 'h:1', key: k}", "both a certificate and its key"),
        (
            "site: {name: a}\nlisten: {address: 'h:1', certificate: own, key: k}",
            "certificate: own has a key of its own; leave key: out",
        ),
        (
            "sites: [{name: a, address: 'http://h:1', certificate: c.pem}]",
            "certificate: is for an address that begins with https://",
        ),
        ("timeouts: {away_after: 5}", "timeouts.away_after: '5' has no unit: write '5 s'"),
        ("timeouts: {away_after: 0 s}", "timeouts: must be longer than nothing"),
        ("timeouts: {away_after: 9 s}", "timeouts: lost_after must not be shorter"),
        ("site: {name: a}\ndatasets: [{url: x, name: ' b'}]", "' b' is no name for a dataset"),
        (RELATION.format("anonymity: 5"), "anonymity: and among: go together"),
        (RELATION.format("among: [b]"), "anonymity: and among: go together"),
        (
            RELATION.format("anonymity: 5, among: [b], hidden: [b]"),
            "among: nobody sees 'b'",
        ),
        ("site: [", "s.yaml:1: not readable as YAML"),
        ("a: b\n\tc: d", "s.yaml:2: not readable as YAML"),
        ("- a", "s.yaml:1: must be a mapping"),
        ("--- {}\n--- {}", "s.yaml:2: not readable as YAML"),
        ("a: !!python/object:os.system {}", "unknown key 'a'"),
        ("a\x00b: 1", "s.yaml:1: not readable as YAML"),
        ("site: {name: a}\n? [b]\n: c", "a key must be a word"),
        ("site: !!int", "cannot be read"),
        ("state: 2024-13-01", "cannot be read"),
        ("site: !!timestamp x", "cannot be read"),
        ("a: &x [*x]", "too large or too deep"),
        (
            "nonsense: 1",
            "nonsense: unknown key 'nonsense'; known are site, listen, state, stores, sites, "
            "peers, links, datasets, agreements, archetypes, identity, backend, timeouts",
        ),
        (TWO + "links: [{between: [a, c], bandwidth: 1 MB/s, latency: 1 s}]", "no site is called"),
        (TWO + "links: [{between: [a, a], bandwidth: 1 MB/s, latency: 1 s}]", "two different"),
        (TWO + "links: [{source: a, bandwidth: 1 MB/s, latency: 1 s}]", "say between:"),
        (TWO + "links: [{between: [a, b], bandwidth: -1 MB/s, latency: 1 s}]", "not be negative"),
        (TWO + "links: [{between: [a, b], bandwidth: 0 MB/s, latency: 1 s}]", "more than 0"),
        (TWO + "links: [{between: [a, b], bandwidth: 1 Mb/s, latency: 1 s}]", "'Mb/s'"),
        (
            TWO
            + "links:\n- {between: [a, b], bandwidth: 1 MB/s, latency: 1 s}\n"
            + "- {source: b, target: a, bandwidth: 1 MB/s, latency: 1 s}",
            "s.yaml:5: links[1]: the link b → a stands there twice",
        ),
    ],
)
def test_one_error(text: str, message: str) -> None:
    assert message in error(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "site: {name: a}\nsites:\n- {name: a, address: 'http://x:1'}",
            "s.yaml:3: sites[0].name: another site is called 'a', first in line 1",
        ),
        (
            "site: {name: a}\nstores:\n- {name: s, url: x}\n- {name: s, url: y}",
            "s.yaml:4: stores[1].name: another store is called 's', first in line 3",
        ),
        (
            "site: {name: a}\nstores:\n- {name: s, url: x}\n- {name: s, site: a, url: y}",
            "another store is called 's'",
        ),
        (
            "site: {name: a}\ndatasets: [{name: d, url: x}, {name: d, url: y}]",
            "datasets[1].name: another dataset is called 'd', first in line 2",
        ),
    ],
)
def test_names_that_stand_twice(text: str, message: str) -> None:
    assert message in error(text)


def test_stores_of_two_sites_may_have_one_name() -> None:
    parse_site_file(TWO + "stores: [{name: s, url: x}, {name: s, site: b, url: 's3://y'}]")


def test_all_errors_are_told_together_by_line() -> None:
    found = errors(
        """\
site: {name: laptop, memory: 4, wokers: 3}
stores:
  - {name: r, url: ./r, purpose: resuls}
  - {name: r, url: ./s}
links:
  - {between: [uva, acm], bandwidth: -5 Mbit/s, latency: 10}
x: 1
x: 2
"""
    )
    assert [int(line.split(":")[1]) for line in found] == [1, 1, 3, 4, 6, 6, 7, 8]
    assert all(line.startswith("s.yaml:") for line in found)


def test_first_error_is_the_error() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_site_file("site:\n  name: a\n  memory: 4\nx: 1", file="s.yaml")
    first = raised.value
    assert (first.file, first.path, first.line) == ("s.yaml", "site.memory", 3)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_site_file(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_site_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"site:\n  name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml:2: .*not UTF-8"):
        read_site_file(tmp_path / "latin.yaml")


def test_aliases_cannot_blow_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        refs = ", ".join([f"*a{i - 1}"] * 10)
        lines.append(f"a{i}: &a{i} [{refs}]")
    assert "too large or too deep" in error("\n".join(lines))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "url", "address", "sites", "links", "tags", "x", "memory"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
sections = st.dictionaries(
    st.sampled_from([*load_schema()["properties"], "other"]), json_values, max_size=5
)


def read_or_told(text: str) -> ConfigError | None:
    try:
        assert isinstance(parse_site_file(text), Federation)
    except ConfigError as told:
        return told
    return None


@given(document=sections)
def test_whatever_stands_there_it_is_read_or_told(document: dict[str, Any]) -> None:
    told = read_or_told(yaml.safe_dump(document, allow_unicode=True))
    assert told is None or (told.line >= 1 and told.message)


@given(text=st.text(max_size=60) | st.text("{}[]:&*!|>-%@,#?<=\n\t ab'\"", max_size=30))
def test_any_text_is_read_or_told(text: str) -> None:
    told = read_or_told(text)
    assert told is None or told.message


def test_lines() -> None:
    marked = read_marked("a:\n  - b: 1\n    c: 2\n  -\n    d: 3\n", "f")
    assert marked.line(("a", 0, "c")) == 3
    assert marked.line(("a", 1, "d")) == 5
    assert marked.line(("a", 1, "d", "deeper")) == 5
    assert marked.line(("b",)) == 1
    assert dotted(("a", 1, "d")) == "a[1].d"


def test_schema_is_json_and_knows_all_sections() -> None:
    schema = json.loads(json.dumps(load_schema()))
    assert schema["additionalProperties"] is False
    memory = schema["$defs"]["OwnSiteShape"]["properties"]["memory"]["anyOf"][0]
    assert memory["type"] == "string"
    assert re.fullmatch(memory["pattern"], "4 GB")
    assert not re.fullmatch(memory["pattern"], "4")


def test_public_names_exist() -> None:
    for name in dataflow.config.__all__:
        assert getattr(dataflow.config, name) is not None
        assert name in dir(dataflow.config)
    with pytest.raises(AttributeError, match="nonsense"):
        dataflow.config.nonsense  # type: ignore[attr-defined]


# --- settings --------------------------------------------------------------------------------------


def test_defaults() -> None:
    assert read_settings({"USER": "anna"}, {}) == Settings(user="anna")
    assert read_settings({}, {}).user


def test_environment_wins_over_dask() -> None:
    configured = {"retries": 2, "time-limit": "2 h", "keep": "all", "user": None}
    environ = {"DATAFLOW_RETRIES": "3", "DATAFLOW_PROGRESS": "no", "LOGNAME": "bob"}
    found = read_settings(environ, configured)
    assert (found.retries, found.time_limit, found.keep) == (3, 7200.0, "all")
    assert (found.progress, found.user) == (False, "bob")


def test_dask_config_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask.config

    monkeypatch.delenv("DATAFLOW_RETRIES", raising=False)
    with dask.config.set({"dataflow.retries": 5, "dataflow.site-file": "x.yaml"}):
        found = read_settings()
    assert (found.retries, found.site_file) == (5, "x.yaml")


@pytest.mark.parametrize(
    ("environ", "configured", "message"),
    [
        ({}, {"retires": 1}, "dask.config: dataflow.retires: unknown setting; did you mean"),
        ({}, {"retries": -1}, "dataflow.retries: must be a whole number, 0 or more, not -1"),
        ({}, {"retries": True}, "must be a whole number"),
        ({}, {"time_limit": 5}, "dataflow.time_limit: 5 has no unit"),
        ({"DATAFLOW_SYNC_PERIOD": "0 s"}, {}, "must be longer than nothing"),
        ({"DATAFLOW_RETRIES": "many"}, {}, "environment: DATAFLOW_RETRIES: must be a whole number"),
        ({"DATAFLOW_PROGRESS": "maybe"}, {}, "must be true or false, not 'maybe'"),
        ({"DATAFLOW_KEEP": "some"}, {}, "must be 'results' or 'all', not 'some'"),
        ({}, {"user": 7}, "must be text, not 7"),
    ],
)
def test_wrong_settings(environ: dict[str, str], configured: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_settings(environ, configured)


def test_settings_schema() -> None:
    schema = settings_schema()
    assert set(schema["properties"]) == set(Settings.__dataclass_fields__)
    assert schema["properties"]["time_limit"]["type"] == "string"


def test_state_directory() -> None:
    assert state_directory({}) == Path.home() / ".local" / "state" / "dataflow"
    assert state_directory({"DATAFLOW_STATE_DIR": "/x"}) == Path("/x")
    assert parse_site_file("site: {name: a}").state == state_directory() / "a"


def test_issuers_of_tokens() -> None:
    head = "site: {name: uva}\nidentity:\n"
    one = "  - {issuer: 'https://sso.example.org/realms/lab', audience: dataflow}\n"
    read = parse_site_file(head + one, directory=Path("/x"))
    assert read.issuers == (
        Issuer(issuer="https://sso.example.org/realms/lab", audience="dataflow"),
    )
    roles = "  - {issuer: 'https://b.org', suffix: '@b', groups: g, roles: {admin: [x]}, longest: 10 min}\n"
    (_, second) = parse_site_file(head + one + roles, directory=Path("/x")).issuers
    assert (second.suffix, second.roles, second.longest) == ("@b", {"admin": ("x",)}, 600.0)
    for wrong, why in (
        (one + one, "stands there twice"),
        (one + "  - {issuer: 'https://b.org'}\n", "suffix"),
        ("  - {issuer: 'https://b.org', roles: {user: [x]}}\n", "need each other"),
        ("  - {issuer: 'https://b.org', groups: g, roles: {site: [x]}}\n", "site"),
        ("  - {issuer: 'ldap://b.org'}\n", "issuer"),
        ("  - {issuer: 'https://b.org', longest: 5}\n", "unit"),
    ):
        with pytest.raises(ConfigError, match=why):
            parse_site_file(head + wrong, directory=Path("/x"))
