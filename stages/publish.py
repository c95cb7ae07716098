"""Publish to Weights & Biases: finished studies from their tables, or what trains now from the trial store.

    python stages/publish.py [study ...] [--mode online|offline]
    python stages/publish.py --follow [study ...]     # a run per setting, live; ends when all of them have
    python stages/publish.py --report [study ...]     # the project's one Report and its saved view, of these runs

What was published already and has not changed is not sent again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline import stopping

if __name__ == "__main__":  # what follows takes seconds to import
    stopping.watch("publish", "what has ended is published, the rest when it is run again")

from pipeline.config import Params, Paths, check_tree, load_params, load_study
from pipeline.errors import ConfigError, PipelineError, unknown_name
from pipeline.publish import Publisher
from pipeline.publish.follow import INTERVAL_S, Followed, Follower, follow
from pipeline.results.objects import now_ns
from pipeline.results.store import TrialStore
from pipeline.sweep import Plan, plan_study
from pipeline.sweep.consolidate import settings_frame
from pipeline.sweep.lease import driver_of


def main(arguments: list[str] | None = None) -> int:
    """Publish from the project in this folder.

    Returns:
        0, or 1 where something was not sent as asked, 2 for a mistake.
    """
    parser = argparse.ArgumentParser(description="Publish studies to Weights & Biases.")
    parser.add_argument("studies", nargs="*", metavar="study", help="default: every study of params.yaml")
    parser.add_argument("--mode", choices=("online", "offline"), help="default: as WANDB_MODE or params.yaml says")
    parser.add_argument("--follow", action="store_true", help="show what trains while it trains; needs a key")
    parser.add_argument("--report", action="store_true", help="make or update the Report and the view over the runs")
    parser.add_argument("--interval", type=float, default=INTERVAL_S, metavar="S", help="seconds between two looks")
    asked = parser.parse_args(arguments)
    if asked.follow and asked.report:
        parser.error("expected one of --follow and --report")
    if asked.mode:  # the command line comes before the environment and params.yaml
        os.environ["WANDB_MODE"] = asked.mode
        os.environ.pop("WANDB_DISABLED", None)
    try:
        check_tree(__file__)
        paths = Paths.at()
        params = load_params(paths)
        for study in asked.studies:
            if study not in params.studies:
                raise ConfigError(f"{paths.params.name}: studies: {unknown_name('study', study, params.studies)}")
        with contextlib.closing(Publisher(paths, params)) as publisher:
            if asked.follow:
                follow_all(publisher, paths, params, asked.studies or params.studies, asked.interval)
            elif asked.report:
                names = asked.studies or params.studies
                for line in publisher.board({name: load_study(paths, name).question for name in names}):
                    print(line)
            else:
                publish(publisher, params, asked.studies)
    except PipelineError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    return 0 if publisher.is_as_asked else 1


def publish(publisher: Publisher, params: Params, studies: Sequence[str]) -> None:
    """Publish `studies`, or all of params.yaml and then the report, and print how it went."""
    for study in studies or params.studies:
        if stopping.is_asked():
            return
        publisher.study(study)
        print(f"{study}: {publisher.mode}, {publisher.num_failed} failed")
    if not studies:
        publisher.report(params.studies)


def follow_all(publisher: Publisher, paths: Paths, params: Params, studies: Sequence[str], interval_s: float) -> None:
    """Follow `studies` until every setting has ended, or until SIGINT or SIGTERM, and then look once more."""
    if publisher.mode != "online":
        print(f"follow: W&B is {publisher.mode}, so nothing is live; `python stages/publish.py` writes what has ended")
        return
    store = TrialStore.of(paths, params.trial_store)
    plans = [followed(plan_study(paths, params, study)) for study in studies if not stopping.is_asked()]
    follower = Follower(publisher, paths, store, plans, sys.stdout)
    print(f"follow: {follower.num_waiting} settings that {store.objects.where} does not have yet", flush=True)

    def is_swept() -> bool:
        now = now_ns(store.objects)
        return any(driver_of(store.objects, study, now) is not None for study in studies)

    with contextlib.closing(follower):
        follow(follower, publisher.folder, interval_s, stopping.is_asked, is_swept)


def followed(plan: Plan) -> Followed:
    """Return what a follower needs to know of a plan."""
    everything = frozenset(setting.position for setting in plan.settings)
    return Followed(settings_frame(plan, everything), {it.trial_id: asdict(it.spec) for it in plan.trials})


if __name__ == "__main__":
    stopping.run(main, ends_itself=True)  # W&B has a process of its own, which is to end as well
