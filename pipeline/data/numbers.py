"""Numbers: from French words to English words, or to digits.

    inputs   the words of "quatre-vingt-dix mille deux cents": quatre vingt dix mille deux cents
    targets  the words of "ninety thousand, two hundred", or the characters of "90200"; then EOS
    baseline the unigram entropy of the training targets, in nats per token

French counts in twenties from 60 to 99, so an English word is made from up to three French ones (quatre vingt dix:
ninety), and what becomes of a word depends on those behind it. Hyphens and commas are left out: the words alone tell
numbers apart. No alignment is given, for words such as "onze" in "soixante et onze" have no single counterpart.

A number belongs to one split. Vocabularies are those of all numbers below a million, whatever the range.

Source: made for this project; words by num2words. Shapes: N sequences, S source words, U target tokens.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPLITS, Dataset, Split, Task
from pipeline.data.generator import Drawn, Shares, import_source, num_sequences, split_indices
from pipeline.data.vocabulary import Vocabulary, pad, translation_task

Language = Literal["fr", "en"]

END = 1_000_000
DIGITS = Vocabulary("0123456789")


@dataclass(frozen=True, kw_only=True)
class Numbers(Drawn):
    """Numbers from `lowest` to `highest`, split by `shares`, to be written in English words or in digits."""

    lowest: int
    highest: int
    target: Literal["words", "digits"]
    shares: Shares

    length_reason = "the longest number has {self.natural_length} words"
    num_drawn = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lowest >= 0, "lowest", "an integer of at least 0", self.lowest)
        expected = f"an integer from {self.lowest} (lowest) to {END - 1}"
        require(self.lowest <= self.highest < END, "highest", expected, self.highest)
        num = self.highest - self.lowest + 1
        self.shares.require_two(num, f"of {num} numbers")

    @property
    def natural_length(self) -> int:
        """The most French words that a number has."""
        return self._most_words("fr")

    def _most_words(self, language: Language) -> int:
        return int(num_words(language)[self.lowest : self.highest + 1].max())

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return numbers, none of them twice: as many as the scale wants, or as there are."""
        members = split_indices(np.zeros(self.highest - self.lowest + 1), self.shares, self.seed)
        spell, target, most = self._target()
        splits = {}
        for split in SPLITS:
            numbers = (self.lowest + members[split][: num_sequences(sizes, split)]).tolist()
            inputs = [vocabulary("fr").encode(words(number, "fr")) for number in numbers]
            targets = [[*target.encode(spell(number)), EOS] for number in numbers]
            splits[split] = Split(pad(inputs, length), pad(targets, most + 1))
        return translation_task(length, vocabulary("fr"), target, splits["train"].targets), splits

    def _target(self) -> tuple[Callable[[int], Iterable[str]], Vocabulary, int]:
        """Return how a number is spelt, the vocabulary of that, and the most tokens that it takes."""
        if self.target == "digits":
            return str, DIGITS, len(str(self.highest))
        return partial(words, language="en"), vocabulary("en"), self._most_words("en")

    def draw(self, dataset: Dataset) -> str:
        """Return pairs, a line each."""
        train, target = dataset.splits["train"], self._target()[1]
        pairs = zip(train.inputs[: self.num_drawn], train.targets, strict=False)
        return "\n".join(
            f"{' '.join(vocabulary('fr').decode(inputs))} -> {' '.join(target.decode(targets))}"
            for inputs, targets in pairs
        )

    def source(self) -> dict[str, Any]:
        """Return the version of num2words."""
        return {"num2words_version": importlib.metadata.version("num2words")}


def words(number: int, language: Language) -> list[str]:
    """Return the words of a number, without hyphens and commas.

    Raises:
        DatasetError: If num2words is not installed.
    """
    source = import_source("num2words", "num2words", "dataset 'numbers': the words come")
    return re.findall(r"\w+", source.num2words(number, lang=language))


@cache
def vocabulary(language: Language) -> Vocabulary:
    """Return all words of the numbers below a million."""
    numbers = (*range(2000), *range(2000, END, 1000))
    return Vocabulary(sorted({word for number in numbers for word in words(number, language)}))


@cache
def num_words(language: Language) -> np.ndarray:
    """Return how many words every number below a million has, (1_000_000,).

    They are those of its thousands and, behind them, of its rest, as in 1001..1999: "mille un", "one thousand and one".
    """
    small = np.array([len(words(number, language)) for number in range(2000)])
    thousands = np.array([len(words(number, language)) for number in range(0, END, 1000)])
    counts = thousands[:, None] + (small[1000:] - small[1000])
    counts[0] = small[:1000]
    return counts.ravel()
