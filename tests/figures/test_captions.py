from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from pipeline.figures import captions
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_attention import attending, captioning, grid

INSIDE = {"plain": 0.8, "doubly stochastic": 0.6}
ERRORS = {"plain": 0.1, "doubly stochastic": 0.05}


def errors(arm: str, seed: int) -> dict[str, object]:
    return {"test_error": ERRORS[arm] + 0.01 * seed}


@pytest.fixture(scope="module")
def tables() -> GridTables:
    broken = {"doubly stochastic#0": "diverged", "plain#1": "error"}
    return grid(list(INSIDE), captioning(INSIDE), num_seeds=3, broken=broken, trial=errors)


def test_it_applies_where_attention_to_images_was_traced(tables: GridTables) -> None:
    assert captions.applies(tables)
    assert not captions.applies(grid(["dot"], attending({"dot": 0.9})))


def test_the_table_has_the_weights_of_the_best_arm_with_its_words(tables: GridTables) -> None:
    drawn = captions.table(tables)
    assert drawn.select("arm", "seed").unique().rows() == [("doubly stochastic", 1)]
    words = drawn.select("example", "output_position", "written", "true").unique(maintain_order=True)
    assert words.rows()[3:] == [(1, 1, "seven", "seven"), (1, 2, "one", "four"), (1, 3, "<eos>", "<eos>")]
    inside = drawn.filter("aligned")
    assert inside["source_position"].to_list() == [3, 9, 2, 11]
    assert inside["weight"].to_list() == pytest.approx([0.6] * 4)


def test_the_title_states_right_captions_and_attention(tables: GridTables) -> None:
    assert captions.title(tables) == (
        "«doubly stochastic» writes 94 % of captions exactly right and has 60 % of its attention inside the right place"
    )
    unknown = replace(
        tables, curves=tables.curves.clear(), runs=tables.runs.with_columns(test_error=pl.lit(None, pl.Float64))
    )
    assert captions.title(unknown) == "Plain looks at images while it writes"


@pytest.mark.parametrize(
    ("num_cells", "aspect", "grid"),
    [(12, 8 / 24, (2, 6)), (49, 1.0, (7, 7)), (70, 20 / 60, (5, 14)), (14, 0.5, (2, 7))],
)
def test_cells_are_as_square_as_can_be(num_cells: int, aspect: float, grid: tuple[int, int]) -> None:
    assert captions.cells_of(num_cells, aspect) == grid


def test_each_word_has_its_image_under_a_veil(tables: GridTables) -> None:
    panels = [ax for ax in captions.draw(tables).axes if ax.get_visible()]
    told = [ax.get_title(loc="left") for ax in panels]
    assert told == ["image", "three", "nine", "<eos>", "image", "seven", "one ≠ four", "<eos>"]
    veil = np.asarray(panels[6].images[1].get_array())[..., 3]  # the second word, of cell 10
    clear = 0.4 / 11 / 0.6  # of a cell outside, relative to the one inside
    expected = np.full(12, captions.OPACITY * (1 - clear))
    expected[10] = 0.0
    assert veil.ravel() == pytest.approx(expected)
    (border,) = panels[6].collections
    assert np.ptp(np.concatenate([path.vertices for path in border.get_paths()]), axis=0).tolist() == [4, 4]


def test_the_caption_says_what_is_shown(tables: GridTables) -> None:
    caption = captions.caption(tables)
    assert "the words of «doubly stochastic» (each arm's first seed that did not diverge" in caption
    assert "over 2 seeds with 95 % Student-t interval: plain 0.11" in caption
    assert "1 diverged and 1 failed with an error: diverged and failed ones are not shown" in caption
    assert "Cut" not in caption


def test_long_captions_are_cut_and_a_missing_word_is_told(tables: GridTables) -> None:
    twice = pl.concat([tables.attention, tables.attention.with_columns(pl.col("output_position") + 3)])
    long = replace(tables, attention=twice)
    assert "Cut after 5 words." in captions.caption(long)
    panels = [ax for ax in captions.draw(long).axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in panels[:6]] == ["image", "three", "nine", "<eos>", "–", "–"]
    early = replace(tables, tokens=tables.tokens.filter((pl.col("sequence") == "target") | (pl.col("position") < 2)))
    titles = [ax.get_title(loc="left") for ax in captions.draw(early).axes]
    assert titles[:4] == ["image", "three", "– ≠ nine", "– ≠ <eos>"]


def test_images_may_be_left_by_another_replica(tables: GridTables) -> None:
    elsewhere = replace(tables, images=tables.images.filter(arm="plain", seed=2))
    assert captions.table(elsewhere).equals(captions.table(tables))
    assert to_svg(captions.draw(elsewhere)) == to_svg(captions.draw(tables))


def test_one_seed_without_a_known_alignment() -> None:
    one = grid(["plain"], captioning(INSIDE), num_seeds=1, trial=lambda arm, seed: {"test_error": 0.0})
    blank = replace(one, attention=one.attention.with_columns(aligned=pl.lit(None, pl.Boolean)))
    assert "Inside the border" in captions.caption(one)
    assert "Inside the border" not in captions.caption(blank)
    to_svg(captions.draw(blank))
