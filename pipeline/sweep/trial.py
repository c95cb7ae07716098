"""What a worker does with one setting: train it, put it into the store, say in a few words how it went.

The same function runs in this process and in a Ray worker. An exception is caught and returned as data, so that one
bad setting costs neither the worker nor its neighbours.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.config.strict import plain
from pipeline.core.identity import TREE, code_digest
from pipeline.core.training import ALONE, CheckpointError, MemorySink, Program, TrialResult, run_trial
from pipeline.core.training.pack import train_pack
from pipeline.core.training.rows import Column
from pipeline.data import Dataset
from pipeline.errors import DatasetError, PipelineError, StoreError, SweepError
from pipeline.results import RESUMABLE
from pipeline.results.frames import long_frames, trials_frame
from pipeline.results.store import CheckpointSlot, StoredTrial, TrialStore
from pipeline.sweep.estimate import Pack
from pipeline.sweep.plan import Setting
from pipeline.sweep.workers import Signs, seen

_log = logging.getLogger(__name__)


Train = Callable[..., TrialResult]
"""`run_trial` or a stand-in with its signature; must be importable by the workers."""


@dataclass(frozen=True)
class Job:
    """What every trial of a sweep has in common; travels to the workers."""

    store_url: str = field(repr=False)  # may hold a key
    git_revision: str | None
    device: str
    num_threads: int
    max_wall_time_s: float
    keeps_weights: bool = False
    train: Train = run_trial


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one trial went, in a few words; its tables are in the store unless `status` is `error`."""

    trial_id: str
    status: str
    message: str = ""
    traceback: str = ""
    validation_loss: float | None = None
    wall_time_s: float


def train_packed(job: Job, pack: Pack, dataset: Dataset, ended: Callable[[Setting, Outcome], None]) -> None:
    """Train the settings of a pack as one program, and store each as it ends.

    Args:
        job: What all trials share.
        pack: What to train; what the store has by now is not trained again.
        dataset: Their data.
        ended: Told how each ended, as soon as it did.
    """
    store, missing = TrialStore(job.store_url), list[Setting]()
    for setting in pack:
        if (outcome := _outcome_there(job, setting, store)) is None:
            missing.append(setting)
        else:
            ended(setting, outcome)
    with seen(store, missing) as signs:
        if len(missing) == 1:
            ended(missing[0], train_setting(job, missing[0], dataset, signs=signs))
        elif missing:

            def work(index: int, program: Program) -> None:
                ended(missing[index], train_setting(job, missing[index], dataset, program, signs))

            train_pack([setting.spec for setting in missing], work, num_threads=job.num_threads)


def _outcome_there(job: Job, setting: Setting, store: TrialStore) -> Outcome | None:
    """Return how a setting went that is stored as far as is asked: another study's driver may have trained it since."""
    stored = store.get(setting.trial_id)
    is_final = stored is not None and stored.summary.is_final(job.max_wall_time_s, setting.stop_at)
    return outcome_of(stored) if stored is not None and is_final else None


def outcome_of(stored: StoredTrial) -> Outcome:
    """Return how a trial that is stored went."""
    result = TrialResult(stored.tables["trials"].to_dicts())
    wall_time_s = max(row["wall_time_s"] or 0.0 for row in result.rows)
    return Outcome(
        trial_id=stored.trial_id,
        status=str(result.status),
        validation_loss=_median_loss(result),
        wall_time_s=wall_time_s,
    )


def train_setting(
    job: Job, setting: Setting, dataset: Dataset, program: Program = ALONE, signs: Signs | None = None
) -> Outcome:
    """Train one setting, from its checkpoint if it has one, and store it.

    Args:
        job: What all trials share.
        setting: What to train.
        dataset: Its data.
        program: What it is part of, if other settings are trained beside it.
        signs: Where its progress is noted, if anybody looks.

    Returns:
        The outcome; an exception becomes one with status `error`, and leaves no object in the store.
    """
    started = time.perf_counter()
    try:
        found = _train_and_store(job, setting, dataset, program, signs or Signs())
    except PipelineError as error:  # its message says all, of a full disk for instance
        found = {"status": "error", "message": f"{type(error).__name__}: {error}"}
    except Exception as error:  # noqa: BLE001 - whatever it is, the sweep reports it and goes on
        trace = "".join(traceback.format_exception(error))
        found = {"status": "error", "message": f"{type(error).__name__}: {error}", "traceback": trace}
    return Outcome(trial_id=setting.trial_id, wall_time_s=time.perf_counter() - started, **found)


