"""Views in a real kernel, seen from where a page would be: what is opened, what is sent, and to whom."""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
from jupyter_client.manager import KernelManager

VIEW = "application/vnd.jupyter.widget-view+json"
START = """
import numpy as np, xarray as xr
import dataflow as flow
np.save("run.npy", np.arange(1000.0))
session = flow.connect(state="state", user="anna")
session.register("run.npy", name="run")

@flow.operation(kind="opaque", output=100)
def wait(run, gate=""):
    import os, time
    while not os.path.exists(gate):
        time.sleep(0.05)
    return run.sum()

plan = session.plan(wait(session["run"], gate=GATE))
"""


class Kernel:
    """A kernel, and all that it has said."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.heard: list[dict[str, Any]] = []

    def run(self, code: str, *, cell: str = "") -> list[dict[str, Any]]:
        """Execute, as the cell of a page or as a program; what was displayed."""
        content = {"code": code, "silent": False, "store_history": True}
        content |= {"user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        message = self._client.session.msg("execute_request", content)
        message["metadata"] = {"cellId": cell} if cell else {}
        self._client.shell_channel.send(message)
        mine: list[dict[str, Any]] = []

        def over(heard: dict[str, Any]) -> bool:
            if heard["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                return False
            mine.append(heard)
            return heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle"

        self.until(over)
        wrong = [one["content"]["traceback"] for one in mine if one["msg_type"] == "error"]
        assert not wrong, "\n".join(wrong[0])
        return [one["content"] for one in mine if one["msg_type"] == "execute_result"]

    def until(self, enough: Any) -> dict[str, Any]:
        """The first message that is enough; generous, because machines are busy."""
        end = time.monotonic() + 200
        while time.monotonic() < end:
            try:
                message: dict[str, Any] = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            self.heard.append(message)
            if enough(message):
                return message
        raise AssertionError("that was never said")

    def opened(self) -> list[dict[str, Any]]:
        return [one for one in self.heard if one["msg_type"] == "comm_open"]


def progress(message: dict[str, Any]) -> dict[str, Any]:
    state = message["content"].get("data", {}).get("state", {})
    return state.get("progress", {}) if message["msg_type"] == "comm_msg" else {}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(cwd=str(tmp_path), env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipy")})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)
        manager.cleanup_resources()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_program_gets_the_picture_and_a_page_the_job_as_it_goes(
    kernel: Kernel, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    kernel.run(f"GATE = {str(gate)!r}" + START)
    (shown,) = kernel.run("flow.view(plan)")
    assert set(shown["data"]) == {"text/plain", "text/html"}
    assert not kernel.opened(), "nothing is kept of it that a program would store"

    (shown,) = kernel.run("flow.view(plan)", cell="one")
    assert {VIEW, "text/html"} <= set(shown["data"])
    opened = {one["content"]["comm_id"] for one in kernel.opened()}
    assert shown["data"][VIEW]["model_id"] in opened

    (shown,) = kernel.run("job = session.submit(plan); live = flow.view(job); live", cell="two")
    model = shown["data"][VIEW]["model_id"]
    kernel.until(lambda message: progress(message).get("status") == "running")
    gate.touch()
    # Nothing is executed meanwhile: the news come by themselves.
    last = kernel.until(lambda message: progress(message).get("over"))
    assert last["content"]["comm_id"] == model
    assert progress(last)["status"] == "done"
    assert set(progress(last)["boxes"]) <= {"d", "s"}
    kernel.run("session.close()")
