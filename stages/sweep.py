"""Train every setting of a study that the trial store lacks, then write results/<study>/.

    python stages/sweep.py cells [--dry-run] [--executor auto|ray|inline]

Ray starts on this machine, or is the cluster that RAY_ADDRESS names; what takes a few seconds trains without it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline import sweep
from pipeline.config import Paths, check_tree, load_params, write_digest
from pipeline.errors import PipelineError
from pipeline.results import digest_tables
from pipeline.results.store import TrialStore

EXECUTORS = "inline: in this process, no Ray; auto: inline if it takes a few seconds, Ray else and on a cluster"


def main(arguments: list[str] | None = None) -> int:
    """Run the stage in the current folder and return its exit status: 2 for an error that the user can mend."""
    parser = argparse.ArgumentParser(description="Train what is missing of a study and write its result tables.")
    parser.add_argument("study", help="a name under configs/studies, listed in params.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print every setting and what it would cost, train none")
    parser.add_argument("--executor", choices=("auto", "ray", "inline"), default="auto", help=EXECUTORS)
    try:
        check_tree(__file__)
        _sweep(parser.parse_args(arguments))
    except PipelineError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    return 0


def _sweep(asked: argparse.Namespace) -> None:
    paths = Paths.at()
    params = load_params(paths)
    store = TrialStore.of(paths, params.trial_store)
    if asked.dry_run:
        print(sweep.describe_plan(sweep.current_plan(paths, params, asked.study, store)))
        return
    if sweep.cluster_address() and store.is_local:
        print(f"sweep: trial_store is {store.url}: every node of the cluster must see that folder", file=sys.stderr)
    executor = sweep.executor_named(asked.executor, params)
    sweep.run_sweep(paths, params, asked.study, executor)
    write_digest(paths.results_digest(asked.study), digest_tables(paths.results(asked.study)))


if __name__ == "__main__":
    sys.exit(main())
