"""``python -m dataflow``: the command line."""

from dataflow.cli.app import main

if __name__ == "__main__":
    main()
