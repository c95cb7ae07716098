"""Transduction: random symbols in, the same symbols out, backwards, as they came, or sorted.

    inputs   l symbols, l alike from the shortest length to the longest, each symbol alike from S
    targets  reverse  the last symbol first
             copy     the first symbol first
             sort     in the order of the alphabet, equal symbols as they came
             each with EOS at its end
    baseline the unigram entropy of the training targets, in nats per token

Every target symbol is made from one source symbol, and which one is known: an attention has to look backwards, along,
or wherever the next symbol of the alphabet stands. No source is drawn twice, so none is in two splits; short ones are
rarer where there are few of them. The three operations read the same sources with the same seed.

Source: reversal of the source, Sutskever, Vinyals & Le 2014; sorting, Vinyals, Bengio & Kudlur 2016. Shapes: N
sequences, S source and U = S + 1 target tokens.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, PAD, SPECIAL_TOKENS, SPLITS, Dataset, Split, Task
from pipeline.data.generator import AtLengths, Drawn, draw_rows, num_sequences, require_between, stream
from pipeline.data.vocabulary import Vocabulary, translation_task
from pipeline.errors import DatasetError

Operation = Literal["reverse", "copy", "sort"]

LETTERS = string.ascii_uppercase
FIRST_SYMBOL, AFTER_ALL = len(SPECIAL_TOKENS), 256


@dataclass(frozen=True, kw_only=True)
class Transduction(AtLengths, Drawn):
    """An `operation` on sequences of `num_symbols` letters, the shortest `min_share` times as long as the longest."""

    operation: Operation
    num_symbols: int
    min_share: float

    length_reason = "the longest source has a symbol"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(2, len(LETTERS), "num_symbols", self.num_symbols)
        require(0 < self.min_share <= 1, "min_share", "a share above 0 and at most 1", self.min_share)

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return sources of at most `length` symbols, and what becomes of them.

        Raises:
            DatasetError: If there are too few different sources of that length.
        """
        nums = [num_sequences(sizes, split) for split in SPLITS]
        room = self.num_symbols**length
        if room < 2 * sum(nums):
            message = f"{room} sources of that length, expected at least {2 * sum(nums)}, twice as many as are drawn"
            raise DatasetError(f"dataset {self.key()!r}: length {length} has {message}; raise it or num_symbols")
        sources = draw_sources(
            stream(self.seed, length),
            sum(nums),
            shortest=max(1, round(self.min_share * length)),
            longest=length,
            num_symbols=self.num_symbols,
        )
        parts = np.split(sources, np.cumsum(nums)[:-1])
        splits = {split: transduce(part, self.operation) for split, part in zip(SPLITS, parts, strict=True)}
        return translation_task(length, self._vocabulary(), self._vocabulary(), splits["train"].targets), splits

    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(LETTERS[: self.num_symbols])

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return the source above the target, above the timestep, from 1, that each target symbol is made from."""
        origins = [str(t + 1) for t in np.nonzero(np.array(one.alignment))[1]]
        source, target = (self._vocabulary().decode(ids) for ids in (one.inputs, one.targets))
        return draw_rows({"source": source, "target": target, "made from": origins})


def draw_sources(rng: np.random.Generator, num: int, *, shortest: int, longest: int, num_symbols: int) -> np.ndarray:
    """Return sources of random length, no two alike: ids of symbols, from 3 on, and `PAD` behind them, (N, S) uint8.

    Args:
        rng: The stream to draw from.
        num: N, at most half as many as there are of the longest.
        shortest: Fewest symbols of a source.
        longest: S, most symbols of a source.
        num_symbols: Different symbols.
    """
    sources = np.zeros((0, longest), dtype=np.uint8)
    while len(sources) < num:
        lengths = rng.integers(shortest, longest + 1, (num, 1))
        symbols = rng.integers(FIRST_SYMBOL, FIRST_SYMBOL + num_symbols, (num, longest), dtype=np.uint8)
        sources = np.concatenate([sources, np.where(np.arange(longest) < lengths, symbols, np.uint8(PAD))])
        _, first = np.unique(sources, axis=0, return_index=True)
        sources = sources[np.sort(first)]
    return sources[:num]


def transduce(sources: np.ndarray, operation: Operation) -> Split:
    """Return sources, (N, S) uint8 with `PAD` at their end, with targets, (N, S + 1) uint8, and their alignment."""
    num, longest = sources.shape
    timesteps, present = np.arange(longest), sources != PAD
    key = {"reverse": -timesteps, "copy": timesteps, "sort": sources.astype(int)}[operation]
    order = np.where(present, key, AFTER_ALL + timesteps).argsort(axis=1, kind="stable")
    targets = np.pad(np.take_along_axis(sources, order, axis=1), ((0, 0), (0, 1)), constant_values=PAD)
    targets[np.arange(num), present.sum(axis=1)] = EOS
    aligned = (order[:, :, None] == timesteps) & present[:, :, None]
    return Split(sources, targets, np.pad(aligned, ((0, 0), (0, 1), (0, 0))))
