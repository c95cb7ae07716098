"""Plan every study of params.yaml: `python stages/plan.py`.

Every mistake in a study shows here, before a second of training. A plan that comes out as it was leaves its sweep
fresh, whatever else changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline.config import Paths, check_tree, keep_listed, load_params, write_digest
from pipeline.errors import PipelineError
from pipeline.sweep import Plan, plan_study


def main(arguments: list[str] | None = None) -> int:
    """Run the stage in the current folder; return the exit status, 2 for an error that the user can mend."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    try:
        check_tree(__file__)
        plans = plan_all(Paths.at())
    except PipelineError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    trials = {setting.trial_id for plan in plans for setting in plan.settings}
    print(f"plan: {len(plans)} studies, {sum(len(plan.settings) for plan in plans)} settings, {len(trials)} trials")
    return 0


def plan_all(paths: Paths) -> list[Plan]:
    """Plan every listed study, then write the plans: none where one is wrong."""
    params = load_params(paths)
    plans = [plan_study(paths, params, name) for name in params.studies]
    for plan in plans:
        write_digest(paths.plan(plan.study), plan.digest())
    keep_listed(paths.dataset_digest, params.datasets)
    return plans


if __name__ == "__main__":
    sys.exit(main())
