"""The virtual environment that every host runs: this checkout, and what it needs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from dataflow.testing.bed.commands import BedError, run, say
from dataflow.testing.bed.hosts import REPOSITORY
from dataflow.testing.bed.layout import CHECKOUT, DISK
from dataflow.testing.bed.state import directory

DEFAULT_PYTHON = Path("/usr/bin/python3")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_SETTINGS = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_")


def ensure(python: Path) -> tuple[Path, Path]:
    """The environment's interpreter, installing only if something changed; and where its own is.

    Nothing is installed again while ``pyproject.toml`` and the interpreter stay the same.
    """
    version, prefix = _facts(python)
    target = DISK / f"venv-{version}"
    wanted = hashlib.sha256(
        b"\0".join(
            [
                (REPOSITORY / "pyproject.toml").read_bytes(),
                f"{version} {prefix} {CHECKOUT}".encode(),
            ]
        )
    ).hexdigest()
    stamp = target / ".ready"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"installing into {target} (first time, or pyproject.toml changed)")
        _install(python, target)
        stamp.write_text(wanted)
    return target / "bin" / "python", Path(prefix)


def remove() -> None:
    """Remove every environment of the bed."""
    for target in DISK.glob("venv-*"):
        shutil.rmtree(target)


def _facts(python: Path) -> tuple[str, str]:
    if not python.exists():
        raise BedError(f"there is no {python}; choose another with --python")
    code = (
        "import json, platform, sys;"
        "print(json.dumps([platform.python_version(), sys.base_prefix, sys.version_info[:2]]))"
    )
    version, prefix, minor = json.loads(run(python, "-I", "-c", code).stdout)
    if minor < [3, 11]:
        raise BedError(f"{python} is {version}, and dataflow needs 3.11; choose with --python")
    return version, str(Path(prefix).resolve())


def _install(python: Path, target: Path) -> None:
    directory(DISK)
    directory(CHECKOUT)
    uv = _uv(target)
    network = {
        name: value
        for name, value in os.environ.items()
        if name in _PROXIES or name.startswith(_SETTINGS)
    }
    # Made with an uv that is not there any more, it has nothing to install with.
    if uv is None or not _runs(target / "bin" / "python"):
        shutil.rmtree(target, ignore_errors=True)
        if uv is None:
            run(python, "-m", "venv", target, timeout=120)
            pip = (target / "bin/python", "-m", "pip", "install", "--quiet", "uv")
            run(*pip, timeout=300, environment=network)
        else:
            words = ("venv", "--quiet", "--no-project", "--python", python, target)
            run(uv, *words, environment=network)
    installer = uv or target / "bin" / "uv"
    # The path of the checkout inside hosts is recorded in the environment, wherever it is outside.
    script = 'mount --bind "$1" "$2"; shift 2; exec "$@"'

    def install(*more: str, check: bool = True) -> bool:
        done = run(
            *("unshare", "--mount", "sh", "-ec", script, "-", REPOSITORY, CHECKOUT),
            *(str(installer), "pip", "install", "--quiet", "--compile-bytecode", *more),
            *("--python", target / "bin/python", "--editable", f"{CHECKOUT}[all]"),
            timeout=900,
            environment=network,
            check=check,
        )
        return done.returncode == 0

    # From what is here, where that will do: there may be no network.
    if not install("--offline", check=False):
        install()
    # A umask of the caller, or of a cache, may have closed what an ordinary user must read.
    run("chmod", "-R", "a+rX", target)


def _runs(python: Path) -> bool:
    """Whether the environment is there; whoever works in it need not stop for what is added."""
    return python.exists() and run(python, "-c", "", check=False).returncode == 0


def _uv(target: Path) -> Path | None:
    places = [
        target / "bin" / "uv",
        shutil.which("uv"),
        REPOSITORY / ".venv/bin/uv",
        Path(sys.executable).with_name("uv"),
    ]
    return next((Path(place) for place in places if place and Path(place).exists()), None)
