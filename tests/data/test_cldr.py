"""A date is composed as Babel itself formats it, and where its fields stand is told right."""

from __future__ import annotations

import datetime
import sys
import unicodedata

import pytest

from pipeline.data.dates import Dates, texts_of_year, write
from pipeline.data.generator import Shares
from pipeline.errors import DatasetError

dates = pytest.importorskip("babel.dates")

LOCALES = ("en", "fr", "de", "ko")
FORMATS = ("full", "long", "medium")
START = datetime.date(1900, 1, 1)


@pytest.mark.parametrize("locale", [*LOCALES, "en_GB", "es", "fi", "ja", "lt", "th", "zh"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_text_is_that_of_babel_and_its_fields_are_found(locale, format):
    months = dates.get_month_names("wide", locale=locale), dates.get_month_names("abbreviated", locale=locale)
    for offset in range(0, 73_000, 97):
        date = START + datetime.timedelta(offset)
        text, spans = write(date, locale, format)
        assert text == dates.format_date(date, format, locale) == unicodedata.normalize("NFC", text)
        year, month, day = (text[spans[field]] for field in ("year", "month", "day"))
        assert (year, int(day)) == (str(date.year), date.day)
        names = {names[date.month] for names in months} | {str(date.month), f"{date.month:02d}"}
        assert month in names


def test_known_dates():
    date = datetime.date(2024, 3, 1)
    texts = [write(date, locale, "full")[0] for locale in LOCALES]
    assert texts == ["Friday, March 1, 2024", "vendredi 1 mars 2024", "Freitag, 1. März 2024", "2024년 3월 1일 금요일"]
    text, spans = write(datetime.date(1999, 12, 31), "de", "medium")
    assert (text, spans) == ("31.12.1999", {"day": slice(0, 2), "month": slice(3, 5), "year": slice(6, 10)})


@pytest.mark.slow
def test_one_year_has_the_longest_text_and_every_character():
    for locale in LOCALES:
        of_year = texts_of_year(2099, (locale,), FORMATS)
        every = {write(START + datetime.timedelta(i), locale, "full")[0] for i in range(0, 73_000, 5)}
        assert max(map(len, every)) == max(map(len, of_year))
        assert set().union(*every) <= set("0123456789").union(*of_year)


def test_versions_are_those_of_the_installed_library():
    import babel

    dates_of_2000 = Dates(
        seed=0, locales=("en",), formats=("full",), first_year=2000, last_year=2000, shares=Shares(0.8, 0.1, 0.1)
    )
    assert dates_of_2000.source() == {"babel_version": babel.__version__, "cldr_version": babel.core.get_cldr_version()}


@pytest.mark.parametrize(("locale", "hint"), [("eng", "; did you mean 'en'"), ("xx", ""), ("en-US", "")])
def test_an_unknown_locale(locale, hint):
    with pytest.raises(DatasetError, match=f"dataset 'dates': unknown locale '{locale}'{hint}.* known: aa, .*, ko, "):
        write(START, locale, "full")


def test_without_babel(monkeypatch):
    monkeypatch.setitem(sys.modules, "babel.dates", None)
    with pytest.raises(DatasetError, match="come with Babel, which is not installed; pip install Babel"):
        write(START, "en", "full")
