from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from pipeline.figures import attention_maps
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_attention import DATES, attending, autoencoding, captioning, grid

INSIDE = {"dot": 0.97, "general": 0.9}


@pytest.fixture(scope="module")
def tables() -> GridTables:
    return grid(["none", *INSIDE], attending(INSIDE), broken={"dot#0": "diverged", "none#1": "error"})


def test_it_applies_where_attention_to_tokens_was_traced(tables: GridTables) -> None:
    assert attention_maps.applies(tables)
    assert not attention_maps.applies(grid(["none"], attending({})))
    assert not attention_maps.applies(grid(["lstm"], autoencoding))
    assert not attention_maps.applies(grid(["plain"], captioning({"plain": 0.9})))


def test_the_table_has_the_weights_with_their_tokens(tables: GridTables) -> None:
    drawn = attention_maps.table(tables)
    assert drawn.select("arm", "seed", "step").unique(maintain_order=True).rows() == [
        ("dot", 1, 1000),
        ("general", 0, 1000),
    ]
    source, target, _ = DATES[1]
    day = drawn.filter(arm="dot", example=1, output_position=10, aligned=True)
    assert day.select("source_position", "source", "output").rows() == [(10, source[9], target[9])]
    assert day["weight"].to_list() == pytest.approx([0.97])
    assert drawn.group_by("arm", "example", "output_position").agg(pl.col("weight").sum())[
        "weight"
    ].to_numpy() == pytest.approx(1)


def test_the_examples_are_the_most_and_the_least_reordered(tables: GridTables) -> None:
    assert attention_maps.table(tables)["example"].unique().sort().to_list() == [1, 2]  # Korean keeps ISO's order
    assert "Of 3 test sequences those are shown whose known alignment is least and most in" in attention_maps.caption(
        tables
    )
    unknown = replace(tables, attention=tables.attention.with_columns(aligned=pl.lit(None, pl.Boolean)))
    assert attention_maps.table(unknown)["example"].unique().sort().to_list() == [0, 2]
    assert "those are shown that come first and last" in attention_maps.caption(unknown)
    assert "Inside the border" not in attention_maps.caption(unknown)
    to_svg(attention_maps.draw(unknown))


def test_the_title_states_the_share_inside_the_alignment(tables: GridTables) -> None:
    assert attention_maps.title(tables) == (
        "The largest weight lies inside the known alignment for 96 % (dot) and 90 % (general) of characters"
    )
    one = grid(["dot"], attending({"dot": 0.97}), num_seeds=1)
    assert attention_maps.title(one) == "Dot looks inside the known alignment for 97 % of characters"
    words = [(["trois", "cent"], ["three", "hundred"], [(0,), (1,)])]
    assert attention_maps.title(grid(["dot"], attending({"dot": 0.5}, dates=words))).endswith(" of tokens")
    curves = tables.curves.filter(pl.col("metric") != "alignment_error")
    unknown = attention_maps.title(replace(tables, curves=curves))
    assert unknown == "Where dot and general look in the source; no alignment is known"


def test_maps_show_weights_tokens_and_border(tables: GridTables) -> None:
    figure = attention_maps.draw(tables)
    maps = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in maps] == ["a  dot", "", "b  general", ""]
    korean = maps[0]
    assert [label.get_text() for label in korean.get_xticklabels()] == list("2024") + [
        "nyeon",
        "␣",
        "3",
        "weol",
        "␣",
        "5",
        "il",
    ]
    assert [label.get_text() for label in korean.get_yticklabels()] == [*"2024-03-05", "<eos>"]
    weights = korean.images[0].get_array()
    assert np.asarray(weights)[0].argmax() == 0
    assert np.asarray(weights)[9, 9] == pytest.approx(0.97)
    assert len(korean.collections[0].get_paths()) == 4 * 4 + 2 * 6  # four cells, and two that are two high


def test_the_caption_says_who_is_not_shown(tables: GridTables) -> None:
    caption = attention_maps.caption(tables)
    assert "Without attention, so without a panel: none." in caption
    assert "1 diverged and 1 failed with an error: diverged and failed ones are not shown" in caption
    assert "mean over 1 to 2 seeds" in caption
    assert "Cut" not in caption


def test_of_many_arms_three_have_a_row() -> None:
    inside = {f"arm {i}": 0.1 * i for i in range(1, 6)}
    tables = grid(list(inside), attending(inside))
    assert attention_maps.table(tables)["arm"].unique(maintain_order=True).to_list() == ["arm 1", "arm 3", "arm 5"]
    assert "3 of 5 arms are shown" in attention_maps.caption(tables)
    assert "for 9 % (arm 1) to 50 % (arm 5) of" in attention_maps.title(tables)


def test_long_sequences_are_cut_and_the_caption_says_so() -> None:
    long = [("$" * 80, "x" * 40, [(i,) for i in range(40)])] * 2
    tables = grid(["dot"], attending({"dot": 0.9}, dates=long), num_seeds=1)
    drawn = attention_maps.table(tables)
    assert (drawn["source_position"].max(), drawn["output_position"].max()) == (58, 24)
    assert drawn["example"].unique().to_list() == [0]
    assert "Of 2 test sequences that one is shown whose" in attention_maps.caption(tables)
    assert "Cut after 58 source and 24 output tokens." in attention_maps.caption(tables)
    to_svg(attention_maps.draw(tables))
