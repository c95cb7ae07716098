"""The yearly number of sunspots, to be predicted one year ahead at every timestep.

    inputs   T successive values of one split, (N, T, 1), standardised: minus mean, by standard deviation of training
    targets  the same, one later: target_t = input_{t+1}, (N, T, 1)
    baseline persistence, the next value is as this one: mean (target_t - input_t)^2 over the *test* split

The splits follow each other in time, and no window reaches from one into the next. A window begins at every value, so
windows overlap and may be few. Errors are in units of the training variance. Shapes: N windows, T timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.paths import digest_of_file
from pipeline.data.dataset import SPLITS, Split, Task, make_task
from pipeline.data.generator import AtLengths, import_source, require_between
from pipeline.errors import DatasetError

FIRST_YEAR, LAST_YEAR = 1700, 2008
FILE = "datasets/sunspots/sunspots.csv"


@dataclass(frozen=True, kw_only=True)
class Sunspots(AtLengths):
    """Windows of the series from 1700 to 2008, split at two years: with a T of 20, 165 windows to train on.

    Their number does not depend on the scale. `validation_from` and `test_from` are the first years of those splits.

    Source: statsmodels' sunspots, of the National Geophysical Data Center; the sha256 of its file is recorded with the
    data.
    """

    validation_from: int
    test_from: int

    length_reason = "a window and the year after it lie within one split"

    def __post_init__(self) -> None:
        super().__post_init__()
        # two years at least in every split: one to see and one to predict
        require_between(FIRST_YEAR + 2, LAST_YEAR - 3, "validation_from", self.validation_from, "a year")
        require_between(self.validation_from + 2, LAST_YEAR - 1, "test_from", self.test_from, "a year")

    @property
    def longest_length(self) -> int:
        """One less than the shortest split: a window needs a target after its last value."""
        return int(np.diff((FIRST_YEAR, self.validation_from, self.test_from, LAST_YEAR + 1)).min()) - 1

    def path(self) -> Path:
        """Return the file in the installed statsmodels: a line of names, then year and value, with a comma between.

        Raises:
            DatasetError: If statsmodels is not installed.
        """
        source = import_source("statsmodels", "statsmodels", "dataset 'sunspots': the series comes")
        return Path(source.__file__).parent / FILE

    def values(self) -> np.ndarray:
        """Return the value of every year, (309,) float64.

        Raises:
            DatasetError: If the file is not at hand, or has other years.
        """
        path = self.path()
        years, values = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
        if not np.array_equal(years, np.arange(FIRST_YEAR, LAST_YEAR + 1)):
            message = f"expected the years {FIRST_YEAR} to {LAST_YEAR}, got {len(years)} from {years[0]:.0f}"
            raise DatasetError(f"dataset 'sunspots': {path}: {message}; install the version in constraints.txt")
        return values

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return every window of `length` values; `sizes` are of generated sequences and change nothing here."""
        parts = np.split(self.values(), np.array([self.validation_from, self.test_from]) - FIRST_YEAR)
        mean, deviation = parts[0].mean(), parts[0].std()
        windows = [cut_windows((part - mean) / deviation, length) for part in parts]
        splits = dict(zip(SPLITS, windows, strict=True))
        baseline = (persistence_loss(splits["test"]), "persistence")
        return make_task(length, inputs=("real", 1), targets=("value", "every", 1), baseline=baseline), splits

    def source(self) -> dict[str, Any]:
        """Return the version of statsmodels, and the name and sha256 of its file."""
        sha256 = digest_of_file(self.path())
        return {"statsmodels_version": metadata.version("statsmodels"), "file": FILE, "sha256": sha256}


def cut_windows(series: np.ndarray, length: int) -> Split:
    """Return every window of `length` values, in order, and the values one later: both (N, T, 1) float32."""
    windows = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), length + 1)[..., None]
    return Split(windows[:, :-1].copy(), windows[:, 1:].copy())


def persistence_loss(split: Split) -> float:
    """Return the mean squared error of answering each input with itself."""
    return float(np.mean((split.targets.astype(np.float64) - split.inputs) ** 2))
