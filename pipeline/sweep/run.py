"""One sweep from plan to tables: train what the store lacks, then write the study's results.

Killed at any moment, it is run again with the same command: finished trials are kept, unfinished ones go on from
their checkpoints, and the tables come out the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from pipeline.config import Params, Paths, load_scale
from pipeline.core.identity import PACKAGE, TREE
from pipeline.core.training import run_trial
from pipeline.core.training.spec import DatasetRef
from pipeline.data import Dataset, load_dataset
from pipeline.errors import SweepError
from pipeline.results import probe_writable
from pipeline.results.store import TrialStore
from pipeline.sweep.consolidate import consolidate
from pipeline.sweep.estimate import available_memory_bytes
from pipeline.sweep.executors import Executor, cluster_address
from pipeline.sweep.halving import Judge, furthest
from pipeline.sweep.lease import sweep_lease
from pipeline.sweep.plan import Plan, Setting, check_listed, plan_study
from pipeline.sweep.progress import duration_text, follow, title
from pipeline.sweep.status import told
from pipeline.sweep.tpe import Point, next_points
from pipeline.sweep.trial import Job, Outcome, Train


def run_sweep(
    paths: Paths,
    params: Params,
    study: str,
    executor: Executor,
    *,
    stream: TextIO | None = None,
    train: Train = run_trial,
    wait: bool = False,
) -> None:
    """Train what is missing of a study and write results/<study>/.

    Args:
        paths: Where the files are.
        params: What to run.
        study: Its name.
        executor: Who trains: `executor_named`.
        stream: Where the progress is shown; None is standard output.
        train: The training function.
        wait: Whether to wait for another driver of the study, and take over from it; else it is an error.

    Raises:
        SweepError: If another driver sweeps the study into this store, if the executor ended early, or if settings
            failed; the results of all others are written then.
        StoreError: If the trial store cannot be written.
        TableError: If the results folder cannot be written. This and the store are tried before any training.
    """
    check_listed(paths, params, study)
    store = TrialStore.of(paths, params.trial_store)
    store.probe_writable()
    probe_writable(paths.results(study))
    job = job_of(paths, params, store, train)
    with sweep_lease(store, study, wait=wait):
        plan = current_plan(paths, params, study, store)
        (plan,), outcomes = _train_rounds(paths, params, [plan], store, executor, job, stream or sys.stdout)
        _check_complete(plan, outcomes)
        errors = {identity: outcome.message for identity, outcome in outcomes.items() if outcome.status == "error"}
        plan = plan.with_stored({setting.trial_id for setting in plan.trials} - outcomes.keys())
        consolidate(plan, store, paths.results(study), errors, job.git_revision)
        _check_failed(plan, outcomes)


def train_together(
    paths: Paths,
    params: Params,
    studies: Sequence[str],
    executor: Executor,
    *,
    stream: TextIO | None = None,
    train: Train = run_trial,
    wait: bool = False,
) -> None:
    """Train what is missing of several studies as one list, longest first; their own sweeps then find it stored.

    At the end of each study a core waits for its last trial: here that happens once. What fails is left to the sweep of
    its study, which says so. The arguments are those of `run_sweep`.

    Raises:
        SweepError: If another driver sweeps one of them into this store, and is not waited for.
        StoreError: If the trial store cannot be written.
    """
    store = TrialStore.of(paths, params.trial_store)
    store.probe_writable()
    with contextlib.ExitStack() as leases:
        for study in sorted(set(studies)):  # in one order, lest two drivers wait for each other
            leases.enter_context(sweep_lease(store, study, wait=wait))
        plans = [current_plan(paths, params, study, store) for study in studies]
        if any(plan.missing for plan in plans):
            job = job_of(paths, params, store, train)
            _train_rounds(paths, params, plans, store, executor, job, stream or sys.stdout)


def _train_rounds(
    paths: Paths,
    params: Params,
    plans: Sequence[Plan],
    store: TrialStore,
    executor: Executor,
    job: Job,
    stream: TextIO,
) -> tuple[list[Plan], dict[str, Outcome]]:
    """Train what is missing of several plans as one list; then what is not stopped at a rung, or has been proposed.

    Returns:
        The plans as they are at the end, and the last outcome of each setting that was trained. Where the
        executor ended early, the settings that are still missing have none.
    """
    judge, now = Judge(store), list(plans)
    outcomes, done = dict[str, Outcome](), set[tuple[str, int | None]]()
    while True:
        settings = tuple(furthest(setting for plan in now for setting in plan.settings))
        together = replace(now[0], study=", ".join(plan.study for plan in now), settings=settings, select=None)
        missing = together.missing
        if any(setting.stop_at is not None for setting in missing):
            print(_round_text(missing), file=stream, flush=True)
        progress = follow(together, stream)
        with contextlib.closing(progress), told(store, now, progress.tally):
            if missing:
                executor(missing, job, functools.partial(load_data, paths), progress)
        for setting in missing:
            outcomes.pop(setting.trial_id, None)
        outcomes |= progress.tally.outcomes
        if any(setting.trial_id not in outcomes for setting in missing):
            return now, outcomes
        done |= {(setting.trial_id, setting.stop_at) for setting in missing}
        failed = {identity for identity, outcome in outcomes.items() if outcome.status == "error"}
        now = [current_plan(paths, params, plan.study, store) if plan.searches else plan for plan in now]
        now = [_without_done(judge.advance(plan, failed), done, failed) for plan in now]
        if not any(plan.missing for plan in now):
            return now, outcomes
        if any(plan.searches for plan in now):
            print("tpe: the next generation is proposed", file=stream, flush=True)


def _without_done(plan: Plan, done: Collection[tuple[str, int | None]], failed: Collection[str]) -> Plan:
    """Return the plan with nothing missing that was trained as far as this, or failed."""
    is_done = [(s.trial_id, s.stop_at) in done or s.trial_id in failed for s in plan.settings]
    settings = zip(plan.settings, is_done, strict=True)
    return replace(plan, settings=tuple(replace(s, stored=s.stored or found) for s, found in settings))


def _round_text(settings: Sequence[Setting]) -> str:
    """Return «halving: 40 settings to step 200, 2 to their end»."""
    steps = Counter(setting.stop_at for setting in settings)
    parts = [f"{steps[step]} to step {step}" for step in sorted(step for step in steps if step is not None)]
    return f"halving: {', '.join([*parts, *([f'{steps[None]} to their end'] if steps[None] else [])])}"


def job_of(paths: Paths, params: Params, store: TrialStore, train: Train) -> Job:
    """Return what all trials of a project have in common."""
    return Job(
        store_url=store.url,
        git_revision=git_revision(paths),
        device="cuda" if params.resources.uses_gpus else "cpu",
        num_threads=max(1, int(params.resources.cpus_per_trial)),
        max_wall_time_s=load_scale(paths, params.scale).max_wall_time_s,
        keeps_weights=params.keep_weights,
        train=train,
    )


def load_data(paths: Paths, wanted: DatasetRef) -> Dataset:
    """Return prepared data of a project.

    Raises:
        DatasetError: If they are not prepared, or damaged.
    """
    return load_dataset(paths.dataset(wanted.name), wanted.length, wanted.unseen_lengths)


def current_plan(paths: Paths, params: Params, study: str, store: TrialStore) -> Plan:
    """Return the plan of a study against what the store has, and against this machine's memory if it trains here.

    Of a search that proposes points it has those that follow from what is stored, as far as one generation further.
    A stored trial that ran out of a shorter time limit than the plan's counts as missing, as a damaged one does, and
    one that a search has stopped earlier than this plan would.
    """
    trains_here = cluster_address() is None and not params.resources.uses_gpus
    memory = available_memory_bytes() if trains_here else None
    limit_s, trials = load_scale(paths, params.scale).max_wall_time_s, store.summaries().items()
    final = {identity for identity, trial in trials if trial.is_final(limit_s)}
    plan = plan_study(paths, params, study, memory, stored=final).with_stored(final)
    proposed, scores = dict[tuple[str, str], list[Point]](), dict[str, float]()
    while grown := next_points(plan, store, scores):
        proposed |= grown
        plan = plan_study(paths, params, study, memory, proposed, final).with_stored(final)
    return Judge(store).advance(plan)


def describe_plan(plan: Plan) -> str:
    """Return what a sweep would do, one line for each setting, without doing it."""
    lines = []
    for setting in plan.settings:
        steps = setting.stop_at or setting.spec.training.max_steps
        state = ("stored " if setting.stop_at is None else "stopped") if setting.stored else "missing"
        lines.append(f"{setting.trial_id}  {state}  {steps:>7} steps  {title(setting)}")
    missing = plan.missing
    replica_steps = sum((s.stop_at or s.spec.training.max_steps) * len(s.spec.seeds) for s in missing)
    total_s = sum(s.duration_s * (s.stop_at or s.spec.training.max_steps) / s.spec.training.max_steps for s in missing)
    trials = f"{len(plan.settings)} settings, {len(plan.trials)} trials, {len(missing)} to train"
    if rungs := sorted({s.stop_at for s in missing if s.stop_at is not None}):
        trials += f" to the next rung, step {', '.join(map(str, rungs))}"
    for grid, search in plan.searches.items():
        lines.append(f"tpe in grid {grid}: {search.number} points of each arm; what is not listed follows from results")
    lines.append(f"{trials}: {replica_steps} replica-steps, very roughly {duration_text(total_s)} on one core")
    return "\n".join(lines)


RECORDED = ("pipeline", "stages", "configs", "params.yaml", "constraints.txt")
"""What of a project can change a result."""


def git_revision(paths: Paths, tree: Path = TREE) -> str | None:
    """Return the commit of the code that runs, with `-dirty` where what can change a result is not as it is there.

    That is a changed file of `RECORDED`, an untracked or ignored module or configuration, and the configuration of a
    workspace that the commit does not have.

    Args:
        paths: The project whose params.yaml and configs are trained.
        tree: Where the package stands.

    Returns:
        None without git, and where the repository that `tree` lies in does not hold its code.
    """
    try:
        _git(tree, "ls-files", "--error-unmatch", f"{PACKAGE}/__init__.py")
        revision = _git(tree, "rev-parse", "HEAD").strip()
        is_dirty = bool(_differing(tree))
    except (OSError, subprocess.SubprocessError):
        return None
    if paths.root != tree:
        try:
            is_dirty |= bool(_differing(paths.root))
        except subprocess.SubprocessError:  # a workspace in no repository: no commit has its configuration
            is_dirty = True
    return f"{revision}-dirty" if is_dirty else revision


def _differing(folder: Path) -> list[str]:
    """Return the files below a folder that can change a result and are not as the commit has them."""
    status = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored=traditional")
    entries = _git(folder, *status, "--", *RECORDED).split("\0")
    tracked = [entry for entry in entries if entry and entry[:2] not in {"??", "!!"}]
    there = [Path(entry[3:]) for entry in entries if entry[:2] in {"??", "!!"}]
    return tracked + [str(path) for path in there if path.suffix in {".py", ".so", ".yaml"} or path.name in RECORDED]


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603


def _check_complete(plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    absent = [setting for setting in plan.missing if setting.trial_id not in outcomes]
    if absent:
        raise SweepError(
            f"study {plan.study!r}: interrupted: {len(absent)} of {len(plan.trials)} settings are missing, "
            f"{title(absent[0])} among them; run again, finished ones are kept"
        )


def _check_failed(plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    failed = [s for s in plan.trials if s.trial_id in outcomes and outcomes[s.trial_id].status == "error"]
    if failed:
        first = outcomes[failed[0].trial_id]
        why = f"\n{first.traceback.rstrip()}" if first.traceback else f" {first.message}"
        raise SweepError(
            f"study {plan.study!r}: {len(failed)} of {len(plan.trials)} settings failed, the others are kept; "
            f"first {title(failed[0])} (trial {failed[0].trial_id}):{why}"
        )
