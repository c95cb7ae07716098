"""Dates as Unicode's Common Locale Data Repository (CLDR) writes them, and where in the text each field stands.

Babel brings the names and patterns. A pattern such as "EEEE, MMMM d, y" is composed field by field, so that nothing has
to be searched for in the text; the text is that of `babel.dates.format_date`.
"""

from __future__ import annotations

import datetime
from functools import cache
from itertools import product
from types import ModuleType
from typing import Any, Literal

from pipeline.errors import DatasetError, unknown_name

Format = Literal["full", "long", "medium"]
"""With the weekday, with the month's whole name, and the shortest that tells the century; locales differ in this."""

FIELDS = {"y": "year", "M": "month", "d": "day"}
"""What the letters of a pattern stand for; a weekday (E) follows from the three."""


def write(date: datetime.date, locale: str, format: Format) -> tuple[str, dict[str, slice]]:
    """Return the date written out, and where in the text its year, month and day stand.

    Args:
        date: What to write.
        locale: Such as "en", "fr_CA" or "ko".
        format: Which of the locale's patterns to follow.
    """
    pattern, text, spans = _pattern(locale, format), "", {}
    fields = _babel().dates.DateTimeFormat(date, locale)
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


def versions() -> dict[str, str]:
    """Return the versions of Babel and of the CLDR in it."""
    babel = _babel()
    return {"babel_version": babel.__version__, "cldr_version": babel.core.get_cldr_version()}


@cache
def _pattern(locale: str, format: Format) -> list[tuple[str, Any]]:
    """Return literal characters ("chars", text) and fields ("field", (letter, how often it is repeated)).

    Raises:
        DatasetError: If CLDR has no such locale; the message names the nearest language.
    """
    babel = _babel()
    if not babel.localedata.exists(locale):
        languages = [name for name in babel.localedata.locale_identifiers() if len(name) == 2]
        raise DatasetError(f"dataset 'dates': {unknown_name('locale', locale, languages)}")
    return babel.dates.tokenize_pattern(babel.dates.get_date_format(format, locale).pattern)


def _babel() -> ModuleType:
    try:
        import babel.dates
    except ImportError:
        message = "dataset 'dates': names and patterns come with Babel, which is not installed"
        raise DatasetError(f"{message}; pip install Babel") from None
    return babel
