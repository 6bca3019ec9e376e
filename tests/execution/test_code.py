"""Code packed here and opened where nothing of ours is."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import obstore.store
import pytest

from dataflow.datasets import Variable
from dataflow.errors import GraphError
from dataflow.execution.code import CodeStore, pack, unpack
from dataflow.graph.arithmetic import add
from dataflow.graph.operation import Functions, operation
from dataflow.storage.read import NpyArray
from dataflow.storage.source import Source

ROOT = Path(__file__).parents[2]
OFFSET = 40


def shifted(x):
    return x + OFFSET


@operation(kind="reduction", combine=lambda p, q: p + q, finish=shifted)
def piled(x):
    return shifted(x)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Two modules beside a notebook, one of which uses the other."""
    (tmp_path / "lab_units.py").write_text("FACTOR = 10\ndef scaled(x):\n    return x * FACTOR\n")
    (tmp_path / "lab_steps.py").write_text(
        "import lab_units\nimport numpy as np\n"
        "def step(x):\n    return np.sqrt(lab_units.scaled(x))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import lab_steps

    yield lab_steps
    for name in ("lab_steps", "lab_units"):
        sys.modules.pop(name, None)


def elsewhere(payload: bytes, call: str, tmp_path: Path) -> str:
    """What a process that has nothing but the installed packages says."""
    (tmp_path / "payload").write_bytes(payload)
    program = (
        "import sys; from dataflow.execution.code import unpack\n"
        "functions = unpack(open(sys.argv[1], 'rb').read())\n"
        f"print({call})"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, tmp_path / "payload"],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_functions_of_a_test_module_travel_by_value(tmp_path: Path) -> None:
    payload = pack(piled.functions)
    call = "(functions.function(1), functions.combine(2, 3), functions.finish(1))"
    assert elsewhere(payload, call, tmp_path) == "(41, 5, 41)"


def test_modules_beside_a_notebook_travel_with_it(tmp_path: Path, beside: ModuleType) -> None:
    payload = pack(Functions(beside.step))
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    assert elsewhere(payload, "float(functions.function(10))", directory) == "10.0"


def test_installed_packages_travel_by_name() -> None:
    import numpy as np

    assert len(pack(Functions(np.mean))) < 500
    assert unpack(pack(Functions(np.mean))).function is np.mean


def test_arithmetic_travels(tmp_path: Path) -> None:
    assert elsewhere(pack(add.functions), "functions.function(1, 2, 3)", tmp_path) == "6"


def test_main_travels_by_value(tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(
        "import sys\nfrom dataflow.execution.code import pack\n"
        "from dataflow.graph.operation import Functions\n"
        "FACTOR = 6\ndef times(x):\n    return x * FACTOR\n"
        "sys.stdout.buffer.write(pack(Functions(times)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, check=True, cwd=ROOT)
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    assert elsewhere(done.stdout, "functions.function(7)", directory) == "42"


def test_registry_is_as_before(beside: ModuleType) -> None:
    cloudpickle.register_pickle_by_value(beside)
    try:
        pack(piled.functions)
        assert cloudpickle.list_registry_pickle_by_value() == {"lab_steps"}
    finally:
        cloudpickle.unregister_pickle_by_value(beside)


def test_many_threads_pack_at_once() -> None:
    packed: list[bytes] = []

    def work() -> None:
        for _ in range(20):
            packed.append(pack(piled.functions))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(packed) == 160
    assert not cloudpickle.list_registry_pickle_by_value()
    # By value, every time: no payload names the module.
    assert all(b"shifted" in payload and len(payload) > 500 for payload in packed)


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="dict"):
        unpack(cloudpickle.dumps({}))


# --- the store -------------------------------------------------------------------------------


def functions_with(held: object) -> Functions:
    def uses(x: object) -> object:
        return held, x

    return Functions(uses)


@pytest.mark.parametrize(
    "held",
    [
        Source("http://site/x", headers={"authorization": "Bearer swordfish"}),
        Source("s3://b/x", credentials={"secret_access_key": "swordfish"}),
        NpyArray(
            Source("http://s/x", headers={"a": "swordfish"}),
            Variable(name="x", dims=(), shape=(), dtype="f8", nbytes=8),
        ),
        obstore.store.HTTPStore(
            "http://site/x", client_options={"default_headers": {"a": "swordfish"}}
        ),
        [
            {
                "deep": obstore.store.S3Store(
                    "b", region="r", access_key_id="a", secret_access_key="swordfish"
                )
            }
        ],
    ],
    ids=["token", "key", "array", "http", "s3"],
)
def test_secrets_do_not_travel_with_code(held: object) -> None:
    with pytest.raises(GraphError, match="as an argument") as caught:
        pack(functions_with(held))
    assert "swordfish" not in str(caught.value)


def test_what_lies_here_without_a_secret_may_travel() -> None:
    held = Source("file:///data/x.npy")
    assert unpack(pack(functions_with(held))).function is not None


def test_first_payload_stays(tmp_path: Path) -> None:
    store = CodeStore(tmp_path / "code")
    assert store.has(["a", "b"]) == []
    store.put("a", b"first")
    store.put("a", b"second")
    assert store.get("a") == b"first"
    assert store.has(["b", "a"]) == ["a"]
    assert CodeStore(tmp_path / "code").get("a") == b"first"
    assert [file.name for file in (tmp_path / "code").iterdir()] == ["a"]


def test_unknown_digest(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        CodeStore(tmp_path).get("a")


@pytest.mark.parametrize("digest", ["../a", "", "a/b", ".", "a\0"])
def test_digest_that_leaves_the_directory(tmp_path: Path, digest: str) -> None:
    store = CodeStore(tmp_path / "code")
    for ask in (store.get, lambda d: store.put(d, b""), lambda d: store.has([d])):
        with pytest.raises(ValueError):
            ask(digest)


def test_racing_writers(tmp_path: Path) -> None:
    store = CodeStore(tmp_path)
    threads = [
        threading.Thread(target=store.put, args=("a", bytes([n]) * 100_000)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(store.get("a"))) == 1
    assert len(store.get("a")) == 100_000
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
