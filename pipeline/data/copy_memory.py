"""Copy memory: see ten symbols, wait for T timesteps, then say them in order.

`length` is the **delay T of the paper, not the number of timesteps**: a sequence has T + 20 of them (with K = 10
symbols to copy; T + 2K in general).

    inputs   K symbols of 1..S | T - 1 blanks (0) | a marker (S + 1) | K blanks
    targets  T + K blanks | the K symbols of the beginning; the loss is the mean over all timesteps
    baseline blanks until the marker, then any symbol alike: K ln S / (T + 2K)

Source: Arjovsky, Shah & Bengio 2016, section 5.1, with S = 8 and K = 10 (other papers differ by a few blanks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, assemble
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, require_seed_and_lengths, sample_splits

BLANK = 0
NUM_DRAWN = 3


@dataclass(frozen=True)
class CopyMemory:
    """Copy memory with S = `num_symbols` different symbols, of which K = `num_copied` are to be kept."""

    generator: Literal["copy_memory"]
    seed: int
    lengths: tuple[int, ...]
    num_symbols: int
    num_copied: int

    natural_length = None
    possible_lengths = "the length is the delay before the copy, which includes the marker: at least 1"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        require(2 <= self.num_symbols <= 254, "num_symbols", "an integer from 2 to 254", self.num_symbols)
        require(self.num_copied >= 1, "num_copied", "an integer of at least 1", self.num_copied)

    def allows(self, length: int) -> bool:
        """Return whether the delay has room for the marker."""
        return length >= 1

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return copy memory with a delay of `length`, that is, of `length + 2 * num_copied` timesteps."""
        check_length(self.generator, self, length)
        baseline = self.num_copied * math.log(self.num_symbols) / (length + 2 * self.num_copied)
        inputs, outputs = self.num_symbols + 2, self.num_symbols + 1
        task = Task(length, "token", inputs, "class", "every", outputs, baseline, baseline_name="memoryless")
        draw = partial(sample, delay=length, num_symbols=self.num_symbols, num_copied=self.num_copied)
        return assemble(self.generator, task, sample_splits(self.seed, length, sizes, draw))

    def draw(self, dataset: Dataset) -> str:
        """Return inputs above targets; blanks are dots, the marker is a hash."""
        marks = {BLANK: ".", self.num_symbols + 1: "#"}
        train = dataset.splits["train"]
        pairs = zip(train.inputs[:NUM_DRAWN].tolist(), train.targets[:NUM_DRAWN].tolist(), strict=True)
        drawn = []
        for sequences in pairs:
            cells = ([marks.get(symbol, str(symbol)) for symbol in sequence] for sequence in sequences)
            drawn.append(draw_rows(dict(zip(("input", "target"), cells, strict=True))))
        return "\n\n".join(drawn)

    def source(self) -> dict[str, Any]:
        """Return nothing: every symbol is drawn."""
        return {}


def sample(rng: np.random.Generator, num: int, *, delay: int, num_symbols: int, num_copied: int) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        delay: T, at least 1.
        num_symbols: S, different symbols to copy.
        num_copied: K, symbols to copy in a sequence.

    Returns:
        Inputs (N, T + 2K) uint8 in 0..S+1 and targets (N, T + 2K) uint8 in 0..S.
    """
    copied = rng.integers(1, num_symbols + 1, (num, num_copied), dtype=np.uint8)
    inputs = np.full((num, delay + 2 * num_copied), BLANK, dtype=np.uint8)
    targets = inputs.copy()
    inputs[:, :num_copied] = targets[:, -num_copied:] = copied
    inputs[:, num_copied + delay - 1] = num_symbols + 1
    return Split(inputs, targets)
