"""A series of numbers, to be predicted one step ahead at every timestep; and the sunspots, which are one.

    inputs   T successive values of one split, (N, T, 1), standardised: minus mean, by standard deviation of training
    targets  the same, one later: target_t = input_{t+1}, (N, T, 1)
    baseline persistence, the next value is as this one: mean (target_t - input_t)^2 over the *test* split

The splits follow each other in time, and no window reaches from one into the next. A window begins at every value, so
windows overlap and may be few. Errors are in units of the training variance. Shapes: N windows, T timesteps.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Split, Task, make_task
from pipeline.data.generator import Generator, require_different_lengths
from pipeline.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Series(Generator):
    """Windows of a series in a file, split at two times. Their number does not depend on the scale.

    The file has a line of names, then a line for each time: the time and the value, with a comma between.

    Attributes:
        lengths: T, each prepared even if no study asks for it.
        validation_from: The first time of the validation split.
        test_from: The first time of the test split.
        first: The first time of the series.
        last: Its last time; the times between are whole numbers.
        unit: What a time is called.
        advice: What to do about a file of other times.
    """

    lengths: tuple[int, ...]
    validation_from: int
    test_from: int

    length_reason = "a window and the {self.unit} after it lie within one split"

    first: ClassVar[int]
    last: ClassVar[int]
    unit: ClassVar[str]
    advice: ClassVar[str]

    def __post_init__(self) -> None:
        require_different_lengths(self.lengths)
        # two times at least in every split: one to see and one to predict
        start, stop = self.first + 2, self.last - 3
        expected = f"a {self.unit} from {start} to {stop}"
        require(start <= self.validation_from <= stop, "validation_from", expected, self.validation_from)
        start, stop = self.validation_from + 2, self.last - 1
        require(start <= self.test_from <= stop, "test_from", f"a {self.unit} from {start} to {stop}", self.test_from)

    @abstractmethod
    def path(self) -> Path:
        """Return the series' file."""

    @property
    def listed_lengths(self) -> tuple[int, ...]:
        """The lengths of the dataset's file."""
        return self.lengths

    @property
    def longest_length(self) -> int:
        """One less than the shortest split: a window needs a target after its last value."""
        starts = (self.first, self.validation_from, self.test_from, self.last + 1)
        return int(np.diff(starts).min()) - 1

    def values(self) -> np.ndarray:
        """Return the value of every time from `first` to `last`, (last - first + 1,) float64.

        Raises:
            DatasetError: If the file is not at hand, or has other times.
        """
        path = self.path()
        times, values = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
        if not np.array_equal(times, np.arange(self.first, self.last + 1)):
            expected = f"expected the {self.unit}s {self.first} to {self.last}"
            message = f"{expected}, got {len(times)} from {times[0]:.0f}; {self.advice}"
            raise DatasetError(f"dataset {self.key()!r}: {path}: {message}")
        return values

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return every window of `length` values; `sizes` are of generated sequences and change nothing here."""
        parts = np.split(self.values(), np.array([self.validation_from, self.test_from]) - self.first)
        mean, deviation = parts[0].mean(), parts[0].std()
        windows = [cut_windows((part - mean) / deviation, length) for part in parts]
        splits = dict(zip(SPLITS, windows, strict=True))
        task = make_task(
            length,
            inputs=("real", 1),
            targets=("value", "every", 1),
            baseline=(persistence_loss(splits["test"]), "persistence"),
        )
        return task, splits

    def source(self) -> dict[str, Any]:
        """Return the series' file and its sha256."""
        return {"file": str(self.path()), "sha256": hashlib.sha256(self.path().read_bytes()).hexdigest()}


@dataclass(frozen=True, kw_only=True)
class Sunspots(Series):
    """The yearly number of sunspots from 1700 to 2008: with a T of 20, 165 windows to train on.

    Source: statsmodels' sunspots, of the National Geophysical Data Center; the sha256 of its file is recorded with the
    data.
    """

    first, last, unit = 1700, 2008, "year"
    advice = "install the version in constraints.txt"
    file = "datasets/sunspots/sunspots.csv"

    def path(self) -> Path:
        """Return the file in the installed statsmodels.

        Raises:
            DatasetError: If statsmodels is not installed.
        """
        found = importlib.util.find_spec("statsmodels")
        if found is None or found.origin is None:
            message = "dataset 'sunspots': the series comes with statsmodels, which is not installed"
            raise DatasetError(f"{message}; pip install statsmodels")
        return Path(found.origin).parent / self.file

    def source(self) -> dict[str, Any]:
        """Return the version of statsmodels, and the name and sha256 of its file."""
        version = importlib.metadata.version("statsmodels")
        return {"statsmodels_version": version, **super().source(), "file": self.file}


def cut_windows(series: np.ndarray, length: int) -> Split:
    """Return every window of `length` values, in order, and the values one later: both (N, T, 1) float32."""
    windows = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), length + 1)[..., None]
    return Split(windows[:, :-1].copy(), windows[:, 1:].copy())


def persistence_loss(split: Split) -> float:
    """Return the mean squared error of answering each input with itself."""
    return float(np.mean((split.targets.astype(np.float64) - split.inputs) ** 2))
