"""One sweep from plan to tables: train what the store lacks, then write the study's results.

Killed at any moment, it is run again with the same command: finished trials are kept, unfinished ones go on from
their checkpoints, and the tables come out the same to the bit.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from pipeline.config import Params, Paths, load_scale
from pipeline.core.training import run_trial
from pipeline.data import Dataset, load_dataset
from pipeline.errors import SweepError
from pipeline.results import probe_writable
from pipeline.results.store import TrialStore
from pipeline.sweep.consolidate import consolidate
from pipeline.sweep.estimate import available_memory_bytes
from pipeline.sweep.executors import Executor, cluster_address
from pipeline.sweep.plan import Plan, plan_study
from pipeline.sweep.progress import duration_text, follow, title
from pipeline.sweep.trial import Job, Outcome, Train


def run_sweep(
    paths: Paths,
    params: Params,
    study: str,
    executor: Executor,
    *,
    stream: TextIO | None = None,
    train: Train = run_trial,
) -> None:
    """Train what is missing of a study and write results/<study>/.

    Args:
        paths: Where the files are.
        params: What to run.
        study: Its name.
        executor: Who trains: `executor_named`.
        stream: Where the progress is shown; None is standard output.
        train: The training function.

    Raises:
        SweepError: If another sweep of the study runs, if settings are missing after an interrupt, or if settings
            failed; the results of all others are written then.
        StoreError: If the trial store cannot be written.
        TableError: If the results folder cannot be written. This and the store are tried before any training.
    """
    store = TrialStore.of(paths, params.trial_store)
    store.probe_writable()
    probe_writable(paths.results(study))
    revision = git_revision(paths)
    job = Job(
        store_url=store.url,
        git_revision=revision,
        device="cuda" if params.resources.gpus_per_trial > 0 else "cpu",
        num_threads=max(1, int(params.resources.cpus_per_trial)),
        max_wall_time_s=load_scale(paths, params.scale).max_wall_time_s,
        train=train,
    )

    def load(name: str, length: int | None, unseen_lengths: tuple[int, ...]) -> Dataset:
        return load_dataset(paths.dataset(name), length, unseen_lengths)

    with sweep_lock(paths.lock(study), study):
        plan = current_plan(paths, params, study, store)
        progress = follow(plan, stream or sys.stdout)
        with contextlib.closing(progress), contextlib.suppress(KeyboardInterrupt):  # Ray Tune returns normally after it
            if plan.missing:
                executor(plan.missing, job, load, progress)
        outcomes = progress.tally.outcomes
        _check_complete(plan, outcomes)
        errors = {identity: outcome.message for identity, outcome in outcomes.items() if outcome.status == "error"}
        consolidate(plan, store, paths.results(study), errors, revision)
        _check_failed(plan, outcomes)


def current_plan(paths: Paths, params: Params, study: str, store: TrialStore) -> Plan:
    """Return the plan of a study against what the store has, and against this machine's memory if it trains here.

    A stored trial that ran out of a shorter time limit than the plan's counts as missing, as a damaged one does.
    """
    trains_here = cluster_address() is None and not params.resources.gpus_per_trial
    plan = plan_study(paths, params, study, available_memory_bytes() if trains_here else None)
    ids = store.ids() & {setting.trial_id for setting in plan.trials}
    stored = {identity: store.get(identity) for identity in ids}
    limit_s = plan.max_wall_time_s
    final = {identity for identity, trial in stored.items() if trial is not None and trial.is_final(limit_s)}
    return plan.with_stored(final)


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


@contextlib.contextmanager
def sweep_lock(path: Path, study: str) -> Iterator[None]:
    """Hold the lock file while the body runs; it is free again when this process ends, however it ends.

    `kill -9` of `dvc repro` leaves its sweep running: the next `dvc repro` must not start a second one beside it.

    Args:
        path: The lock file; it stays, only the lock on it goes.
        study: For the message.

    Raises:
        SweepError: If another process holds it, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SweepError(f"{path}: the lock of study {study!r} cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(
                f"study {study!r} is being swept already by {file.read().strip() or 'another process'} (lock {path}); "
                "wait for it or end it, then run again: finished trials are kept"
            ) from None
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()} since {started}\n")
        file.flush()
        yield


def git_revision(paths: Paths) -> str | None:
    """Return the commit of the project, with `-dirty` if files differ from it; None without git."""
    command = ["git", "-C", str(paths.root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


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
        raise SweepError(
            f"study {plan.study!r}: {len(failed)} of {len(plan.trials)} settings failed, the others are kept; "
            f"first {title(failed[0])} (trial {failed[0].trial_id}):\n"
            f"{outcomes[failed[0].trial_id].traceback.rstrip()}"
        )
