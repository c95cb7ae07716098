"""Four tasks that only a memory solves: what counts lies far back, and the rest says nothing.

Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, make_task
from pipeline.data.generator import Sampled, draw_rows, require_between

LETTERS = string.ascii_uppercase


@dataclass(frozen=True, kw_only=True)
class Adding(Sampled):
    """The adding problem: remember two marked numbers out of T, answer with their sum.

        inputs   x_t = (u_t, m_t) with u_t ~ U(0, 1) and m_t = 1 at one timestep of each half, else 0
        target   the sum of the two marked u_t, at the last timestep
        baseline answer 1, the mean: the squared error is the variance of a sum of two U(0, 1), 1/6

    Source: Hochreiter & Schmidhuber 1997, in the form of Le, Jaitly & Hinton 2015. The halves are [0, T // 2) and
    [T // 2, T).
    """

    shortest_length, length_reason = 2, "each half needs a timestep to mark"

    def task(self, length: int, train: Split) -> Task:
        """Return the task of answering with one number at the end."""
        return make_task(length, inputs=("real", 2), targets=("value", "last", 1), baseline=(1 / 6, "predict 1"))

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs (N, T, 2) float32, value before marker, and targets (N, 1) float32 in (0, 2)."""
        half, rows = length // 2, np.arange(num)
        first, second = rng.integers(0, half, num), rng.integers(half, length, num)
        inputs = np.zeros((num, length, 2), dtype=np.float32)
        inputs[:, :, 0] = rng.random((num, length), dtype=np.float32)
        inputs[rows, first, 1] = inputs[rows, second, 1] = 1
        targets = inputs[rows, first, 0] + inputs[rows, second, 0]
        return Split(inputs, targets[:, None])

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return values with their markers underneath, and the target."""
        values, markers = one.inputs.T
        rows = {"value": [f"{u:.2f}" for u in values], "marker": ["^^^^" if m else "" for m in markers]}
        return f"{draw_rows(rows)}\ntarget {one.targets[0]:.2f}"


@dataclass(frozen=True, kw_only=True)
class TemporalOrder(Sampled):
    """Temporal order: which of two symbols came first, which second, among `num_distractors` different distractors.

        inputs   distractors 2, 3, ... drawn alike, but v0 at p0 and v1 at p1 with v0, v1 drawn from {A = 0, B = 1}
                 p0 = floor(.1 T) + randint(floor(.1 T)),  p1 = floor(.5 T) + randint(floor(.1 T))
        target   v0 + 2 v1, one of four classes, at the last timestep
        baseline chance, ln 4 nats

    Source: Pascanu, Mikolov & Bengio 2013, with the 4 distractors and the positions of the authors' code.
    """

    num_distractors: int

    shortest_length, length_reason = 10, "the two symbols lie in windows of a tenth of the sequence"
    num_drawn = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(1, len(LETTERS) - 2, "num_distractors", self.num_distractors)

    def task(self, length: int, train: Split) -> Task:
        """Return the task of telling four orders apart."""
        num_symbols = 2 + self.num_distractors
        return make_task(
            length, inputs=("token", num_symbols), targets=("class", "last", 4), baseline=(math.log(4), "chance")
        )

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs (N, T) uint8 in 0..num_distractors+1 and targets (N,) uint8 in 0..3."""
        window, rows = length // 10, np.arange(num)
        inputs = rng.integers(2, 2 + self.num_distractors, (num, length), dtype=np.uint8)
        first, second = rng.integers(0, 2, (2, num), dtype=np.uint8)
        inputs[rows, window + rng.integers(0, window, num)] = first
        inputs[rows, length // 2 + rng.integers(0, window, num)] = second
        return Split(inputs, first + 2 * second)

    def texts(self, dataset: Dataset) -> tuple[Sequence[str], Sequence[str]]:
        """Return letters, in lower case those of distractors, and the four orders."""
        return "AB" + LETTERS[2:].lower(), ("0: A then A", "1: B then A", "2: A then B", "3: B then B")


@dataclass(frozen=True, kw_only=True)
class CopyMemory(Sampled):
    """Copy memory: see K = `num_copied` of S = `num_symbols` symbols, wait for T timesteps, then say them in order.

    `length` is the **delay T of the paper, not the number of timesteps**: a sequence has T + 2K of them.

        inputs   K symbols of 1..S | T - 1 blanks (0) | a marker (S + 1) | K blanks
        targets  T + K blanks | the K symbols of the beginning; the loss is the mean over all timesteps
        baseline blanks until the marker, then any symbol alike: K ln S / (T + 2K)

    Source: Arjovsky, Shah & Bengio 2016, section 5.1, with S = 8 and K = 10 (other papers differ by a few blanks).
    """

    num_symbols: int
    num_copied: int

    length_reason = "the length is the delay before the copy, which includes the marker"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(2, 254, "num_symbols", self.num_symbols)
        require(self.num_copied >= 1, "num_copied", "an integer of at least 1", self.num_copied)

    def task(self, length: int, train: Split) -> Task:
        """Return the task of saying a symbol or nothing at each of `length + 2 * num_copied` timesteps."""
        baseline = self.num_copied * math.log(self.num_symbols) / (length + 2 * self.num_copied)
        return make_task(
            length,
            inputs=("token", self.num_symbols + 2),
            targets=("class", "every", self.num_symbols + 1),
            baseline=(baseline, "memoryless"),
        )

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs (N, T + 2K) uint8 in 0..S+1 and targets (N, T + 2K) uint8 in 0..S."""
        copied = rng.integers(1, self.num_symbols + 1, (num, self.num_copied), dtype=np.uint8)
        inputs = np.zeros((num, length + 2 * self.num_copied), dtype=np.uint8)
        targets = inputs.copy()
        inputs[:, : self.num_copied] = targets[:, -self.num_copied :] = copied
        inputs[:, self.num_copied + length - 1] = self.num_symbols + 1
        return Split(inputs, targets)

    def texts(self, dataset: Dataset) -> tuple[Sequence[str], Sequence[str]]:
        """Return dots for blanks, a hash for the marker, and numbers for symbols."""
        symbols = [str(symbol) for symbol in range(1, self.num_symbols + 1)]
        return [".", *symbols, "#"], [".", *symbols]


@dataclass(frozen=True, kw_only=True)
class FlipFlop(Sampled):
    """Flip-flop: keep the symbol that was last written, through anything to be ignored, until it is asked for.

    Every token is one instruction: with probability p_w write a symbol, with p_r read, else ignore a symbol.

        inputs   write s = 0..S-1, ignore s = S..2S-1, read = 2S; s is drawn alike from S symbols
                 the first instruction is a write and the last a read
        targets  at a read, the symbol last written; elsewhere "nothing", class S
        baseline where nothing is read, nothing; at a read, any symbol alike: (1 + (T - 2) p_r) / T ln S

    The time from a read back to its write is geometric, with a mean near 1/p_w; a gated cell solves the task by closing
    its input gate and holding its forget gate at 1 until the next write. A perfect memory has no loss.

    Source: Liu, Ash, Goel, Krishnamurthy & Zhang 2023, whose FFL(0.8) has p_w = p_r = 0.1 over 256 instructions. There,
    an instruction and its bit are two tokens of a text to be continued, and there are two symbols; here they are one
    token with a target of its own, S = `num_symbols` symbols, and p_w = `write_probability` and
    p_r = `read_probability` apart.
    """

    num_symbols: int
    write_probability: float
    read_probability: float

    shortest_length, length_reason = 2, "the first instruction is a write and the last a read"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(2, len(LETTERS), "num_symbols", self.num_symbols)
        write, read = self.write_probability, self.read_probability
        require(0 < write < 1, "write_probability", "a probability between 0 and 1", write)
        require(0 < read < 1, "read_probability", "a probability between 0 and 1", read)
        require(write + read <= 1, "read_probability", f"at most 1 - write_probability = {1 - write}", read)

    def task(self, length: int, train: Split) -> Task:
        """Return the task of answering each of `length` instructions."""
        num = self.num_symbols
        num_reads = 1 + (length - 2) * self.read_probability
        return make_task(
            length,
            inputs=("token", 2 * num + 1),
            targets=("class", "every", num + 1),
            baseline=(num_reads / length * math.log(num), "memoryless"),
            token_groups={"write": tuple(range(num)), "ignore": tuple(range(num, 2 * num)), "read": (2 * num,)},
        )

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs (N, T) uint8 in 0..2S and targets (N, T) uint8 in 0..S."""
        symbols = rng.integers(0, self.num_symbols, (num, length), dtype=np.uint8)
        uniform = rng.random((num, length))
        writes, reads = uniform < self.write_probability, uniform >= 1 - self.read_probability
        writes[:, 0], reads[:, 0] = True, False
        writes[:, -1], reads[:, -1] = False, True
        inputs = np.where(writes, symbols, symbols + np.uint8(self.num_symbols))
        inputs[reads] = 2 * self.num_symbols
        last_write = np.maximum.accumulate(np.where(writes, np.arange(length), 0), axis=1)
        targets = np.where(reads, np.take_along_axis(symbols, last_write, axis=1), np.uint8(self.num_symbols))
        return Split(inputs, targets)

    def texts(self, dataset: Dataset) -> tuple[Sequence[str], Sequence[str]]:
        """Return capitals for what is written, small letters for what is ignored, ? for reads, a dot for nothing."""
        letters = LETTERS[: self.num_symbols]
        return letters + letters.lower() + "?", letters + "."
