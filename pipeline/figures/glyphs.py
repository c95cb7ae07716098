"""Tokens as text that the figures' font can write, the same on every machine."""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path

import matplotlib
import polars as pl
from matplotlib.font_manager import get_font

_CONTROLS = {"\n": "⏎", "\t": "⇥"}


def legible(text: str) -> str:
    """Return `text` with a sign for every line break, and a name for every letter that the font lacks.

    The name is the last word of Unicode's, «nyeon» of HANGUL SYLLABLE NYEON, or the code point, «U+5E74».
    """
    return "".join(_glyph(letter) for letter in text)


def as_label(token: str) -> str:
    """Return a token as `legible` text in which spaces are seen."""
    return "".join("␣" if letter.isspace() and letter not in _CONTROLS else _glyph(letter) for letter in token)


def are_letters(tokens: pl.Series) -> bool:
    """Return whether tokens are single letters; a few, such as «<eos>», need not be."""
    return bool(tokens.str.len_chars().median() == 1)


def _glyph(letter: str) -> str:
    if letter in _CONTROLS:
        return _CONTROLS[letter]
    if ord(letter) in _known():
        return letter
    name = unicodedata.name(letter, "").rpartition(" ")[2]
    return name.lower() if name.isalpha() else f"U+{ord(letter):04X}"


@functools.cache
def _known() -> frozenset[int]:
    """Return the code points of DejaVu Sans as matplotlib brings it, whatever fonts the machine has."""
    return frozenset(get_font(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")).get_charmap())
