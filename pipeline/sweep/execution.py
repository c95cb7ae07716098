"""What an executor is: something that trains settings and tells a watcher when each starts and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.data import Dataset
from pipeline.sweep.plan import Setting
from pipeline.sweep.trial import Job, Outcome

LoadData = Callable[[str, int | None, tuple[int, ...]], Dataset]
"""From a dataset's name, length and unseen lengths to its arrays."""


class Watch(Protocol):
    """Whoever wants to know how a sweep goes."""

    def started(self, setting: Setting) -> None:
        """Note that a setting trains from now on; said again when a lost worker's setting starts anew."""

    def finished(self, setting: Setting, outcome: Outcome) -> None:
        """Note how a setting ended."""


Executor = Callable[[Sequence[Setting], Job, LoadData, Watch], None]
"""Trains what it is given; returns normally also when interrupted, with settings that never finished."""


def variant_of(setting: Setting) -> tuple[str, int | None, tuple[int, ...]]:
    """Return name and length of the data that a setting trains on, and the unseen lengths that it is tested at."""
    dataset = setting.spec.dataset
    return dataset.name, dataset.length, dataset.unseen_lengths
