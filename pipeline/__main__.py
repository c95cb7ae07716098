"""The command line of the package: `python -m pipeline selftest` checks every golden number."""

from __future__ import annotations

import argparse
import sys

from pipeline.errors import PipelineError
from pipeline.selftest import EXPERIMENTS, run, select


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; return the exit status: 1 if a check failed, 2 for an error to mend."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Gradient dynamics: checks of the code.")
    commands = parser.add_subparsers(dest="command", required=True)
    summary = "check every golden number of the literature through the shipped code"
    selftest = commands.add_parser("selftest", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    selftest.add_argument("--only", metavar="SUBSTRING", help="only experiments with this in their name")
    chosen = parser.parse_args(arguments)
    try:
        return run(select(EXPERIMENTS, chosen.only))
    except PipelineError as error:
        print(f"selftest: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
