"""Debian packages of the bed: which are missing, and their installation without a daemon started."""

from __future__ import annotations

from pathlib import Path

from dataflow.testing.bed.commands import BedError, run, say

PACKAGES = (
    "iproute2",
    "openssh-client",
    "openssh-server",
    # The smallest mail program, for Grid Engine's dependency; the default one is a daemon.
    "dma",
    "gridengine-master",
    "gridengine-exec",
    "gridengine-client",
    "radosgw",
    "ceph-mon",
    "ceph-osd",
    "ceph-common",
    "curl",
    # A small compiler, for the wrong clock.
    "tcc",
    "libc6-dev",
    "netbase",
    "python3-venv",
)

#: Grid Engine asks once, in any of its packages; every bed has a copy of what is made from it.
_ANSWERS = """\
gridengine-master shared/gridengineconfig boolean true
gridengine-master shared/gridenginecell string default
gridengine-master shared/gridenginemaster string hpc
"""
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Packages that are not installed; all of them where there is no dpkg."""
    if not Path("/usr/bin/dpkg-query").exists():
        return list(PACKAGES)
    shown = run(
        *("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"),
        *PACKAGES,
        check=False,
    ).stdout
    there = {line.split()[0] for line in shown.splitlines() if line.endswith(" installed")}
    return [name for name in PACKAGES if name not in there]


def ensure() -> bool:
    """Install what is missing; whether anything was."""
    names = missing()
    if not names:
        return False
    if not Path("/usr/bin/apt-get").exists():
        raise BedError("the test bed is made of Debian packages, and there is no apt-get here")
    say(f"installing {' '.join(names)}")
    run("debconf-set-selections", stdin=_ANSWERS)
    ours = not _POLICY.exists()
    if ours:  # the packages' own daemons would listen on every interface of this machine
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        patient = ("-q", "-o", "DPkg::Lock::Timeout=600")
        run("apt-get", "update", *patient, timeout=300, environment=quiet)
        run(
            *("apt-get", "install", "-y", "--no-install-recommends", *patient, *names),
            timeout=900,
            environment=quiet,
        )
    finally:
        if ours:
            _POLICY.unlink()
    return True
