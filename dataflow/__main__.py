"""``python -m dataflow``: the command line."""

from __future__ import annotations

import sys


def run() -> None:
    """What was asked for; who is asked for an agent by SSH does not wait for all other commands."""
    from dataflow.cli.detach import detach

    if not detach(sys.argv[1:]):
        from dataflow.cli.app import main

        main()


if __name__ == "__main__":
    run()
