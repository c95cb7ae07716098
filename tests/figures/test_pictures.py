from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from pipeline.figures.pictures import are_letters, as_grid, as_label, legible, of_first_seed, outline
from tests.synthetic_attention import STEPS, attending, grid


def test_the_first_seed_that_did_not_diverge_is_shown_at_its_last_step() -> None:
    tables = grid(["dot", "general"], attending({"dot": 0.9, "general": 0.8}), broken={"dot#0": "diverged"})
    shown = of_first_seed(tables, "attention").select("arm", "seed", "step").unique().sort("arm")
    assert shown.rows() == [("dot", 1, STEPS[-1]), ("general", 0, STEPS[-1])]


def test_a_grid_is_in_the_order_of_its_positions() -> None:
    rows = pl.DataFrame({"i": [2, 1, 2, 1, 1, 2], "j": [1, 2, 3, 1, 3, 2], "value": [4, 2, 6, 1, 3, 5]})
    assert as_grid(rows, "i", "j", "value").tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_border_goes_around_cells_and_not_between_them() -> None:
    ax = Figure().subplots()
    outline(ax, np.array([[False, True, True]]), width=2.0, height=3.0)
    edges = {tuple(sorted(map(tuple, edge.vertices.tolist()))) for edge in ax.collections[0].get_paths()}
    across = {((x, y), (x + 2, y)) for x in (2.0, 4.0) for y in (0.0, 3.0)}
    assert edges == across | {((x, 0.0), (x, 3.0)) for x in (2.0, 6.0)}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("août 5,", "août 5,"),
        ("년", "nyeon"),  # HANGUL SYLLABLE NYEON
        ("3월", "3weol"),
        ("年", "U+5E74"),  # its name ends in its code point
        ("\a", "U+0007"),  # it has no name
        ("a\n\tb", "a⏎⇥b"),
    ],
)
def test_what_the_font_lacks_is_named(text: str, shown: str) -> None:
    assert legible(text) == shown


def test_spaces_are_seen_in_a_label() -> None:
    assert [as_label(token) for token in (" ", "\u202f", "\n", "of the", "일")] == ["␣", "␣", "⏎", "of␣the", "il"]
    assert legible("of the") == "of the"


def test_a_few_special_tokens_are_among_letters() -> None:
    assert are_letters(pl.Series(["a", "b", "<eos>"]))
    assert not are_letters(pl.Series(["one", "two", "a"]))
    assert not are_letters(pl.Series([], dtype=pl.String))
