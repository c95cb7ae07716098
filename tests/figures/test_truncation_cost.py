from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from pipeline.figures import truncation_cost
from pipeline.quantities import GridTables

LENGTH = truncation_cost.LENGTH


def with_runs(tables: GridTables, losses: dict[int | None, list[float]], cell: str = "lstm") -> GridTables:
    rows = [
        {"arm": f"K = {K}", "length": 20, "seed": seed, "status": "ok", "test_loss": loss, "test_error": None}
        | {LENGTH: K, "model.cell": cell, "dataset.name": "adding", "step_time_s": 0.001 * (K or 20)}
        | {"activation_bytes": 2**20 * (K or 20)}
        for K, own in losses.items()
        for seed, loss in enumerate(own)
    ]
    schema = {LENGTH: pl.Int64, "test_error": pl.Float64}
    return replace(tables, runs=pl.DataFrame(rows, schema_overrides=schema))


def test_full_backpropagation_stands_at_the_sequence_length(exact: list[GridTables]) -> None:
    tables = with_runs(exact[0], {5: [0.1, 0.3], None: [0.1, 0.1]})
    drawn = truncation_cost.table(tables)
    columns = drawn.select("quantity", "backward_length", "full", "mean").rows()
    assert columns == [
        ("activation_bytes", 5, False, 5.0),
        ("activation_bytes", 20, True, 20.0),
        ("loss", 5, False, pytest.approx(0.2)),
        ("loss", 20, True, pytest.approx(0.1)),
        ("step_time_s", 5, False, pytest.approx(5.0)),
        ("step_time_s", 20, True, pytest.approx(20.0)),
    ]
    assert drawn["series"].unique().to_list() == ["lstm"]
    axis = truncation_cost.draw(tables).axes[0].xaxis
    assert [label.get_text() for label in axis.get_ticklabels()] == ["5", "full\n(20)"]


@pytest.mark.parametrize(
    ("losses", "title"),
    [
        (
            {5: [0.3, 0.31], 10: [0.1, 0.12], None: [0.11, 0.11]},
            "A backward length of 10 is not shown to be worse than full backpropagation and takes 50 % of its time a "
            "step; one of 5 is worse",
        ),
        (
            {5: [0.3, 0.31], 10: [0.2, 0.21], None: [0.11, 0.12]},
            "Every truncation costs test loss: a backward length of 10 is still worse than full backpropagation",
        ),
        ({5: [0.3], None: [0.1]}, "One pair of seeds, no interval: the cost of truncation is not established"),
        (
            {9: [0.3], 19: [0.1]},
            "Lowest mean test loss at a backward length of 19; full backpropagation was not run",
        ),
    ],
)
def test_title_names_the_shortest_that_is_not_worse(
    exact: list[GridTables], losses: dict[int | None, list[float]], title: str
) -> None:
    assert truncation_cost.title(with_runs(exact[0], losses)) == title


def diverged(tables: GridTables, lost: pl.Expr) -> GridTables:
    status = pl.when(lost).then(pl.lit("diverged")).otherwise("status")
    return replace(tables, runs=tables.runs.with_columns(status=status))


@pytest.mark.parametrize(
    ("lost", "title"),
    [
        (pl.lit(value=True), "Inconclusive: no replica finished training"),
        (
            pl.col(LENGTH).is_null(),
            "Lowest mean test loss at a backward length of 5; full backpropagation did not finish",
        ),
        (
            pl.col(LENGTH).is_not_null(),
            "No truncated replica finished: full backpropagation has nothing beside it",
        ),
    ],
)
def test_what_diverged_leaves_a_figure_that_says_so(exact: list[GridTables], lost: pl.Expr, title: str) -> None:
    tables = diverged(with_runs(exact[0], {5: [0.1, 0.3], None: [0.1, 0.1]}), lost)
    assert truncation_cost.title(tables) == title
    told = [text.get_text() for ax in truncation_cost.draw(tables).axes for text in ax.texts]
    assert told == (["no replica finished"] * 3 if title.startswith("Inconclusive") else [])
    assert "diverged: diverged and failed ones are in no mean" in truncation_cost.caption(tables)


def test_time_and_memory_are_one_measurement_a_setting(exact: list[GridTables]) -> None:
    tables = with_runs(exact[0], {9: [0.1, 0.3], None: [0.1, 0.2]})
    shared = truncation_cost.table(tables).filter(pl.col("quantity") != "loss")
    assert shared.select("low", "high", "num_seeds").unique().rows() == [(None, None, 1)]
    caption, (loss, *others) = truncation_cost.caption(tables), truncation_cost.draw(tables).axes
    assert "means over 2 seeds" in caption
    assert "one measurement a setting" in caption
    assert [_num_points(ax) for ax in (loss, *others)] == [4, 0, 0]
    assert [_num_bars(ax) for ax in (loss, *others)] == [2, 0, 0]


def _num_points(ax: Axes) -> int:
    return sum(np.shape(cloud.get_offsets())[0] for cloud in ax.collections if isinstance(cloud, PathCollection))


def _num_bars(ax: Axes) -> int:
    """The number of intervals that are seen."""
    segments = [path for bars in ax.containers for group in bars[2] for path in group.get_segments()]
    return sum(bool(np.isfinite(path).all()) and len(path) > 0 for path in segments)


def test_the_axis_is_the_backward_length_whatever_arms_are_called(exact: list[GridTables]) -> None:
    tables = with_runs(exact[0], {9: [0.1, 0.3], 19: [0.1, 0.2]})
    assert {ax.get_xlabel() for ax in truncation_cost.draw(tables).axes} == {"backward length"}
    assert "K" not in truncation_cost.caption(tables) + truncation_cost.title(tables)


def test_a_loss_in_nats_is_drawn_as_perplexity(exact: list[GridTables]) -> None:
    tables = with_runs(exact[0], {5: [0.0, 0.0], None: [0.0, 0.0]})
    tables = replace(tables, runs=tables.runs.with_columns(test_error=pl.lit(0.5)))
    assert truncation_cost.table(tables).filter(quantity="loss")["mean"].to_list() == [1.0, 1.0]


def test_arms_that_differ_otherwise_are_series_of_their_own(exact: list[GridTables]) -> None:
    tables = with_runs(exact[0], {5: [0.1], None: [0.2]})
    other = tables.runs.with_columns(arm=pl.col("arm") + ", clipped")
    both = replace(tables, runs=pl.concat([tables.runs, other]))
    assert truncation_cost.table(both)["series"].n_unique() == 4


def test_grids_of_one_length_have_none(exact: list[GridTables]) -> None:
    assert not truncation_cost.applies(exact[0])
    assert not truncation_cost.applies(with_runs(exact[0], {5: [0.1]}))
