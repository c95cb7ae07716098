"""The command line of the package: `selftest` checks every golden number, `adopt` keeps trials after a refactoring."""

from __future__ import annotations

import argparse
import sys

from pipeline.errors import ConfigError, PipelineError, unknown_name


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; return the exit status: 1 if a check failed, 2 for an error to mend."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Gradient dynamics: checks of the code.")
    commands = parser.add_subparsers(dest="command", required=True)
    summary = "check every golden number of the literature through the shipped code"
    selftest = commands.add_parser("selftest", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    selftest.add_argument("--only", metavar="SUBSTRING", help="only experiments with this in their name")
    summary = "train some stored trials again after a refactoring, and adopt the others if all rows agree to the bit"
    adopt = commands.add_parser("adopt", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    adopt.add_argument("studies", nargs="*", metavar="study", help="default: every study of params.yaml")
    more = "train at least so many, the cheapest (default: 3); more where these are not of every cell, rule and kind"
    adopt.add_argument("--check", type=_count, default=3, metavar="N", help=more)
    adopt.add_argument("--dry-run", action="store_true", help="say what would be trained and adopted, do neither")
    adopt.add_argument("--executor", choices=("auto", "ray", "inline"), default="auto", help="as of stages/sweep.py")
    chosen = parser.parse_args(arguments)
    try:
        return _selftest(chosen) if chosen.command == "selftest" else _adopt(chosen)
    except PipelineError as error:
        print(f"{chosen.command}: {error}", file=sys.stderr)
        return 2


def _count(text: str) -> int:
    """Return an integer of at least 0.

    Raises:
        ArgumentTypeError: If it is none.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def _selftest(chosen: argparse.Namespace) -> int:
    from pipeline.selftest import EXPERIMENTS, run, select

    return run(select(EXPERIMENTS, chosen.only))


def _adopt(chosen: argparse.Namespace) -> int:
    from pipeline import sweep  # needs polars, which checking numbers does not
    from pipeline.config import Paths, load_params

    paths = Paths.at()
    params = load_params(paths)
    for study in chosen.studies:
        if study not in params.studies:
            raise ConfigError(f"{paths.params.name}: studies: {unknown_name('study', study, params.studies)}")
    executor = sweep.executor_named(chosen.executor, params)
    studies = chosen.studies or params.studies
    sweep.adopt(paths, params, studies, executor, num_checked=chosen.check, dry_run=chosen.dry_run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
