"""One sweep from plan to tables: train what the store lacks, then write the study's results.

Killed at any moment, it is run again with the same command: finished trials are kept, unfinished ones go on from
their checkpoints, and the tables come out the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

import torch

from pipeline.config import Params, Paths
from pipeline.core.training import run_trial
from pipeline.data import Dataset, load_dataset
from pipeline.errors import SweepError
from pipeline.results import probe_writable
from pipeline.results.store import TrialStore, store_url
from pipeline.sweep.announce import Announcer, OnFinished
from pipeline.sweep.consolidate import consolidate
from pipeline.sweep.estimate import available_memory_bytes
from pipeline.sweep.execution import Executor, LoadData, Watch
from pipeline.sweep.lock import sweep_lock
from pipeline.sweep.plan import Plan, Setting, plan_study
from pipeline.sweep.progress import Progress, duration_text, follow, title
from pipeline.sweep.trial import Job, Outcome, Train

SHORT_S = 5.0
"""On one core, roughly: what takes less is done before Ray has started."""


def run_sweep(
    paths: Paths,
    params: Params,
    study: str,
    executor: Executor,
    *,
    max_wall_time_s: float,
    on_finished: OnFinished | None = None,
    stream: TextIO | None = None,
    train: Train = run_trial,
) -> None:
    """Train what is missing of a study and write results/<study>/.

    Args:
        paths: Where the files are.
        params: What to run.
        study: Its name.
        executor: Who trains: `executor_named`.
        max_wall_time_s: A trial that takes longer ends `timed_out`.
        on_finished: Hears of each setting whose trial is stored, in a thread of its own.
        stream: Where the progress is shown; None is standard output.
        train: The training function.

    Raises:
        SweepError: If another sweep of the study runs, if settings are missing after an interrupt, or if settings
            failed; the results of all others are written then.
        StoreError: If the trial store cannot be written.
        TableError: If the results folder cannot be written. This and the store are tried before any training.
    """
    store = TrialStore(store_url(paths, params.trial_store))
    store.probe_writable()
    probe_writable(paths.results(study))
    revision = git_revision(paths)
    with sweep_lock(paths.default_store / f"{study}.lock", study):
        plan = current_plan(paths, params, study, store, max_wall_time_s)
        job = _job(params, store, revision, max_wall_time_s, train)
        with Announcer(plan, store, on_finished) as announcer:
            watch = _Watch(follow(plan, stream or sys.stdout), announcer)
            _train_missing(plan, executor, job, _reader(paths), watch)
        failed = {identity: outcome for identity, outcome in watch.outcomes.items() if outcome.status == "error"}
        _check_complete(plan, watch.outcomes)
        messages = {identity: outcome.message for identity, outcome in failed.items()}
        consolidate(plan, store, paths.results(study), messages, revision)
        _check_failed(plan, failed)


def current_plan(paths: Paths, params: Params, study: str, store: TrialStore, max_wall_time_s: float) -> Plan:
    """Return the plan of a study against what the store has, and against this machine's memory if it trains here.

    A stored trial that ran out of a shorter time limit than `max_wall_time_s` counts as missing, as a damaged one does.
    """
    trains_here = not os.environ.get("RAY_ADDRESS") and not params.resources.gpus_per_trial
    plan = plan_study(paths, params, study, store.ids(), available_memory_bytes() if trains_here else None)
    stored = {setting.trial_id: store.get(setting.trial_id) for setting in plan.trials if setting.stored}
    final = {identity for identity, trial in stored.items() if trial is not None and trial.is_final(max_wall_time_s)}
    return plan.with_stored(final)


def executor_named(name: str, params: Params) -> Executor:
    """Return `inline`, which trains in this process, `ray`, here or on RAY_ADDRESS, or what `auto` takes.

    That is Ray, but for a handful of settings that would be done before it has started.

    Raises:
        SweepError: If `inline` is to use a GPU that is not there.
    """
    if name == "auto":
        return functools.partial(_train_as_it_pays, params)
    if name == "inline":
        if params.resources.gpus_per_trial > 0 and not torch.cuda.is_available():
            raise SweepError(
                "params.yaml: resources.gpus_per_trial: expected 0, this machine has no GPU that torch can use; "
                f"got {params.resources.gpus_per_trial:g}"
            )
        from pipeline.sweep.inline import train_inline

        return train_inline
    from pipeline.sweep.executor_ray import RayExecutor

    return RayExecutor(params.resources, os.environ.get("RAY_ADDRESS"))


def _train_as_it_pays(params: Params, settings: Sequence[Setting], job: Job, load: LoadData, watch: Watch) -> None:
    elsewhere = bool(os.environ.get("RAY_ADDRESS")) or params.resources.gpus_per_trial > 0
    short = sum(setting.duration_s for setting in settings) < SHORT_S
    name = "inline" if short and not elsewhere else "ray"
    executor_named(name, params)(settings, job, load, watch)


def describe_plan(plan: Plan) -> str:
    """Return what a sweep would do, one line for each setting, without doing it."""
    lines = []
    for setting in plan.settings:
        steps = setting.spec.training.max_steps
        state = "stored " if setting.stored else "missing"
        lines.append(f"{setting.trial_id}  {state}  {steps:>7} steps  {title(setting)}")
    missing = plan.missing
    replica_steps = sum(s.spec.training.max_steps * len(s.spec.seeds) for s in missing)
    total_s = sum(setting.duration_s for setting in missing)
    trials = f"{len(plan.settings)} settings, {len(plan.trials)} trials, {len(missing)} to train"
    lines.append(f"{trials}: {replica_steps} replica-steps, very roughly {duration_text(total_s)} on one core")
    return "\n".join(lines)


def git_revision(paths: Paths) -> str | None:
    """Return the commit of the project, with `-dirty` if files differ from it; None without git."""
    command = ["git", "-C", str(paths.root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


class _Watch:
    """Collects outcomes, shows the progress and announces finished trials."""

    def __init__(self, progress: Progress, announcer: Announcer) -> None:
        self.progress, self.announcer = progress, announcer
        self.outcomes: dict[str, Outcome] = {}

    def started(self, setting: Setting) -> None:
        self.progress.started(setting)

    def finished(self, setting: Setting, outcome: Outcome) -> None:
        self.outcomes[setting.trial_id] = outcome
        self.progress.finished(setting, outcome)
        if outcome.status != "error":
            self.announcer.announce(setting.trial_id)

    def close(self) -> None:
        self.progress.close()


def _train_missing(plan: Plan, executor: Executor, job: Job, load: LoadData, watch: _Watch) -> None:
    """Announce what is stored and train the rest; returns normally after an interrupt, as Ray Tune does."""
    for setting in plan.trials:
        if setting.stored:
            watch.announcer.announce(setting.trial_id)
    with contextlib.closing(watch), contextlib.suppress(KeyboardInterrupt):
        if plan.missing:
            executor(plan.missing, job, load, watch)


def _job(params: Params, store: TrialStore, revision: str | None, max_wall_time_s: float, train: Train) -> Job:
    return Job(
        store_url=store.url,
        git_revision=revision,
        device="cuda" if params.resources.gpus_per_trial > 0 else "cpu",
        num_threads=max(1, int(params.resources.cpus_per_trial)),
        max_wall_time_s=max_wall_time_s,
        train=train,
    )


def _reader(paths: Paths) -> LoadData:
    def load(name: str, length: int | None, unseen_lengths: tuple[int, ...]) -> Dataset:
        return load_dataset(paths.dataset(name), length, unseen_lengths)

    return load


def _check_complete(plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    absent = [setting for setting in plan.missing if setting.trial_id not in outcomes]
    if absent:
        raise SweepError(
            f"study {plan.study!r}: interrupted: {len(absent)} of {len(plan.trials)} settings are missing, "
            f"{title(absent[0])} among them; run again, finished ones are kept"
        )


def _check_failed(plan: Plan, failed: Mapping[str, Outcome]) -> None:
    if failed:
        first = next(setting for setting in plan.trials if setting.trial_id in failed)
        raise SweepError(
            f"study {plan.study!r}: {len(failed)} of {len(plan.trials)} settings failed, the others are kept; "
            f"first {title(first)} (trial {first.trial_id}):\n{failed[first.trial_id].traceback.rstrip()}"
        )
