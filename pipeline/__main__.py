"""The command line of the package: `selftest` checks every golden number, `coverage` every kind of interval."""

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
    summary = "simulate how often each kind of interval over seeds holds the truth"
    coverage = commands.add_parser("coverage", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    coverage.add_argument("--samples", metavar="NUMBER", type=_positive, default=2000, help="of each truth (2000)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "coverage":
            from pipeline.quantities import coverage as intervals  # needs what the core does without

            return intervals.run(chosen.samples)
        return run(select(EXPERIMENTS, chosen.only))
    except PipelineError as error:
        print(f"{chosen.command}: {error}", file=sys.stderr)
        return 2


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
