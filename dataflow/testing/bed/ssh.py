"""SSH: an ordinary user, keys, one sshd per host that has one, and what a client needs to know."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from dataflow.testing.bed import hosts
from dataflow.testing.bed.commands import run
from dataflow.testing.bed.layout import HOSTS, STATE, USER, HostPlan
from dataflow.testing.bed.processes import Process
from dataflow.testing.bed.state import State, directory

FOLDER = STATE / "ssh"
CONFIG = FOLDER / "config"
KEY = FOLDER / "id_ed25519"
KNOWN_HOSTS = FOLDER / "known_hosts"

_SSHD = """\
Port 22
{listen}
HostKey {own}/host_ed25519
PidFile {own}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys {own}/authorized_keys .ssh/authorized_keys
UsePAM no
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AllowUsers {user}
AllowTcpForwarding local
MaxSessions 100
MaxStartups 100
UseDNS no
SetEnv PATH=/usr/local/bin:/usr/bin:/bin:{bin}
Subsystem sftp internal-sftp
"""


def ensure_user() -> None:
    """The user that sites know. It has no password: a key is the only way in."""
    if run("id", USER, check=False).returncode:
        run("useradd", "--create-home", "--shell", "/bin/bash", USER)
        # A locked password ("!") would close the account to keys as well, without PAM.
        run("usermod", "--password", "*", USER)
    directory(Path("/home") / USER, mode=0o700)


def ensure_keys() -> None:
    """Keys of the client and of every host, and the files by which a client finds its way."""
    directory(FOLDER)
    if CONFIG.exists():
        return
    _key(KEY, "notebook")
    shutil.copy(KEY.with_suffix(".pub"), FOLDER / "authorized_keys")
    known = []
    config = [
        "Host *",
        f"  User {USER}",
        f"  IdentityFile {KEY}",
        "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {KNOWN_HOSTS}",
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  PasswordAuthentication no",
        "",
    ]
    for plan in HOSTS:
        if "sshd" not in plan.services:
            continue
        own = directory(STATE / "hosts" / plan.name)
        _key(own / "host_ed25519", plan.name)
        public = " ".join((own / "host_ed25519.pub").read_text().split()[:2])
        for address in (plan.name, plan.outside, plan.inside):
            if address:
                known.append(f"{address} {public}")
        config += [f"Host {plan.name}", f"  HostName {plan.outside or plan.inside}"]
        config += [] if plan.outside else [f"  ProxyJump {plan.site}"]
    KNOWN_HOSTS.write_text("\n".join(known) + "\n")
    CONFIG.write_text("\n".join(config) + "\n")


def ensure_inner_key(plan: HostPlan) -> None:
    """Let the user go from the site's door to its inner host, as on a real one."""
    folder = hosts.site_folder(plan.site) / "home" / ".ssh"
    if not (folder / "id_ed25519").exists():
        directory(folder, mode=0o700)
        _key(folder / "id_ed25519", f"{USER}@{plan.site}")
        shutil.copy(KNOWN_HOSTS, folder / "known_hosts")
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, USER, USER)
    shutil.copy(folder / "id_ed25519.pub", STATE / "hosts" / plan.name / "authorized_keys")


def listener(state: State, name: str) -> Process | None:
    """The sshd that takes new connections; its sessions are other processes."""
    for process in hosts.everybody(state, name):
        if process.name == "sshd" and "[listener]" in process.command:
            return process
    return None


def ensure_sshd(state: State, plan: HostPlan, python: Path) -> bool:
    """Start sshd unless it listens as it should; whether it was started or told anew."""
    own = STATE / "hosts" / plan.name
    addresses = [address for address in (plan.outside, plan.inside) if address]
    config = own / "sshd_config"
    wanted = _SSHD.format(
        listen="\n".join(f"ListenAddress {address}" for address in addresses),
        own=own,
        folder=FOLDER,
        user=USER,
        bin=python.parent,
    )
    running = listener(state, plan.name)
    if running is not None and config.read_text() == wanted:
        return False
    config.write_text(wanted)
    if running is not None:
        os.kill(running.outer, signal.SIGHUP)
        return True
    directory(Path("/run/sshd"))
    hosts.start_daemon(
        state, plan.name, ["/usr/sbin/sshd", "-f", config, "-E", own / "sshd.log"], log="sshd.out"
    )
    return True


def _key(path: Path, comment: str) -> None:
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)
