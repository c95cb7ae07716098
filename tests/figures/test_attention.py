from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pipeline.figures.attention import attention_maps, attention_over_training, drawn_weights
from pipeline.figures.style import to_svg
from pipeline.quantities import Grid
from tests.quantities.conftest import shares
from tests.synthetic_attention import DATES, STEPS, attending, autoencoding, captioning, grid
from tests.synthetic_decoding import all_lost, with_tables

INSIDE = {"dot": 0.97, "general": 0.9}


@pytest.fixture(scope="module")
def tables() -> Grid:
    return grid(["none", *INSIDE], attending(INSIDE), broken={"dot#0": "diverged", "none#1": "error"})


@pytest.fixture(scope="module")
def trained() -> Grid:
    return grid(["none", *INSIDE], attending(INSIDE), num_seeds=3, broken={"general#2": "diverged"})


def weights(tables: Grid) -> pl.DataFrame:
    return drawn_weights(attention_maps.view(tables))


def test_maps_are_of_attention_to_tokens(tables: Grid) -> None:
    assert attention_maps.is_of(tables)
    assert not attention_maps.is_of(grid(["none"], attending({})))
    assert not attention_maps.is_of(grid(["lstm"], autoencoding))
    assert not attention_maps.is_of(grid(["plain"], captioning({"plain": 0.9})))


def test_weights_stand_beside_their_tokens(tables: Grid) -> None:
    drawn = weights(tables)
    assert drawn.select("arm", "seed", "step").unique(maintain_order=True).rows() == [
        ("dot", 1, 1000),
        ("general", 0, 1000),
    ]
    source, target, _ = DATES[1]
    day = drawn.filter(arm="dot", example=1, output_position=10, aligned=True)
    assert day.select("source_position", "source", "output").rows() == [(10, source[9], target[9])]
    assert day["weight"].to_list() == pytest.approx([0.97])
    sums = drawn.group_by("arm", "example", "output_position").agg(pl.col("weight").sum())
    assert sums["weight"].to_numpy() == pytest.approx(1)


def test_the_examples_are_the_most_and_the_least_reordered(tables: Grid) -> None:
    assert weights(tables)["example"].unique().sort().to_list() == [1, 2]  # Korean keeps ISO's order
    assert "Of 3 test sequences those are shown whose known alignment is" in attention_maps.view(tables).caption
    unknown = with_tables(tables, attention=tables["attention"].with_columns(aligned=pl.lit(None, pl.Boolean)))
    assert weights(unknown)["example"].unique().sort().to_list() == [0, 2]
    caption = attention_maps.view(unknown).caption
    assert "those are shown that come first and last" in caption
    assert "Inside the border" not in caption
    to_svg(attention_maps.draw(unknown))


def test_the_title_states_the_share_inside_the_alignment(tables: Grid) -> None:
    title = attention_maps.view(tables).title
    assert "96 % (dot) and 90 % (general) of characters" in title  # of dot one seed is left, of general two
    one = attention_maps.view(grid(["dot"], attending({"dot": 0.97}), num_seeds=1)).title
    assert "Dot" in one
    assert "97 % of characters" in one
    words = [(["trois", "cent"], ["three", "hundred"], [(0,), (1,)])]
    assert attention_maps.view(grid(["dot"], attending({"dot": 0.5}, dates=words))).title.endswith(" of tokens")
    curves = tables["curves"].filter(pl.col("metric") != "alignment_error")
    unknown = attention_maps.view(with_tables(tables, curves=curves))
    assert "no alignment is known" in unknown.title
    assert "mean over" not in unknown.caption


def test_maps_show_weights_tokens_and_border(tables: Grid) -> None:
    maps = [ax for ax in attention_maps.draw(tables).axes if ax.images]
    assert [ax.get_title(loc="left") for ax in maps] == ["a  dot", "", "b  general", ""]
    korean = maps[0]
    letters = [*"2024", "nyeon", "␣", "3", "weol", "␣", "5", "il"]
    assert [label.get_text() for label in korean.get_xticklabels()] == letters
    assert [label.get_text() for label in korean.get_yticklabels()] == [*"2024-03-05", "<eos>"]
    shown = np.asarray(korean.images[0].get_array())
    assert shown[0].argmax() == 0
    assert shown[9, 9] == pytest.approx(0.97)
    assert len(korean.collections[0].get_paths()) == 4 * 4 + 2 * 6  # four cells, and two that are two high


def test_the_caption_says_who_is_not_shown(tables: Grid) -> None:
    caption = attention_maps.view(tables).caption
    assert "Without attention, so without a panel: none." in caption
    assert "1 diverged and 1 failed with an error: diverged and failed ones are not shown" in caption
    assert "mean over 1 to 2 seeds" in caption
    assert "Cut" not in caption


def test_of_many_arms_three_have_a_row() -> None:
    inside = {f"arm {i}": 0.1 * i for i in range(1, 6)}
    tables = grid(list(inside), attending(inside))
    view = attention_maps.view(tables)
    assert view.shown == weights(tables)["arm"].unique(maintain_order=True).to_list() == ["arm 1", "arm 3", "arm 5"]
    assert "3 of 5 arms are shown" in view.caption
    assert "9 % (arm 1) to 50 % (arm 5)" in view.title


