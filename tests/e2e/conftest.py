"""JupyterLab as a person has it: a server, a browser, sites that outlive the kernel.

They run by ``make lab``, and are skipped where chromium or JupyterLab is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow.testing import browser

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Nothing is asked and nothing is hidden: no news, all cells on the page.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
    "docmanager-extension/plugin": {"autosave": False},
}


def missing() -> str:
    """Why there can be no JupyterLab in a browser here; empty if there can."""
    try:
        import anywidget  # noqa: F401
        import jupyterlab  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return browser.why_not()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The three sites of the example notebooks, in processes of their own."""
    reason = missing()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(reason)
    pytest.importorskip("MDAnalysisTests", reason="the extra 'demo' is not installed")
    sys.path.insert(0, str(EXAMPLES))
    try:
        from three_sites import three_sites
    finally:
        sys.path.remove(str(EXAMPLES))
    started = three_sites(tmp_path_factory.mktemp("sites"), megabits=20)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, federation: Any) -> Iterator[tuple[str, Path]]:
    """A JupyterLab server: its URL, and the folder that it shows."""
    home = tmp_path_factory.mktemp("lab")
    root = home / "root"
    (root / "notebooks").mkdir(parents=True)
    for name in ("adk.py", "three_sites.py"):
        shutil.copy(EXAMPLES / name, root)
    for name, settings in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    own = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "DATAFLOW_STATE_DIR": home / "state",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    command += ["--IdentityProvider.token=", "--ServerApp.password=", "--ip=127.0.0.1"]
    command += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
    command += ["--LabApp.extension_manager=readonly", "--ServerApp.disable_check_xsrf=True"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, **{name: str(path) for name, path in own.items()}},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _url(server, home), root
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _url(server: subprocess.Popen[bytes], home: Path) -> str:
    end = time.monotonic() + 90
    while time.monotonic() < end and server.poll() is None:
        for file in (home / "runtime").glob("jpserver-*.json"):
            try:
                return str(json.loads(file.read_text())["url"])
            except ValueError:
                break  # it is being written
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{(home / 'log').read_text()[-3000:]}")
