"""The adding problem: remember two marked numbers out of T, answer with their sum.

    inputs   x_t = (u_t, m_t) with u_t ~ U(0, 1) and m_t = 1 at one timestep of each half, else 0
    target   the sum of the two marked u_t, at the last timestep
    baseline answer 1, the mean: the squared error is the variance of a sum of two U(0, 1), 1/6

Source: Hochreiter & Schmidhuber 1997, in the form of Le, Jaitly & Hinton 2015. The halves are [0, T // 2) and
[T // 2, T). Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import Dataset, Split, Task, assemble
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, require_seed_and_lengths, sample_splits

NUM_DRAWN = 3


@dataclass(frozen=True)
class Adding:
    """The adding problem; it has no parameter besides the seed."""

    generator: Literal["adding"]
    seed: int
    lengths: tuple[int, ...]

    natural_length = None
    possible_lengths = "each half needs a timestep to mark: at least 2"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)

    def allows(self, length: int) -> bool:
        """Return whether each half has a timestep."""
        return length >= 2

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return the adding problem over `length` timesteps."""
        check_length(self.generator, self, length)
        task = Task(length, "real", 2, "value", "last", 1, baseline_loss=1 / 6, baseline_name="predict 1")
        splits = sample_splits(self.seed, length, sizes, partial(sample, num_timesteps=length))
        return assemble(self.generator, task, splits)

    def draw(self, dataset: Dataset) -> str:
        """Return values with their markers underneath, and the target."""
        train = dataset.splits["train"]
        drawn = []
        for (values, markers), target in zip(train.inputs[:NUM_DRAWN].swapaxes(1, 2), train.targets, strict=False):
            rows = {"value": [f"{u:.2f}" for u in values], "marker": ["^^^^" if m else "" for m in markers]}
            drawn.append(f"{draw_rows(rows)}\ntarget {target[0]:.2f}")
        return "\n\n".join(drawn)

    def source(self) -> dict[str, Any]:
        """Return nothing: every number is drawn."""
        return {}


def sample(rng: np.random.Generator, num: int, *, num_timesteps: int) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        num_timesteps: T, at least 2.

    Returns:
        Inputs (N, T, 2) float32, value before marker, and targets (N, 1) float32 in (0, 2).
    """
    half, rows = num_timesteps // 2, np.arange(num)
    first, second = rng.integers(0, half, num), rng.integers(half, num_timesteps, num)
    inputs = np.zeros((num, num_timesteps, 2), dtype=np.float32)
    inputs[:, :, 0] = rng.random((num, num_timesteps), dtype=np.float32)
    inputs[rows, first, 1] = inputs[rows, second, 1] = 1
    targets = inputs[rows, first, 0] + inputs[rows, second, 0]
    return Split(inputs, targets[:, None])
