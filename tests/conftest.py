"""What holds for every test: Hypothesis profiles, a state directory of its own, the test bed."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from dataflow.testing.bed import Bed, up
from dataflow.testing.bed.state import lock
from dataflow.testing.copies import Copies
from dataflow.testing.federation import Federation

# "ci" is the default and gives the same examples in every run; "explore" looks for new ones;
# "brief" is for a second Python, "long" for a night. Choose with HYPOTHESIS_PROFILE.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("brief", parent=settings.get_profile("ci"), max_examples=25)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.register_profile("long", parent=settings.get_profile("explore"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Workers that the tests themselves start are copies of one process, and so are the agents of their
# federations, with their workers: hundreds of times seconds. What kernels, commands and the hosts of the
# bed start begins afresh, as with users.
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
Federation.copies = Copies()
atexit.register(Federation.copies.close)

#: What hosts of the test bed run: the Python of these tests, without their environment.
PYTHON = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")


#: What a folder's files share: the bed, and a federation that takes long to set up.
TOGETHER = ("tests/bed/", "tests/scenarios/")
#: Files whose tests share nothing, and take a minute each.
APART = ("tests/examples/", "tests/client/test_ssh.py", "tests/execution/test_crash.py")
#: What takes longest is begun first, or one process is left with it in the end.
FIRST = (
    "tests/scenarios/",
    "tests/examples/",
    "tests/client/test_ssh.py",
    "tests/integrations/",
    "tests/execution/",
    "tests/backends/",
    "tests/session/",
    "tests/docs/",
    "tests/cli/",
    "tests/agent/",
    "tests/catalog/",
)


class Together(LoadScopeScheduling):
    """Side by side run files, as the tests of one share what it sets up; some folders are as one."""

    def schedule(self) -> None:
        self.config.option.loadscopereorder = (
            False  # by the number of tests, which says little here
        )
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(APART):
            return nodeid
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "collected" in getattr(item, "fixturenames", ()):  # within the test, too
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))

    def begun(item: pytest.Item) -> int:
        places = (n for n, name in enumerate(FIRST) if item.nodeid.startswith(name))
        return next(places, len(FIRST))

    items.sort(key=begun)


#: Whether what a test tries now has failed.
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = report.failed or (report.when != "setup" and item.stash[FAILED])
    return report


@pytest.hookimpl(tryfirst=True)  # what runs tests again would keep it
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A test that failed leaves nothing that it shared: its second try, and the next, begin afresh.

    Stories change their sites: results are there, datasets registered, agreements revoked, and what is
    away has been away. Tried again among these, a story fails for another reason than it did.
    """
    if item.stash.get(FAILED, False):
        item.session._setupstate.teardown_exact(None)


@pytest.fixture
def plain_logs() -> Iterator[None]:
    """For tests that listen: logs as they are before anybody has connected, which makes them quiet.

    Listening counts as setting up, after which no session would do it; so this puts back what was.
    """
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory for this test alone; processes started by the test inherit it."""
    directory = tmp_path / "state"
    monkeypatch.setenv("DATAFLOW_STATE_DIR", str(directory))
    return directory


@pytest.fixture
def collected() -> Iterator[None]:
    """Sockets that a library leaves to the garbage collector are not held against later tests.

    asyncssh's server and the client of kr8s do so with a connection that is cut while it is used.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def made_bed() -> Iterator[None]:
    """Real sites on this machine for as long as they are wanted; one that stood before stays.

    Where they cannot be made tests are skipped, except where CI=true says that they must be.
    """
    reason = up.why_not()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(reason)
    stood = up.stands()
    Bed.ensure(python=PYTHON)
    yield
    if not stood:
        up.down()


@pytest.fixture
def bed(made_bed: None) -> Iterator[Bed]:
    """The test bed, for this test alone, healthy before it and brought back after it."""
    with lock("use", seconds=240):
        bed = Bed.of_this_python() if up.stands() else Bed.ensure(python=PYTHON)
        bed.restore()
        yield bed
        bed.restore()
        if not bed.healthy:
            bed.repair()
