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
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, PAD, SPECIAL_TOKENS, SPLITS, Dataset, Split, assemble
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, num_sequences, require_seed_and_lengths, stream
from pipeline.data.vocabulary import Vocabulary, translation_task
from pipeline.errors import DatasetError

Operation = Literal["reverse", "copy", "sort"]

LETTERS = string.ascii_uppercase
FIRST_SYMBOL, AFTER_ALL = len(SPECIAL_TOKENS), 256
NUM_DRAWN = 3


@dataclass(frozen=True)
class Transduction:
    """An `operation` on sequences of `num_symbols` letters, the shortest `min_share` times as long as the longest."""

    generator: Literal["transduction"]
    seed: int
    lengths: tuple[int, ...]
    operation: Operation
    num_symbols: int
    min_share: float

    natural_length = None
    possible_lengths = "the longest source has a symbol: at least 1"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        fits = 2 <= self.num_symbols <= len(LETTERS)
        require(fits, "num_symbols", f"an integer from 2 to {len(LETTERS)}", self.num_symbols)
        require(0 < self.min_share <= 1, "min_share", "a share above 0 and at most 1", self.min_share)

    def allows(self, length: int) -> bool:
        """Return whether a source of that length is not empty."""
        return length >= 1

    def shortest(self, length: int) -> int:
        """Return the length of the shortest sources where the longest have `length` symbols."""
        return max(1, round(self.min_share * length))

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return sources of at most `length` symbols, and what becomes of them."""
        check_length(self.generator, self, length)
        nums = [num_sequences(sizes, split) for split in SPLITS]
        self._check_room(length, sum(nums))
        rng = stream(self.seed, length)
        shape = {"shortest": self.shortest(length), "longest": length, "num_symbols": self.num_symbols}
        parts = np.split(draw_sources(rng, sum(nums), **shape), np.cumsum(nums)[:-1])
        splits = {split: transduce(part, self.operation) for split, part in zip(SPLITS, parts, strict=True)}
        task = translation_task(length, self._vocabulary(), self._vocabulary(), splits["train"].targets)
        return assemble(self.generator, task, splits)

    def _check_room(self, length: int, num: int) -> None:
        room = self.num_symbols**length
        if room < 2 * num:
            message = f"{room} sources of that length, expected at least {2 * num}, twice as many as are drawn"
            raise DatasetError(f"dataset {self.generator!r}: length {length} has {message}; raise it or num_symbols")

    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(LETTERS[: self.num_symbols])

    def draw(self, dataset: Dataset) -> str:
        """Return sources above their targets, above the timestep, from 1, that each target symbol is made from."""
        train, tokens, drawn = dataset.splits["train"], self._vocabulary(), []
        for source, target, aligned in zip(
            train.inputs[:NUM_DRAWN], train.targets, np.array(train.alignment), strict=False
        ):
            origins = [str(t + 1) for t in np.nonzero(aligned)[1]]
            rows = {"source": tokens.decode(source), "target": tokens.decode(target), "made from": origins}
            drawn.append(draw_rows(rows))
        return "\n\n".join(drawn)

    def source(self) -> dict[str, Any]:
        """Return nothing: every symbol is drawn."""
        return {}


def draw_sources(rng: np.random.Generator, num: int, *, shortest: int, longest: int, num_symbols: int) -> np.ndarray:
    """Return sources of random length, no two alike.

    Args:
        rng: The stream to draw from.
        num: N, at most half as many as there are of the longest.
        shortest: Fewest symbols of a source.
        longest: S, most symbols of a source.
        num_symbols: Different symbols.

    Returns:
        Ids of symbols, from 3 on, and `PAD` behind them, (N, S) uint8.
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
