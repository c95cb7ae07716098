"""Fixed-lag copy: a stream of blocks, m symbols shown and then m blanks, during which to say the m symbols again.

`length` is T, the number of timesteps of a stream. With a lag of m, m - 1 random symbols s and the blank drawn as -,

    inputs   ... # s s s - - - - # s s s - - - - ...   the marker # = 1, symbols 2..num_symbols-1, blank - = 0
    targets  ... - - - - # s s s - - - - # s s s ...   target_t = input_{t-m}
    baseline where a symbol is shown, answer blank; where the input is blank, the marker with probability 1/m, else
             any of the S = num_symbols - 2 symbols alike: (h(1/m) + (1 - 1/m) ln S) / 2, h the entropy of a coin

A network that carries no symbol over m timesteps but counts them, and so knows where the marker is due, pays
(1 - 1/m) ln S / 2 where nothing is spliced: training sticks here when its truncation is too short for a gradient to
reach from a copy to its symbol. One that remembers everything pays only for what was shown before its stream began,
((m - 1) ln S + h(1/m)) / 2T.

Source: Aicher, Foti & Fox 2019, the fixed copy task of the authors' code (github.com/aicherc/adaptive_tbptt,
tbptt/generate_data.py), with m = 10 and 6 symbols, of which blank and marker are two. Here a stream is cut from its
blocks once, at a place of its own. With `spliced` it is theirs: each of their 64 streams, once drawn, shifts not only
itself but all streams in place, so that the earlier ones are shifted again and again, and what enters at their ends are
pieces of 0 to 2m - 1 timesteps: see `spliced_places`. With 64 streams of T = 1000, counting has a perplexity of 1.675
on average (1.64 to 1.72 from seed to seed), not 1.866; the least loss is as before, for in a piece, too, a copy comes m
timesteps after its symbol. The authors test on T = 1000 but train on 4000, where pieces are 8% and not 31%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, make_task
from pipeline.data.generator import Sampled, require_between

BLANK, MARKER, FIRST_SYMBOL = 0, 1, 2
NUM_TOGETHER = 64


@dataclass(frozen=True, kw_only=True)
class FixedLagCopy(Sampled):
    """Fixed-lag copy after `lag` timesteps.

    Attributes:
        num_symbols: Different tokens; blank and marker count, as in the paper.
        lag: m.
        spliced: Whether streams are shifted as the authors' code does it, which is what the published numbers are from.
        num_streams: Streams in each split, whatever the scale; null for the scale's sizes. A scale counts short
            sequences, but a stream is long: one of 1000 timesteps has 50 blocks, and the paper has 64 streams a split.
    """

    num_symbols: int
    lag: int
    spliced: bool
    num_streams: int | None

    length_reason = "a copy comes {self.lag} timesteps after its symbol"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(4, 255, "num_symbols", self.num_symbols)
        require(self.lag >= 2, "lag", "an integer of at least 2", self.lag)
        given = self.num_streams
        require(given is None or given >= 1, "num_streams", "an integer of at least 1, or null", given)

    @property
    def shortest_length(self) -> int:
        """The least length in which a symbol and its copy fit."""
        return self.lag + 1

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the task, and streams of `length` timesteps; `num_streams`, where given, replaces all three sizes."""
        if self.num_streams is not None:
            sizes = Sizes(self.num_streams, self.num_streams, self.num_streams)
        return super().make(length, sizes)

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs and targets (N, T) uint8 in 0..num_symbols-1, each stream cut at a place of its own."""
        num_blocks = math.ceil((length + 2 * self.lag - 1) / (2 * self.lag))
        shown = rng.integers(FIRST_SYMBOL, self.num_symbols, (num, num_blocks, self.lag), dtype=np.uint8)
        shown[:, :, 0] = MARKER
        blanks = np.full_like(shown, BLANK)
        shifts = rng.integers(0, 2 * self.lag, num)
        places = spliced_places(shifts, length) if self.spliced else shifts[:, None] + np.arange(length)
        inputs, targets = (
            np.take_along_axis(np.concatenate(halves, axis=2).reshape(num, -1), places, axis=1)
            for halves in ((shown, blanks), (blanks, shown))
        )
        return Split(inputs, targets)

    def task(self, length: int, train: Split) -> Task:
        """Return the task of saying a symbol or nothing at every timestep."""
        unspliced = memoryless_loss(self.num_symbols, self.lag)
        return make_task(
            length,
            inputs=("token", self.num_symbols),
            targets=("class", "every", self.num_symbols),
            baseline=(counted_memoryless_loss(train) if self.spliced else unspliced, "memoryless"),
            token_groups={"shown": tuple(range(MARKER, self.num_symbols)), "recalled": (BLANK,)},
        )

    def texts(self, dataset: Dataset) -> tuple[Sequence[str], Sequence[str]]:
        """Return dots for blanks, a hash for the marker, and numbers for symbols."""
        symbols = [".", "#", *map(str, range(FIRST_SYMBOL, self.num_symbols))]
        return symbols, symbols


def spliced_places(shifts: np.ndarray, num_timesteps: int) -> np.ndarray:
    """Return where each timestep of a stream comes from, (N, T), if its shift, of (N,), also applies to all before it.

    A shift by s drops the first s timesteps of a stream and lets in s at its end: always those from T on, which no
    shift changes. Stream i of a group undergoes the shifts i, i + 1, ... of its group, and so is the last T of

        0, 1, ..., T - 1 | T, ..., T + s_i - 1 | T, ..., T + s_{i+1} - 1 | ...

    Streams are grouped by 64, the authors' batch and their whole split; in a smaller group (the rest of a split, or all
    of it) there are as many shifts as streams. In a group of 64 with m = 10, the pieces are 309 timesteps of a stream
    on average. At a T that is no multiple of 2m, pieces begin amid a block.
    """
    whole, places = np.arange(num_timesteps), np.empty((len(shifts), num_timesteps), dtype=int)
    for start in range(0, len(shifts), NUM_TOGETHER):
        pieces = np.arange(0)
        for i in reversed(range(start, min(start + NUM_TOGETHER, len(shifts)))):
            pieces = np.concatenate([num_timesteps + np.arange(shifts[i]), pieces])
            places[i] = np.concatenate([whole, pieces])[-num_timesteps:]
    return places


def memoryless_loss(num_symbols: int, lag: int) -> float:
    """Return the loss, in nats per timestep, of the best answer to the present input alone, where nothing is spliced.

    (h(1/m) + (1 - 1/m) ln S) / 2 with S = num_symbols - 2 and h(p) = -p ln p - (1 - p) ln(1 - p).
    """
    p = 1 / lag
    coin_entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    return (coin_entropy + (1 - p) * math.log(num_symbols - FIRST_SYMBOL)) / 2


def counted_memoryless_loss(split: Split) -> float:
    """Return the loss, in nats per timestep, of the best answer to the present input alone, counted in `split`.

    Spliced streams have no closed form: most pieces break off before the copy, so that blanks are fewer and a marker is
    due at more of them.
    """
    counts = np.zeros((int(split.inputs.max()) + 1, int(split.targets.max()) + 1))
    np.add.at(counts, (split.inputs, split.targets), 1)
    seen = counts > 0
    probabilities = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[seen]
    return float(-(counts[seen] @ np.log(probabilities)) / split.inputs.size)
