from __future__ import annotations

import polars as pl
import pytest

from pipeline.figures.glyphs import are_letters, as_label, legible


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("août 5,", "août 5,"),
        ("년", "nyeon"),  # HANGUL SYLLABLE NYEON
        ("3월", "3weol"),
        ("年", "U+5E74"),  # its name ends in its code point
        ("\a", "U+0007"),  # it has no name
        ("a\n\tb", "a⏎⇥b"),
    ],
)
def test_what_the_font_lacks_is_named(text: str, told: str) -> None:
    assert legible(text) == told


def test_spaces_are_seen_in_a_label() -> None:
    assert [as_label(token) for token in (" ", "\u202f", "\n", "of the", "일")] == ["␣", "␣", "⏎", "of␣the", "il"]
    assert legible("of the") == "of the"


def test_a_few_special_tokens_are_among_letters() -> None:
    assert are_letters(pl.Series(["a", "b", "<eos>"]))
    assert not are_letters(pl.Series(["one", "two", "a"]))
    assert not are_letters(pl.Series([], dtype=pl.String))
