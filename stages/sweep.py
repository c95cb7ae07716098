"""Train every setting of a study that the trial store lacks, then write results/<study>/.

    python stages/sweep.py cells [--dry-run] [--wait] [--executor auto|ray|inline]
    python stages/sweep.py cells gates       # several studies as one list: no core waits for the end of each
    python stages/sweep.py --stale           # train only, what DVC would sweep next; `make repro` runs it before DVC

Ray starts on this machine, or is the cluster that RAY_ADDRESS names; what takes a few seconds trains without it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline import stopping

if __name__ == "__main__":  # what follows takes seconds to import
    stopping.watch("sweep", "finished trials are kept, others go on from their checkpoints: run again")

from pipeline import sweep
from pipeline.config import Paths, check_tree, load_params, write_digest
from pipeline.errors import PipelineError, SweepError
from pipeline.results import digest_tables
from pipeline.results.store import TrialStore

EXECUTORS = "inline: in this process, no Ray; auto: inline if it takes a few seconds, Ray else and on a cluster"


def main(arguments: list[str] | None = None) -> int:
    """Run the stage in the current folder and return its exit status: 2 for an error that the user can mend."""
    parser = argparse.ArgumentParser(description="Train what is missing of a study and write its result tables.")
    parser.add_argument("studies", nargs="*", metavar="study", help="a name under configs/studies, of params.yaml")
    parser.add_argument("--stale", action="store_true", help="train what DVC would sweep, write no results")
    parser.add_argument("--dry-run", action="store_true", help="print every setting and what it would cost, train none")
    parser.add_argument("--wait", action="store_true", help="take over from another driver when it ends or is dead")
    parser.add_argument("--executor", choices=("auto", "ray", "inline"), default="auto", help=EXECUTORS)
    try:
        check_tree(__file__)
        asked = parser.parse_args(arguments)
        if bool(asked.studies) == asked.stale:
            parser.error("expected names of studies, or --stale")
        _sweep(asked)
    except PipelineError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    return 0


def _sweep(asked: argparse.Namespace) -> None:
    paths = Paths.at()
    params = load_params(paths)
    store = TrialStore.of(paths, params.trial_store)
    studies = _stale(params.studies) if asked.stale else asked.studies
    if asked.dry_run:
        for study in studies:
            print(sweep.describe_plan(sweep.current_plan(paths, params, study, store)))
        return
    if sweep.cluster_address() and store.is_local:
        print(f"sweep: trial_store is {store.url}: every node of the cluster must see that folder", file=sys.stderr)
    executor = sweep.executor_named(asked.executor, params)
    if asked.stale or len(studies) > 1:
        sweep.train_together(paths, params, studies, executor, wait=asked.wait)
    for study in () if asked.stale else studies:
        sweep.run_sweep(paths, params, study, executor, wait=asked.wait)
        write_digest(paths.results_digest(study), digest_tables(paths.results(study)))


def _stale(studies: Sequence[str]) -> list[str]:
    """Return the studies whose sweep DVC would run.

    Raises:
        SweepError: If DVC does not say.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", *(f"sweep@{study}" for study in studies)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if said.returncode:
        raise SweepError(f"`dvc status` failed: {said.stderr.strip()}")
    return [study for study in studies if f"sweep@{study}" in json.loads(said.stdout)]


if __name__ == "__main__":
    stopping.run(main)
