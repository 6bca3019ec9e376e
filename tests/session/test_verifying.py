"""A result is read again, to the byte, and computed again, at another site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

import dataflow as flow
from dataflow.cli.app import main
from dataflow.errors import PlacementError
from dataflow.testing.federation import Federation


@flow.operation(kind="opaque", lazy=False, output=16_000)
def squares(x: Any) -> Any:
    return x**2


@flow.operation(kind="opaque", lazy=False, output=16_000)
def noise(x: Any) -> Any:
    import numpy

    return x + numpy.random.default_rng().random(x.shape)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("sites"), ["one", "two"], wires=False) as found:
        np.save(found.data("one") / "run.npy", np.arange(2000.0))
        yield found


def bytes_of(federation: Federation, key: str) -> Path:
    """A file of the result that holds numbers, in the store of the site that made it."""
    return next(
        path
        for path in sorted(federation.results("one").rglob("*"))
        if path.is_file() and key in str(path) and "/c/" in str(path)
    )


@pytest.mark.slow
def test_bytes_and_a_second_run(
    federation: Federation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = tmp_path / "state"
    with flow.connect(federation.sites_file, state=state, user="anna") as session:
        session.register(federation.data("one") / "run.npy", name="run", site="one")
        same, other = squares(session["run"]), noise(session["run"])
        at_one = {"squares": "one", "noise": "one"}
        job = session.submit(session.plan([same, other], pinned=at_one))
        job.result(120)
        found = session.verify(same.key)
        assert found
        assert (found.site, found.recomputed) == ("one", None)
        assert found.checked.nbytes == next(
            copy.nbytes for copy in session.participant.snapshot().replicas_of(same.key)
        )
        assert "holds" in repr(found)

        file = bytes_of(federation, same.key)
        right = file.read_bytes()
        file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        wrong = session.verify(same.key)
        assert not wrong
        (reason,) = wrong.reasons()
        assert reason.startswith("chunk (0) of ")
        assert "chunk (0) of " in wrong._repr_html_()
        structlog.reset_defaults()
        monkeypatch.setenv("DATAFLOW_STATE_DIR", str(tmp_path / "other"))
        for words, code in ((["--json"], 1), ([], 1)):
            with pytest.raises(SystemExit) as ended:
                main(["--sites", str(federation.sites_file), "verify", same.key, *words])
            assert ended.value.code == code
            said = capsys.readouterr().out
            assert ("/c/0" if words else "chunk (0) of ") in said
            if words:
                document = json.loads(said)
                assert document["holds"] is False
                assert document["checked"]["wrong"]
        file.write_bytes(right)

    with flow.connect(federation.sites_file, state=state, user="anna") as session:
        again = session.verify(same.key, recompute=True)
        assert again, again.reasons()
        assert again.recomputed is not None
        assert (again.recomputed.site, again.recomputed.reused) == ("two", ())
        with pytest.raises(PlacementError, match="has it already"):
            session.verify(same.key, recompute=True)
        differs = session.verify(other.key, recompute=True)
        assert not differs
        assert "not the same at two" in repr(differs)
        with pytest.raises(PlacementError, match="was registered"):
            session.verify("run", recompute=True)
        assert "nobody noted a digest" in session.verify("run").reasons()[0]
