"""Words: what a login host's shell is given to run."""

from __future__ import annotations

import shlex

from dataflow.config.records import SshAccess


def start_command(access: SshAccess) -> str:
    """What is run on the login host, whatever shell the account has."""
    words = [
        there(access.python),
        "-m dataflow agent --detach",
        f"--config={there(access.site_file)}",
    ]
    if access.state is not None:
        words.append(f"--state={there(access.state)}")
    return " ".join(words)


def there(path: str) -> str:
    """A path on the login host as a word for its shell; relative ones begin at the home."""
    plain = path.removeprefix("~/")
    return shlex.quote(plain) if plain.startswith("/") else f'"$HOME"/{shlex.quote(plain)}'
