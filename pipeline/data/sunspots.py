"""Sunspots: the yearly number of sunspots from 1700 to 2008, to predict one year ahead at every timestep.

    inputs   T successive years of one split, (N, T, 1), standardised: minus mean, by standard deviation of training
    targets  the same, a year later: target_t = input_{t+1}, (N, T, 1)
    baseline persistence, next year is as this one: mean (target_t - input_t)^2 over the *test* split

The splits follow each other in time, and no window reaches from one into the next. A window begins at every year, so
windows overlap, and they are few: with a T of 20, 165 to train on. Errors are in units of the training variance.

Source: statsmodels' sunspots, of the National Geophysical Data Center; the sha256 of its file is recorded with the
data. Shapes: N windows, T timesteps.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, assemble
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, require_seed_and_lengths
from pipeline.errors import DatasetError

FIRST_YEAR, LAST_YEAR = 1700, 2008
FILE = Path("datasets") / "sunspots" / "sunspots.csv"
NUM_DRAWN = 3


@dataclass(frozen=True)
class Sunspots:
    """Windows of the series, split at two years. Their number does not depend on the scale."""

    generator: Literal["sunspots"]
    lengths: tuple[int, ...]
    validation_from: int
    test_from: int

    seed = 0  # nothing is drawn
    natural_length = None

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        # two years at least in every split: one to see and one to predict
        start, stop = FIRST_YEAR + 2, LAST_YEAR - 3
        expected = f"a year from {start} to {stop}"
        require(start <= self.validation_from <= stop, "validation_from", expected, self.validation_from)
        start, stop = self.validation_from + 2, LAST_YEAR - 1
        require(start <= self.test_from <= stop, "test_from", f"a year from {start} to {stop}", self.test_from)

    @property
    def possible_lengths(self) -> str:
        """Which lengths the splits allow, in words."""
        return f"a window and the year after it lie within one split: from 1 to {self._longest()}"

    def allows(self, length: int) -> bool:
        """Return whether every split has room for a window and the year after it."""
        return 1 <= length <= self._longest()

    def _longest(self) -> int:
        return min(map(len, self._years().values())) - 1

    def _years(self) -> dict[str, range]:
        starts = (FIRST_YEAR, self.validation_from, self.test_from, LAST_YEAR + 1)
        return {split: range(starts[i], starts[i + 1]) for i, split in enumerate(SPLITS)}

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return every window of `length` years; `sizes` are of generated sequences and change nothing here."""
        check_length(self.generator, self, length)
        series = load_series()
        parts = {split: series[years.start - FIRST_YEAR :][: len(years)] for split, years in self._years().items()}
        mean, deviation = parts["train"].mean(), parts["train"].std()
        splits = {split: cut_windows((part - mean) / deviation, length) for split, part in parts.items()}
        task = Task(length, "real", 1, "value", "every", 1, persistence_loss(splits["test"]), "persistence")
        return assemble(self.generator, task, splits)

    def draw(self, dataset: Dataset) -> str:
        """Return windows as standardised numbers, inputs above targets."""
        train = dataset.splits["train"]
        pairs = zip(train.inputs[:NUM_DRAWN, :, 0], train.targets[:NUM_DRAWN, :, 0], strict=True)
        return "\n\n".join(
            draw_rows({"input": [f"{x:.2f}" for x in inputs], "target": [f"{x:.2f}" for x in targets]})
            for inputs, targets in pairs
        )

    def source(self) -> dict[str, Any]:
        """Return the version of statsmodels, and the name and sha256 of its file."""
        sha256 = hashlib.sha256(_series_path().read_bytes()).hexdigest()
        return {
            "statsmodels_version": importlib.metadata.version("statsmodels"),
            "file": FILE.as_posix(),
            "sha256": sha256,
        }


def load_series() -> np.ndarray:
    """Return the number of sunspots of each year, (309,) float64, from `FIRST_YEAR` to `LAST_YEAR`.

    Raises:
        DatasetError: If statsmodels, which brings the series, is not installed or brings another one.
    """
    path = _series_path()
    years, sunspots = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
    if not np.array_equal(years, np.arange(FIRST_YEAR, LAST_YEAR + 1)):
        message = f"expected the years {FIRST_YEAR} to {LAST_YEAR}, got {len(years)} from {years[0]:.0f}"
        raise DatasetError(f"dataset 'sunspots': {path}: {message}; install the version in constraints.txt")
    return sunspots


def cut_windows(series: np.ndarray, length: int) -> Split:
    """Return every window of `length` values, in order, and the values one later: both (N, T, 1) float32."""
    windows = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), length + 1)[..., None]
    return Split(windows[:, :-1].copy(), windows[:, 1:].copy())


def persistence_loss(split: Split) -> float:
    """Return the mean squared error of answering each input with itself."""
    return float(np.mean((split.targets.astype(np.float64) - split.inputs) ** 2))


def _series_path() -> Path:
    found = importlib.util.find_spec("statsmodels")
    if found is None or found.origin is None:
        message = "dataset 'sunspots': the series comes with statsmodels, which is not installed"
        raise DatasetError(f"{message}; pip install statsmodels")
    return Path(found.origin).parent / FILE
