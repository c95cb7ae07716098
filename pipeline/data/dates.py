"""Dates: a date written out in one of several languages, character by character, to ISO 8601.

    inputs   the date as Unicode's CLDR writes it: "Friday, March 1, 2024", "1. März 2024", "2024년 3월 1일 금요일"
    targets  "2024-03-01" and EOS
    baseline the unigram entropy of the training targets, in nats per token

Languages order day, month and year differently, so a translator must look at other places in each. Where to is known,
since a text is composed field by field: a target digit is made from the source digit in its place, or, where the field
has fewer digits or is a name, from the whole field; a hyphen is made from nothing.

A date belongs to one split, however it is written. Source: made for this project; names and patterns from Unicode's
Common Locale Data Repository (CLDR), which Babel brings. A pattern such as "EEEE, MMMM d, y" is composed here, so that
nothing has to be searched for in the text; the text is that of `babel.dates.format_date`.
Shapes: N sequences, S source characters (code points), U = 11 target tokens.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import product
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPLITS, Dataset, Split, Task
from pipeline.data.generator import (
    Drawn,
    Shares,
    draw_rows,
    import_source,
    num_sequences,
    require_between,
    split_indices,
    stream,
)
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError, unknown_name

Format = Literal["full", "long", "medium"]
"""With the weekday, with the month's whole name, and the shortest that tells the century; locales differ in this."""

FIELDS = {"y": "year", "M": "month", "d": "day"}
"""What the letters of a pattern stand for; a weekday (E) follows from the three."""

DIGITS = "0123456789"
TARGET = Vocabulary("-" + DIGITS)
NUM_TARGET_TOKENS = len("YYYY-MM-DD") + 1
ISO_PLACES = {"year": [0, 1, 2, 3], "month": [5, 6], "day": [8, 9]}


@dataclass(frozen=True, kw_only=True)
class Dates(Drawn):
    """Dates of whole years, in every one of `locales` and `formats`; the dates are split by `shares`."""

    locales: tuple[str, ...]
    formats: tuple[Format, ...]
    first_year: int
    last_year: int
    shares: Shares

    length_reason = "the longest date has {self.natural_length} characters"
    num_drawn = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("locales", "formats"):
            names = getattr(self, field)
            require(len(set(names)) == len(names) > 0, field, "at least one, each once", list(names))
        require_between(1000, 9999, "first_year", self.first_year, "a year")
        expected = f"a year from {self.first_year} (first_year) to 9999"
        require(self.first_year <= self.last_year <= 9999, "last_year", expected, self.last_year)
        num = self.last_year - self.first_year + 1
        self.shares.require_two(365 * num, f"dates of {num} years")

    @property
    def natural_length(self) -> int:
        """The number of characters of the longest text."""
        return max(map(len, self._texts()))

    def _texts(self) -> frozenset[str]:
        return texts_of_year(self.last_year, self.locales, self.formats)

    def vocabulary(self) -> Vocabulary:
        """Return the characters of every date that can be written, whatever is drawn."""
        return Vocabulary(sorted(set(DIGITS).union(*self._texts())))

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return dates, each in one locale and format and no such triple twice: as many as wanted, or as there are."""
        source, ways = self.vocabulary(), list(product(self.locales, self.formats))
        first, last = datetime.date(self.first_year, 1, 1), datetime.date(self.last_year, 12, 31)
        days = split_indices(np.zeros((last - first).days + 1), self.shares, self.seed)
        splits = {}
        for position, split in enumerate(SPLITS):
            num = len(days[split]) * len(ways)
            chosen = stream(self.seed, position).permutation(num)[: num_sequences(sizes, split)]
            dates = [first + datetime.timedelta(int(day)) for day in days[split][chosen // len(ways)]]
            written = [write(date, *ways[i]) for date, i in zip(dates, chosen % len(ways), strict=True)]
            splits[split] = Split(
                pad([source.encode(text) for text, _ in written], length),
                pad([[*TARGET.encode(date.isoformat()), EOS] for date in dates], NUM_TARGET_TOKENS),
                np.array([align(text, spans, length) for text, spans in written]),
            )
        return translation_task(length, source, TARGET, splits["train"].targets), splits

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a text and, below every character, what is made from it."""
        text, iso, alignment = self.vocabulary().decode(one.inputs), TARGET.decode(one.targets), np.array(one.alignment)
        made = ["".join(np.array(iso)[alignment[:, s]]) for s in range(len(text))]
        return draw_rows({"".join(iso[:-1]): text, "made of it": made})

    def source(self) -> dict[str, Any]:
        """Return the versions of Babel and of CLDR, whose names and patterns they are."""
        return {"babel_version": metadata.version("Babel"), "cldr_version": _babel("core").get_cldr_version()}


def align(text: str, spans: Mapping[str, slice], width: int) -> np.ndarray:
    """Return which of S = `width` source positions each token of the ISO date is made from, Boolean (U, S).

    `spans` is where in the text year, month and day stand.
    """
    alignment = np.zeros((NUM_TARGET_TOKENS, width), dtype=bool)
    for field, span in spans.items():
        places = ISO_PLACES[field]
        digits = [s for s in range(span.start, span.stop) if text[s] in DIGITS]
        alignment[places, digits if len(digits) == len(places) else span] = True
    return alignment


def write(date: datetime.date, locale: str, format: Format) -> tuple[str, dict[str, slice]]:
    """Return the date written out in a locale such as "fr_CA", and where in the text its year, month and day stand."""
    pattern, text, spans = _pattern(locale, format), "", {}
    fields = _babel("dates").DateTimeFormat(date, locale)
    for kind, value in pattern:
        piece = value if kind == "chars" else fields[value[0] * value[1]]
        if kind == "field" and value[0] in FIELDS:
            spans[FIELDS[value[0]]] = slice(len(text), len(text) + len(piece))
        text += piece
    return text, spans


@cache
def texts_of_year(year: int, locales: tuple[str, ...], formats: tuple[Format, ...]) -> frozenset[str]:
    """Return every day of one year in every locale and format.

    Every month has each weekday with a day of two digits, so no date of any year from 1000 to 9999 is longer or, but
    for the digits of its year, has other characters.
    """
    first = datetime.date(year, 1, 1)
    days = [first + datetime.timedelta(i) for i in range(365)]
    return frozenset(write(day, *way)[0] for day in days for way in product(locales, formats))


@cache
def _pattern(locale: str, format: Format) -> list[tuple[str, Any]]:
    """Return literal characters ("chars", text) and fields ("field", (letter, how often it is repeated)).

    Raises:
        DatasetError: If CLDR has no such locale; the message names the nearest language.
    """
    dates, locales = _babel("dates"), _babel("localedata")
    if not locales.exists(locale):
        languages = [name for name in locales.locale_identifiers() if len(name) == 2]
        raise DatasetError(f"dataset 'dates': {unknown_name('locale', locale, languages)}")
    return dates.tokenize_pattern(dates.get_date_format(format, locale).pattern)


def _babel(module: str) -> Any:
    return import_source(f"babel.{module}", "Babel", "dataset 'dates': names and patterns come")