def test_long_sequences_are_cut_and_the_caption_says_so() -> None:
    long = [("$" * 80, "x" * 40, [(i,) for i in range(40)])] * 2
    tables = grid(["dot"], attending({"dot": 0.9}, dates=long), num_seeds=1)
    drawn = weights(tables)
    assert (drawn["source_position"].max(), drawn["output_position"].max()) == (58, 24)
    assert drawn["example"].unique().to_list() == [0]
    caption = attention_maps.view(tables).caption
    assert "Of 2 test sequences that one is shown whose" in caption
    assert "Cut after 58 source and 24 output tokens." in caption
    to_svg(attention_maps.draw(tables))


def with_entropy(tables: Grid, ends: list[float]) -> Grid:
    """The grid with the entropy of seeds 0, 1, 2 of each arm at the end of training."""
    at_end = (pl.col("metric") == "attention_entropy_nats") & (pl.col("step") == STEPS[-1])
    end = pl.col("seed").replace_strict(dict(enumerate(ends)), return_dtype=pl.Float64)
    value = pl.when(at_end).then(end).otherwise("value")
    return with_tables(tables, curves=tables["curves"].with_columns(value=value))


def test_entropy_needs_attention(trained: Grid) -> None:
    assert attention_over_training.is_of(trained)
    assert not attention_over_training.is_of(grid(["none"], attending({})))


def test_means_are_over_seeds_by_quantity_arm_and_step(trained: Grid) -> None:
    drawn = attention_over_training.view(trained).means
    assert drawn["step"].unique().sort().to_list() == list(STEPS)
    end = drawn.filter(quantity="alignment_error", step=STEPS[-1])
    means = [("dot", pytest.approx(0.04), 3), ("general", pytest.approx(0.11), 3)]
    assert end.select("arm", "mean", "num_seeds").rows() == means
    bounds = [shares([mean + step for step in (-0.01, 0.0, 0.01)])[1] for mean in (0.04, 0.11)]
    assert end["low"].to_list() == pytest.approx(bounds, abs=1e-4)


def test_an_alignment_error_stays_a_share_and_an_entropy_need_not(trained: Grid) -> None:
    wide = pl.when(seed=0).then(3.0 * pl.col("value")).otherwise("value")
    curves = trained["curves"].with_columns(value=wide)
    drawn = attention_over_training.view(with_tables(trained, curves=curves)).means
    assert drawn.filter(step=STEPS[-1])["low"].to_numpy().min() == 0.0
    assert drawn.filter(quantity="alignment_error")["high"].to_numpy().max() <= 1.0
    start = dict(drawn.filter(arm="dot", step=0).select("quantity", "high").iter_rows())
    high = pytest.approx(10 / 3 + 4.3027 * 4 / 3, abs=1e-3)
    assert start["attention_entropy_nats"] == high


@pytest.mark.parametrize(
    ("ends", "verb"),
    [
        ([0.1, 0.2, 0.15], "sharpens the attention of dot and general"),
        ([3.1, 3.2, 3.15], "widens the attention of dot and general"),
        ([0.1, 4.0, 2.0], "does not measurably change the attention of dot and general"),
    ],
)
def test_the_title_compares_end_and_start_seed_by_seed(trained: Grid, ends: list[float], verb: str) -> None:
    title = attention_over_training.view(with_entropy(trained, ends)).title
    assert verb in title
    assert title.endswith("4.0 % (dot) to 10.5 % (general)")


def test_titles_of_one_arm_one_seed_and_none(trained: Grid) -> None:
    one_arm = attention_over_training.view(grid(["dot"], attending(INSIDE), num_seeds=3)).title
    assert one_arm.endswith("ends at 4.0 %")
    one_seed = attention_over_training.view(grid(["dot"], attending(INSIDE), num_seeds=1)).title
    assert one_seed.startswith("One seed, no interval")
    assert one_seed.endswith("-2.0 nats")
    assert attention_over_training.view(all_lost(trained)).title.startswith("Inconclusive")


def test_a_panel_for_each_quantity_and_a_line_for_each_arm(trained: Grid) -> None:
    figure = attention_over_training.draw(trained)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a  Entropy of the weights", "b  Alignment error"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dot", "general"]
    assert figure.axes[1].lines[0].get_ydata()[-1] == pytest.approx(4.0)
    caption = attention_over_training.view(trained).caption
    assert "mean over 3 seeds with 95 % interval" in caption
    assert "1 diverged: they are part of the means" in caption


def test_without_an_alignment_there_is_no_panel_for_it(trained: Grid) -> None:
    unknown = with_tables(trained, curves=trained["curves"].filter(metric="attention_entropy_nats"))
    assert len(attention_over_training.draw(unknown).axes) == 1
    view = attention_over_training.view(unknown)
    assert "lignment" not in view.title + view.caption


def test_a_finding_over_very_many_arms_is_of_those_that_are_drawn() -> None:
    inside = {f"η = {number}": 0.5 + number / 1000 for number in range(40)}
    view = attention_over_training.view(grid(list(inside), attending(inside, dates=DATES[:1])))
    assert view.title.startswith("Of 12 arms that are drawn: Training ")
    assert view.title.count("and 10 others") == 1
    assert "(the lowest and highest of 40 arms)" in view.caption
    assert "12 of 40 arms are shown" in view.caption
