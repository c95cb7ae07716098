"""Dates: a date written out in one of several languages, character by character, to ISO 8601.

    inputs   the date as Unicode's CLDR writes it: "Friday, March 1, 2024", "1. März 2024", "2024년 3월 1일 금요일"
    targets  "2024-03-01" and EOS
    baseline the unigram entropy of the training targets, in nats per token

Languages order day, month and year differently, so a translator must look at other places in each. Where to is known,
since a text is composed field by field: a target digit is made from the source digit in its place, or, where the field
has fewer digits or is a name, from the whole field; a hyphen is made from nothing.

A date belongs to one split, however it is written. Source: made for this project; names and patterns from CLDR.
Shapes: N sequences, S source characters (code points), U = 11 target tokens.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data import cldr
from pipeline.data.cldr import Format
from pipeline.data.dataset import EOS, SPLITS, Dataset, Split, assemble
from pipeline.data.digits import Shares, split_indices
from pipeline.data.drawing import draw_rows
from pipeline.data.generator import check_length, num_sequences, require_seed_and_lengths, stream
from pipeline.data.vocabulary import Vocabulary, pad, translation_task

DIGITS = "0123456789"
TARGET = Vocabulary("-" + DIGITS)
NUM_TARGET_TOKENS = len("YYYY-MM-DD") + 1
ISO_PLACES = {"year": [0, 1, 2, 3], "month": [5, 6], "day": [8, 9]}
NUM_DRAWN = 6


@dataclass(frozen=True)
class Dates:
    """Dates of whole years, in every one of `locales` and `formats`; the dates are split by `shares`."""

    generator: Literal["dates"]
    seed: int
    locales: tuple[str, ...]
    formats: tuple[Format, ...]
    first_year: int
    last_year: int
    shares: Shares

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, ())
        for field in ("locales", "formats"):
            names = getattr(self, field)
            require(len(set(names)) == len(names) > 0, field, "at least one, each once", list(names))
        require(1000 <= self.first_year <= 9999, "first_year", "a year from 1000 to 9999", self.first_year)
        expected = f"a year from {self.first_year} (first_year) to 9999"
        require(self.first_year <= self.last_year <= 9999, "last_year", expected, self.last_year)
        num, shares = self.last_year - self.first_year + 1, self.shares
        least = 365 * num * min(shares.train, shares.validation, shares.test)
        require(least >= 2, "shares", f"at least 2 dates of {num} years in every split", least)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The only length there is."""
        return (self.natural_length,)

    @property
    def natural_length(self) -> int:
        """The number of characters of the longest text."""
        return max(map(len, self._texts()))

    @property
    def possible_lengths(self) -> str:
        """Which length is possible, in words."""
        return f"the longest date has {self.natural_length} characters: write null (or {self.natural_length})"

    def allows(self, length: int) -> bool:
        """Return whether `length` is that of the longest date."""
        return length == self.natural_length

    def _texts(self) -> frozenset[str]:
        return cldr.texts_of_year(self.last_year, self.locales, self.formats)

    def vocabulary(self) -> Vocabulary:
        """Return the characters of every date that can be written, whatever is drawn."""
        return Vocabulary(sorted(set(DIGITS).union(*self._texts())))

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return dates, each in one locale and format and no such triple twice: as many as wanted, or as there are."""
        check_length(self.generator, self, length)
        source, ways = self.vocabulary(), list(product(self.locales, self.formats))
        first, last = datetime.date(self.first_year, 1, 1), datetime.date(self.last_year, 12, 31)
        days = split_indices(np.zeros((last - first).days + 1), self.shares, self.seed)
        splits = {}
        for position, split in enumerate(SPLITS):
            num = len(days[split]) * len(ways)
            chosen = stream(self.seed, position).permutation(num)[: num_sequences(sizes, split)]
            dates = [first + datetime.timedelta(int(day)) for day in days[split][chosen // len(ways)]]
            splits[split] = translate(dates, [ways[i] for i in chosen % len(ways)], source, length)
        return assemble(self.generator, translation_task(length, source, TARGET, splits["train"].targets), splits)

    def draw(self, dataset: Dataset) -> str:
        """Return texts and, below every character, what is made from it."""
        train, vocabulary, drawn = dataset.splits["train"], self.vocabulary(), []
        assert train.alignment is not None  # noqa: S101 - dates have one
        for inputs, targets, alignment in zip(train.inputs[:NUM_DRAWN], train.targets, train.alignment, strict=False):
            text, iso = vocabulary.decode(inputs), TARGET.decode(targets)
            made = ["".join(np.array(iso)[alignment[:, s]]) for s in range(len(text))]
            drawn.append(draw_rows({"".join(iso[:-1]): text, "made of it": made}))
        return "\n\n".join(drawn)

    def source(self) -> dict[str, Any]:
        """Return the versions of Babel and of CLDR, whose names and patterns they are."""
        return cldr.versions()


def align(text: str, spans: Mapping[str, slice], width: int) -> np.ndarray:
    """Return which of `width` source positions each token of the ISO date is made from, Boolean (U, width).

    Args:
        text: A date written out.
        spans: Where its year, month and day stand.
        width: S, at least the length of `text`.
    """
    alignment = np.zeros((NUM_TARGET_TOKENS, width), dtype=bool)
    for field, span in spans.items():
        places = ISO_PLACES[field]
        digits = [s for s in range(span.start, span.stop) if text[s] in DIGITS]
        if len(digits) == len(places):
            alignment[places, digits] = True
        else:
            alignment[places, span] = True
    return alignment


def translate(
    dates: Sequence[datetime.date], ways: Sequence[tuple[str, Format]], source: Vocabulary, length: int
) -> Split:
    """Return every date in its way of writing, a locale and a format, as a source of `length` tokens."""
    written = [cldr.write(date, *way) for date, way in zip(dates, ways, strict=True)]
    return Split(
        pad([source.encode(text) for text, _ in written], length),
        pad([[*TARGET.encode(date.isoformat()), EOS] for date in dates], NUM_TARGET_TOKENS),
        np.array([align(text, spans, length) for text, spans in written]),
    )
