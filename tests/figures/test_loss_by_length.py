from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PathCollection

from pipeline.figures import loss_by_length
from pipeline.quantities import GridTables
from tests.figures.conftest import grids
from tests.synthetic_results import Shape, Variant


def test_mean_is_geometric_over_replicas_that_did_not_diverge(broken: list[GridTables]) -> None:
    tables = broken[0]
    row = loss_by_length.table(tables).filter(arm="elman", length=20).row(0, named=True)
    sound = tables.runs.filter(pl.col("arm") == "elman", pl.col("length") == 20, pl.col("status") == "ok")
    assert row["loss"] == pytest.approx(math.prod(sound["test_loss"]) ** (1 / 2))
    assert row["num_seeds"] == 2
    assert "1 diverged, 1 ran out of time and 3 failed with an error" in loss_by_length.caption(tables)


@pytest.mark.parametrize(
    ("patience", "title"),
    [
        ({"elman": 25, "lstm": 5}, "Most seeds solve up to T = 100 with the LSTM, up to T = 20 with the Elman network"),
        ({"elman": 90, "lstm": 5}, "Most seeds solve up to T = 100 with the LSTM, no length with the Elman network"),
        ({"elman": 5, "lstm": 5}, "Every cell solves every length that was tried, up to T = 100"),
        ({"elman": 90, "lstm": 90}, "No cell reaches the criterion with most of its seeds, not even at T = 20"),
    ],
)
def test_title_follows_the_shares(patience: dict[str, float], title: str) -> None:
    shape = Shape(lengths=(20, 100), cells=("elman", "lstm"), digits_length=None, patience=patience)
    assert loss_by_length.title(grids(shape)[0]) == title


def test_title_without_a_criterion_is_about_the_loss(exact: list[GridTables]) -> None:
    runs = exact[0].runs.with_columns(pl.lit(None, pl.Float64).alias("training.stop_below"))
    runs = runs.with_columns(test_loss=pl.when(pl.col("arm") == "lstm").then(1e-4).otherwise(0.1))
    assert loss_by_length.title(replace(exact[0], runs=runs)) == "At T = 20 the LSTM has the lowest mean test loss"


def test_many_arms_have_a_legend_of_short_rows(many: GridTables) -> None:
    legend = loss_by_length.draw(many).legends[0]
    assert len(legend.get_texts()) == 12
    assert legend._ncols <= 4


def test_title_of_many_reaches_names_the_ends() -> None:
    patience = {"elman": 90.0, "lstm": 60.0, "gru": 18.0}
    variants = {f"v{i}": Variant("elman") for i in range(3)}
    tables = grids(Shape(lengths=(5, 10, 20, 40), digits_length=None, variants=variants, patience=patience))[0]
    order = pl.col("arm").str.slice(1).cast(pl.Int64)
    solved = pl.col("length") <= 5 * 2**order
    runs = tables.runs.with_columns(reached_criterion=solved)
    four = pl.concat(
        [runs, runs.filter(arm="v0").with_columns(arm=pl.lit("never"), reached_criterion=pl.lit(value=False))]
    )
    assert loss_by_length.title(replace(tables, runs=four)) == (
        "Most seeds solve up to T = 20 with v2 to no length with never; 2 arms lie between"
    )


def test_variants_are_arms_not_cells() -> None:
    variants = {"plain": Variant("gru"), "clipped": Variant("gru")}
    tables = grids(Shape(lengths=(20, 100), digits_length=None, variants=variants, patience={"gru": 5.0}))[0]
    assert loss_by_length.title(tables) == "Every arm solves every length that was tried, up to T = 100"
    never = replace(tables, runs=tables.runs.with_columns(reached_criterion=pl.lit(value=False)))
    assert loss_by_length.title(never).startswith("No arm reaches the criterion with most of its seeds")


@pytest.mark.parametrize(
    ("stop_on", "told"),
    [
        (pl.lit("validation_loss"), "whose validation loss fell below"),
        (pl.lit("validation_error"), "whose validation error fell below"),
        (
            pl.when(pl.col("arm") == "gru").then(pl.lit("validation_error")).otherwise(pl.lit("validation_loss")),
            "whose validation loss or validation error fell below",
        ),
    ],
)
def test_the_caption_says_what_the_criterion_is_about(exact: list[GridTables], stop_on: pl.Expr, told: str) -> None:
    runs = exact[0].runs.with_columns(stop_on.alias("training.stop_on"))
    assert told in loss_by_length.caption(replace(exact[0], runs=runs))


def test_without_a_criterion_the_caption_has_no_right_panel(exact: list[GridTables]) -> None:
    runs = exact[0].runs.with_columns(pl.lit(None, pl.Float64).alias("training.stop_below"))
    caption = loss_by_length.caption(replace(exact[0], runs=runs))
    assert caption.startswith("Test loss on adding")
    assert "right" not in caption.lower()


def test_a_replica_that_ran_out_of_time_is_a_point(broken: list[GridTables]) -> None:
    clouds = loss_by_length.draw(broken[0]).axes[0].collections
    num_points = sum(np.shape(cloud.get_offsets())[0] for cloud in clouds if isinstance(cloud, PathCollection))
    assert num_points == broken[0].runs["test_loss"].drop_nulls().len()
