"""Temporal order: which of two symbols came first, which second, among distractors.

    inputs   distractors 2, 3, ... drawn alike, but v0 at p0 and v1 at p1 with v0, v1 drawn from {A = 0, B = 1}
             p0 = floor(.1 T) + randint(floor(.1 T)),  p1 = floor(.5 T) + randint(floor(.1 T))
    target   v0 + 2 v1, one of four classes, at the last timestep
    baseline chance, ln 4 nats

Source: Pascanu, Mikolov & Bengio 2013, with the 4 distractors and the positions of the authors' code.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, assemble
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, require_seed_and_lengths, sample_splits

FIRST_DISTRACTOR = 2
LETTERS = "AB" + string.ascii_lowercase[2:]
ANSWERS = ("A then A", "B then A", "A then B", "B then B")
NUM_DRAWN = 4


@dataclass(frozen=True)
class TemporalOrder:
    """Temporal order among `num_distractors` different distractors."""

    generator: Literal["temporal_order"]
    seed: int
    lengths: tuple[int, ...]
    num_distractors: int

    natural_length = None
    possible_lengths = "the two symbols lie in windows of a tenth of the sequence: at least 10"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        most = len(LETTERS) - FIRST_DISTRACTOR
        fits = 1 <= self.num_distractors <= most
        require(fits, "num_distractors", f"an integer from 1 to {most}", self.num_distractors)

    def allows(self, length: int) -> bool:
        """Return whether a tenth of the sequence is at least one timestep."""
        return length >= 10

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return temporal order over `length` timesteps."""
        check_length(self.generator, self, length)
        num_symbols = FIRST_DISTRACTOR + self.num_distractors
        task = Task(length, "token", num_symbols, "class", "last", 4, math.log(4), baseline_name="chance")
        draw = partial(sample, num_timesteps=length, num_distractors=self.num_distractors)
        return assemble(self.generator, task, sample_splits(self.seed, length, sizes, draw))

    def draw(self, dataset: Dataset) -> str:
        """Return the symbols as letters, distractors in lower case, and what is to be answered."""
        train = dataset.splits["train"]
        pairs = zip(train.inputs[:NUM_DRAWN].tolist(), train.targets[:NUM_DRAWN].tolist(), strict=True)
        return "\n\n".join(
            f"{draw_rows({'input': [LETTERS[symbol] for symbol in inputs]})}\ntarget {target}: {ANSWERS[target]}"
            for inputs, target in pairs
        )

    def source(self) -> dict[str, Any]:
        """Return nothing: every symbol is drawn."""
        return {}


def sample(rng: np.random.Generator, num: int, *, num_timesteps: int, num_distractors: int) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        num_timesteps: T, at least 10.
        num_distractors: Different symbols that say nothing.

    Returns:
        Inputs (N, T) uint8 in 0..num_distractors+1 and targets (N,) uint8 in 0..3.
    """
    window, rows = num_timesteps // 10, np.arange(num)
    beyond = FIRST_DISTRACTOR + num_distractors
    inputs = rng.integers(FIRST_DISTRACTOR, beyond, (num, num_timesteps), dtype=np.uint8)
    first, second = rng.integers(0, 2, (2, num), dtype=np.uint8)
    inputs[rows, window + rng.integers(0, window, num)] = first
    inputs[rows, num_timesteps // 2 + rng.integers(0, window, num)] = second
    return Split(inputs, first + 2 * second)
