from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import attention_over_training
from pipeline.quantities import GridTables
from tests.synthetic_attention import STEPS, attending, grid

INSIDE = {"dot": 0.97, "general": 0.9}


@pytest.fixture(scope="module")
def tables() -> GridTables:
    return grid(["none", *INSIDE], attending(INSIDE), num_seeds=3, broken={"general#2": "diverged"})


def with_entropy(tables: GridTables, ends: list[float]) -> GridTables:
    """The grid with the entropy of seeds 0, 1, 2 of each arm at the end of training."""
    at_end = (pl.col("metric") == "attention_entropy_nats") & (pl.col("step") == STEPS[-1])
    end = pl.col("seed").replace_strict(dict(enumerate(ends)), return_dtype=pl.Float64)
    return replace(tables, curves=tables.curves.with_columns(value=pl.when(at_end).then(end).otherwise("value")))


def test_it_applies_where_the_entropy_was_recorded(tables: GridTables) -> None:
    assert attention_over_training.applies(tables)
    assert not attention_over_training.applies(grid(["none"], attending({})))


def test_means_are_over_seeds_by_metric_arm_and_step(tables: GridTables) -> None:
    drawn = attention_over_training.table(tables)
    assert drawn["step"].unique().sort().to_list() == list(STEPS)
    end = drawn.filter(metric="alignment_error", step=STEPS[-1])
    assert end.select("arm", "mean", "num_seeds").rows() == [
        ("dot", pytest.approx(0.04), 3),
        ("general", pytest.approx(0.11), 3),
    ]
    assert end["low"].to_list() == pytest.approx(
        [0.04 - 4.3027 * 0.01 / 3**0.5, 0.11 - 4.3027 * 0.01 / 3**0.5], abs=1e-4
    )


def test_an_alignment_error_stays_a_share_and_an_entropy_need_not(tables: GridTables) -> None:
    wide = pl.when(seed=0).then(3.0 * pl.col("value")).otherwise("value")
    drawn = attention_over_training.table(replace(tables, curves=tables.curves.with_columns(value=wide)))
    assert drawn.filter(step=STEPS[-1])["low"].to_list() == [0.0] * 4
    start = drawn.filter(arm="dot", step=0).select("metric", "high").rows()
    assert start == [
        ("alignment_error", 1.0),
        ("attention_entropy_nats", pytest.approx(10 / 3 + 4.3027 * 4 / 3, abs=1e-3)),
    ]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([0.1, 0.2, 0.15], "sharpens the attention of dot and general"),
        ([3.1, 3.2, 3.15], "widens the attention of dot and general"),
        ([0.1, 4.0, 2.0], "does not measurably change the attention of dot and general"),
    ],
)
def test_the_title_compares_end_and_start_seed_by_seed(tables: GridTables, ends: list[float], said: str) -> None:
    title = attention_over_training.title(with_entropy(tables, ends))
    assert title == f"Training {said}; the alignment error ends at 4.0 % (dot) to 10.5 % (general)"


def test_of_one_arm_the_title_names_it_once() -> None:
    title = attention_over_training.title(grid(["dot"], attending(INSIDE), num_seeds=3))
    assert title == "Training sharpens the attention of dot; the alignment error ends at 4.0 %"


def test_titles_of_one_seed_and_of_none(tables: GridTables) -> None:
    one = grid(["dot"], attending(INSIDE), num_seeds=1)
    assert attention_over_training.title(one) == (
        "One seed, no interval: the entropy of dot's weights changes by -2.0 nats"
    )
    lost = replace(tables, curves=tables.curves.with_columns(status=pl.lit("diverged")))
    assert attention_over_training.title(lost) == "Inconclusive: no replica finished training"


def test_a_panel_for_each_metric_and_a_line_for_each_arm(tables: GridTables) -> None:
    figure = attention_over_training.draw(tables)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a  Entropy of the weights", "b  Alignment error"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dot", "general"]
    assert figure.axes[1].lines[0].get_ydata()[-1] == pytest.approx(4.0)
    caption = attention_over_training.caption(tables)
    assert "mean over 3 seeds with 95 % Student-t interval" in caption
    assert "1 diverged: they are part of the means" in caption


def test_without_an_alignment_there_is_no_panel_for_it(tables: GridTables) -> None:
    unknown = replace(tables, curves=tables.curves.filter(metric="attention_entropy_nats"))
    assert len(attention_over_training.draw(unknown).axes) == 1
    assert attention_over_training.title(unknown) == "Training sharpens the attention of dot and general"
    assert "lignment" not in attention_over_training.caption(unknown)
