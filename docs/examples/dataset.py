"""Delayed XOR: two random bits, a gap of zeros between them, and at the end the question whether they differ."""

from dataclasses import dataclass

import numpy as np

from pipeline.data import Sampled, Split, Task, make_task


@dataclass(frozen=True, kw_only=True)
class DelayedXor(Sampled):
    """Bits of -1 or 1 at the first and the last timestep; the best answer without memory is chance, ln 2 nats."""

    shortest_length, length_reason = 2, "there are two bits"

    def task(self, length: int, train: Split) -> Task:
        """Return the task of choosing one of two answers at the end."""
        return make_task(length, inputs=("real", 1), targets=("class", "last", 2), baseline=(np.log(2), "chance"))

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs (N, T, 1) float32 and targets (N,) uint8."""
        bits = rng.integers(0, 2, (num, 2), dtype=np.uint8)
        inputs = np.zeros((num, length, 1), dtype=np.float32)
        inputs[:, [0, -1], 0] = 2.0 * bits - 1
        return Split(inputs, bits[:, 0] ^ bits[:, 1])
