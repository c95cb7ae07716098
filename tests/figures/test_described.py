"""The figure of texts that speak of images: whose looks it shows, what it says of them, and what stands where."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes

from pipeline.figures.described import descriptions
from pipeline.figures.examples import OPACITY, captions
from pipeline.figures.style import to_svg
from pipeline.quantities import Grid
from pipeline.report import explorer
from tests.synthetic_attention import attending, captioning, describing, grid
from tests.synthetic_decoding import with_tables

ERRORS = {"none": 0.02, "dot": 0.2, "fed back": 0.1}
INSIDE = {"dot": 0.5, "fed back": 0.7}


@pytest.fixture(scope="module")
def described() -> Grid:
    broken = {"fed back#0": "diverged", "dot#1": "error"}
    errors = lambda arm, seed: {"test_error": ERRORS[arm] + 0.01 * seed}  # noqa: E731
    return grid(list(ERRORS), describing(INSIDE), num_seeds=3, broken=broken, trial=errors)


def panels(tables: Grid) -> list[Axes]:
    return [ax for ax in descriptions.draw(tables).axes if ax.get_visible()]


def titles(axes: list[Axes]) -> list[str]:
    return [ax.get_title(loc="left") for ax in axes]


def test_it_is_of_texts_of_images_and_captions_are_not(described: Grid) -> None:
    assert descriptions.is_of(described)
    assert not captions.is_of(described)
    for other in (captioning({"a": 0.9}), attending({"a": 0.9})):
        assert not descriptions.is_of(grid(["a"], other))


def test_looks_are_those_of_the_best_arm_that_attends_word_by_word(described: Grid) -> None:
    drawn = descriptions.view(described).rows
    assert drawn.select("arm", "seed").unique().rows() == [("fed back", 1)]
    words = drawn.select("example", "output_position", "word", "answer", "true").unique(maintain_order=True)
    assert words.filter(example=0).rows() == [
        (0, 1, "left", "three", "three"),
        (0, 2, "of", "three", "three"),
        (0, 3, "seven", "three", "three"),
        (0, 4, "<eos>", "three", "three"),
    ]
    inside = drawn.filter("aligned")
    assert inside["word"].to_list() == ["<eos>"] * 3
    assert inside["source_position"].to_list() == [5, 3, 10]
    assert inside["weight"].to_list() == pytest.approx([0.7] * 3)


def test_title_and_caption_say_how_good_it_is_and_where_it_looked(described: Grid) -> None:
    view = descriptions.view(described)
    assert view.title == "«fed back» gets 88 % of texts right and has 70 % of its last look on what they describe"
    assert "(of an even map in these examples 8 %): dot: 0.5" in view.caption
    assert "Inside the border: what the text describes." in view.caption
    assert "Share of wrong answers over 2 to 3 seeds with 95 % interval: none: 0.03" in view.caption
    assert "that it read of each; where an answer is wrong, the true one follows ≠." in view.caption
    assert "Cut" not in view.caption


def test_each_word_stands_above_what_it_looked_at(described: Grid) -> None:
    axes = panels(described)
    assert titles(axes[:5]) == ["three", "left", "of", "seven", "<eos>"]
    assert titles(axes[5:12]) == ["one ≠ nine", "last", "in", "the", "upper", "line", "<eos>"]
    assert titles(axes[12:]) == ["six", "above", "two", "<eos>"]
    veil = np.asarray(axes[4].images[1].get_array())[..., 3]
    expected = np.full(12, OPACITY * (1 - 0.3 / 11 / 0.7))
    expected[4] = 0.0
    assert veil.ravel() == pytest.approx(expected)
    bordered = [bool(ax.collections and len(ax.collections[0].get_paths())) for ax in axes[:5]]
    assert bordered == [False, False, False, False, True]


def test_long_texts_are_cut_and_an_unknown_answer_is_no_claim(described: Grid) -> None:
    attention, tokens = described["attention"], described["tokens"]
    further = with_tables(
        described,
        attention=pl.concat([attention, attention.with_columns(pl.col("output_position") + 6)]),
        tokens=pl.concat([tokens, tokens.filter(sequence="words").with_columns(pl.col("position") + 6)]),
    )
    assert "Cut after 8 words." in descriptions.view(further).caption
    assert max(descriptions.view(further).rows["output_position"]) == 8
    runs = described.runs.with_columns(test_error=pl.lit(None, pl.Float64))
    unknown = descriptions.view(with_tables(described, runs=runs, curves=described["curves"].clear()))
    assert "looks at images while it reads" in unknown.title
    to_svg(descriptions.draw(further))


def test_the_explorer_writes_each_word_beside_where_it_looked(described: Grid) -> None:
    attention, tokens = (described[table].filter(arm="dot") for table in ("attention", "tokens"))
    first = explorer._maps(attention, tokens)[0]
    assert first["outputs"] == ["left", "of", "seven", "<eos>"]
    assert first["sources"] == [str(cell) for cell in range(1, 13)]
