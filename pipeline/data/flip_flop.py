"""Flip-flop: keep the symbol that was last written, through anything to be ignored, until it is asked for.

Every token is one instruction: with probability p_w write a symbol, with p_r read, else ignore a symbol.

    inputs   write s = 0..S-1, ignore s = S..2S-1, read = 2S; s is drawn alike from S symbols
             the first instruction is a write and the last a read
    targets  at a read, the symbol last written; elsewhere "nothing", class S
    baseline where nothing is read, nothing; at a read, any symbol alike: (1 + (T - 2) p_r) / T ln S

The time from a read back to its write is geometric, with a mean near 1/p_w; a gated cell solves the task by closing its
input gate and holding its forget gate at 1 until the next write. A perfect memory has no loss.

Source: Liu, Ash, Goel, Krishnamurthy & Zhang 2023, whose FFL(0.8) has p_w = p_r = 0.1 over 256 instructions. There, an
instruction and its bit are two tokens of a text to be continued, and there are two symbols; here they are one token
with a target of its own, S symbols, and p_w and p_r apart. Shapes: N sequences, T timesteps.
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

LETTERS = string.ascii_uppercase
NUM_DRAWN = 3


@dataclass(frozen=True)
class FlipFlop:
    """A memory cell for one of `num_symbols` symbols, written and read with the probabilities of a timestep."""

    generator: Literal["flip_flop"]
    seed: int
    lengths: tuple[int, ...]
    num_symbols: int
    write_probability: float
    read_probability: float

    natural_length = None
    possible_lengths = "the first instruction is a write and the last a read: at least 2"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        fits = 2 <= self.num_symbols <= len(LETTERS)
        require(fits, "num_symbols", f"an integer from 2 to {len(LETTERS)}", self.num_symbols)
        write, read = self.write_probability, self.read_probability
        require(0 < write < 1, "write_probability", "a probability between 0 and 1", write)
        require(0 < read < 1, "read_probability", "a probability between 0 and 1", read)
        require(write + read <= 1, "read_probability", f"at most 1 - write_probability = {1 - write}", read)

    def allows(self, length: int) -> bool:
        """Return whether there is room for a write and a read."""
        return length >= 2

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return sequences of `length` instructions."""
        check_length(self.generator, self, length)
        num = self.num_symbols
        task = Task(
            length,
            input_kind="token",
            input_size=2 * num + 1,
            target_kind="class",
            target_at="every",
            output_size=num + 1,
            baseline_loss=memoryless_loss(length, num, self.read_probability),
            baseline_name="memoryless",
            token_groups={"write": tuple(range(num)), "ignore": tuple(range(num, 2 * num)), "read": (2 * num,)},
        )
        draw = partial(
            sample,
            num_timesteps=length,
            num_symbols=num,
            write_probability=self.write_probability,
            read_probability=self.read_probability,
        )
        return assemble(self.generator, task, sample_splits(self.seed, length, sizes, draw))

    def draw(self, dataset: Dataset) -> str:
        """Return what is written in capitals, what is ignored in small letters, reads as ?, nothing as a dot."""
        instructions = LETTERS[: self.num_symbols] + LETTERS[: self.num_symbols].lower() + "?"
        answers = LETTERS[: self.num_symbols] + "."
        train = dataset.splits["train"]
        pairs = zip(train.inputs[:NUM_DRAWN].tolist(), train.targets[:NUM_DRAWN].tolist(), strict=True)
        return "\n\n".join(
            draw_rows({"input": [instructions[i] for i in inputs], "target": [answers[i] for i in targets]})
            for inputs, targets in pairs
        )

    def source(self) -> dict[str, Any]:
        """Return nothing: every instruction is drawn."""
        return {}


def sample(
    rng: np.random.Generator,
    num: int,
    *,
    num_timesteps: int,
    num_symbols: int,
    write_probability: float,
    read_probability: float,
) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        num_timesteps: T, at least 2.
        num_symbols: S, different symbols.
        write_probability: p_w, of every timestep but the first and the last.
        read_probability: p_r, likewise; p_w + p_r is at most 1.

    Returns:
        Inputs (N, T) uint8 in 0..2S and targets (N, T) uint8 in 0..S.
    """
    shape = (num, num_timesteps)
    symbols = rng.integers(0, num_symbols, shape, dtype=np.uint8)
    uniform = rng.random(shape)
    writes, reads = uniform < write_probability, uniform >= 1 - read_probability
    writes[:, 0], reads[:, 0] = True, False
    writes[:, -1], reads[:, -1] = False, True
    inputs = np.where(writes, symbols, symbols + np.uint8(num_symbols))
    inputs[reads] = 2 * num_symbols
    last_write = np.maximum.accumulate(np.where(writes, np.arange(num_timesteps), 0), axis=1)
    targets = np.where(reads, np.take_along_axis(symbols, last_write, axis=1), np.uint8(num_symbols))
    return Split(inputs, targets)


def memoryless_loss(length: int, num_symbols: int, read_probability: float) -> float:
    """Return the loss, in nats per timestep, of the best answer to the present instruction alone."""
    num_reads = 1 + (length - 2) * read_probability
    return num_reads / length * math.log(num_symbols)
