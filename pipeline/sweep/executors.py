"""Who trains: in this process, or on Ray; what both are given, and how `auto` chooses.

An executor is a function that trains settings and notifies a watcher when each starts and ends. It may return with
settings that never finished: what is finished is decided by the trial store alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from pipeline.config import Params
from pipeline.core.training.spec import DatasetRef
from pipeline.data import Dataset
from pipeline.errors import SweepError
from pipeline.sweep.estimate import available_memory_bytes, packs_of
from pipeline.sweep.plan import Setting
from pipeline.sweep.trial import Job, Outcome, train_packed

SHORT_S = 5.0
"""On one core, roughly: what takes less is done before Ray has started."""

LoadData = Callable[[DatasetRef], Dataset]
"""From what a spec says of its data to their arrays."""


class Watch(Protocol):
    """Whoever wants to know how a sweep goes."""

    def started(self, setting: Setting) -> None:
        """Note that a setting trains from now on; again when the setting of a lost worker starts anew."""

    def lost(self, setting: Setting, why: str = "") -> None:
        """Note that the worker of a setting was lost, and why if that is known; it starts anew when there is room."""

    def finished(self, setting: Setting, outcome: Outcome) -> None:
        """Note how a setting ended."""


Executor = Callable[[Sequence[Setting], Job, LoadData, Watch], None]


def cluster_address() -> str | None:
    """Return the cluster that RAY_ADDRESS names; None where there is none, or it is `local`: Ray's word for here."""
    address = os.environ.get("RAY_ADDRESS")
    return None if address in {None, "", "local"} else address


def check_share(key: str, kind: str, asked: float, available: float) -> None:
    """Check that this machine has what one trial asks of it.

    Args:
        key: Of `resources` in params.yaml.
        kind: What it counts: CPU or GPU.
        asked: How many.
        available: How many there are.

    Raises:
        SweepError: If it has not.
    """
    if asked > available:
        expected = f"expected at most {available:g}, the {kind}s of this machine; got {asked:g}"
        raise SweepError(f"params.yaml: resources.{key}: {expected}")


def executor_named(name: str, params: Params) -> Executor:
    """Return `inline`, which trains in this process, `ray`, here or on RAY_ADDRESS, or `auto`.

    `auto` is Ray, except for a handful of settings that would be done before Ray has started.

    Raises:
        SweepError: If `inline` is to use a GPU that is not there, or more CPUs than there are.
    """
    if name == "auto":
        return functools.partial(_train_where_it_pays, params)
    if name == "inline":
        if params.resources.uses_gpus and not torch.cuda.is_available():
            raise SweepError(
                "params.yaml: resources.gpus_per_trial: expected 0, this machine has no GPU that torch can use; "
                f"got {params.resources.gpus_per_trial}"
            )
        check_share("cpus_per_trial", "CPU", params.resources.cpus_per_trial, os.cpu_count() or 1)
        return functools.partial(train_inline, params.resources.settings_per_program)
    from pipeline.sweep.executor_ray import RayExecutor

    return RayExecutor(params.resources, cluster_address())


def train_inline(largest: int, settings: Sequence[Setting], job: Job, load: LoadData, watch: Watch) -> None:
    """Train `settings` in this process, at most `largest` at a time; holds one dataset at a time."""
    held, dataset = None, None
    for pack in packs_of(settings, largest, 1, available_memory_bytes()):
        for setting in pack:
            watch.started(setting)
        if dataset is None or pack[0].spec.dataset != held:
            held, dataset = pack[0].spec.dataset, load(pack[0].spec.dataset)
        train_packed(job, pack, dataset, watch.finished)


def _train_where_it_pays(params: Params, settings: Sequence[Setting], job: Job, load: LoadData, watch: Watch) -> None:
    elsewhere = cluster_address() is not None or params.resources.uses_gpus
    short = sum(setting.duration_s for setting in settings) < SHORT_S
    name = "inline" if short and not elsewhere else "ray"
    executor_named(name, params)(settings, job, load, watch)