def _train_and_store(job: Job, setting: Setting, dataset: Dataset, program: Program, signs: Signs) -> dict[str, Any]:
    """Return status and validation loss of the outcome.

    Raises:
        DatasetError: If the data are not those of the plan.
        SweepError: If the code that this process imported is not that of the plan.
    """
    if dataset.digest != setting.dataset_digest:
        raise DatasetError(f"dataset {dataset.name!r} changed after the sweep was planned; run the sweep again")
    if (code := code_digest(setting.spec)) != setting.code_digest:
        raise SweepError(
            f"the code of this worker is not the code that was planned (digest {code}, expected {setting.code_digest}; "
            f"{TREE}): it was edited meanwhile, or the worker has another copy; run the sweep again"
        )
    store = TrialStore(job.store_url)
    checkpoint = store.checkpoint(setting.trial_id)
    try:
        result, stored = _train(job, setting, dataset, checkpoint, program, signs)
    except CheckpointError as error:
        first = str(error).partition("\n")[0].partition(". ")[0]  # torch goes on, and advises to unpickle it
        _log.warning("trial %s: %s; it starts anew", setting.trial_id, first)
        checkpoint.clear()
        result, stored = _train(job, setting, dataset, checkpoint, program, signs)
    except Exception as error:
        if not checkpoint.is_taken_up or isinstance(error, _OF_THE_MACHINE):
            raise
        checkpoint.quarantine(f"{type(error).__name__}: {error}")
        result, stored = _train(job, setting, dataset, checkpoint, program, signs)
    if (there := _outcome_there(job, setting, store)) is not None:  # trained elsewhere meanwhile, maybe further
        checkpoint.clear()
        return {"status": there.status, "validation_loss": there.validation_loss}
    if job.keeps_weights:
        weights = {name: tensor.numpy() for name, tensor in result.weights.items()}
        store.put_weights(setting.trial_id, weights, stored.spec)  # first: who sees the trial finds them
    store.put(stored)
    if not {*stored.summary.statuses} & {*RESUMABLE}:  # else it goes on from there, given more time or steps
        checkpoint.clear()
    return {"status": str(result.status), "validation_loss": _median_loss(result)}


_OF_THE_MACHINE = (DatasetError, StoreError, MemoryError, OSError, torch.OutOfMemoryError)
"""Failures that no checkpoint brings about, however soon after one was taken up."""


class _Sink(MemorySink):
    """Keeps the rows of a trial, and notes each write as a sign of progress."""

    def __init__(self, signs: Signs) -> None:
        super().__init__()
        self._signs = signs

    def write(self, table: str, columns: Mapping[str, Column]) -> None:
        """Append rows to `table`."""
        super().write(table, columns)
        self._signs.note()


def _train(
    job: Job, setting: Setting, dataset: Dataset, checkpoint: CheckpointSlot, program: Program, signs: Signs
) -> tuple[TrialResult, StoredTrial]:
    """Return how a trial went, and as it is to be stored, its tables checked."""
    sink = _Sink(signs)
    result = job.train(
        setting.spec,
        dataset,
        sink,
        checkpoints=checkpoint,
        device=job.device,
        num_threads=job.num_threads,
        max_wall_time_s=job.max_wall_time_s,
        stop_at=setting.stop_at,
        program=program,
    )
    stored = stored_trial(setting, result, sink.tables(), job)
    stored.summary.check()
    return result, stored


def stored_trial(setting: Setting, result: TrialResult, tables: dict[str, Any], job: Job) -> StoredTrial:
    """Return the finished trial with its frames as the schemas declare them."""
    identity, digest, code = setting.trial_id, setting.dataset_digest, setting.code_digest
    facts = {
        "hostname": socket.gethostname(),
        "git_revision": job.git_revision,
        "max_wall_time_s": job.max_wall_time_s,
        "stop_at": setting.stop_at,
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
    }
    frames = long_frames(tables, identity)
    frames["trials"] = trials_frame(
        result.rows, setting.spec, trial_id=identity, dataset_digest=digest, code_digest=code, facts=facts
    )
    return StoredTrial(
        trial_id=identity,
        spec=plain(setting.spec),
        dataset_digest=digest,
        code_digest=code,
        facts=facts,
        tables=frames,
    )


def _median_loss(result: TrialResult) -> float | None:
    losses = [row.get("best_validation_loss") for row in result.rows]
    finite = [loss for loss in losses if isinstance(loss, float) and math.isfinite(loss)]
    return statistics.median(finite) if finite else None
