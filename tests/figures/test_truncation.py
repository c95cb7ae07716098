from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from pipeline.figures.style import to_svg
from pipeline.figures.truncation import LENGTH, InfluenceBalancing, truncation_bias, truncation_cost
from pipeline.quantities import Grid
from tests.quantities.test_truncation import with_errors
from tests.synthetic_decoding import with_tables
from tests.synthetic_dynamics import dynamical_grid


@pytest.fixture(scope="module")
def measured() -> Grid:
    return dynamical_grid()


@pytest.mark.parametrize(
    ("errors", "parts"),
    [
        ({1: [0.5, 0.4], 5: [0.05, 0.05], 9: [0.01, 0.02]}, ["less than 10 % in every seed", "at least 5 in the GRU"]),
        ({1: [0.5, 0.4], 5: [0.05, 0.05], 9: [0.01, 0.2]}, ["no truncation up to K = 9", "in every seed"]),
        ({1: [0.5], 5: [math.nan]}, ["no truncation up to K = 5", "in the only seed"]),
    ],
)
def test_the_title_states_what_is_long_enough(measured: Grid, errors: dict[int, list[float]], parts: list[str]) -> None:
    title = truncation_bias.view(with_errors(measured, errors)).title
    assert all(part in title for part in parts)


def test_arms_that_need_more_than_was_tried_are_named(measured: Grid) -> None:
    title = truncation_bias.view(measured).title
    assert "at least 20 in the Elman network" in title
    assert "none up to 20 is long enough in the LSTM and the GRU" in title


def test_the_bound_is_checked_where_it_says_something(measured: Grid) -> None:
    errors = {1: [0.5, 0.4], 5: [0.05, 0.3]}
    caption = truncation_bias.view(with_errors(measured, errors, 0.1)).caption
    assert "The bound holds in 1 of 4 measurements." in caption
    assert "The bound holds" not in truncation_bias.view(with_errors(measured, errors)).caption


def test_an_error_of_zero_is_in_no_mean(measured: Grid) -> None:
    means = truncation_bias.view(with_errors(measured, {5: [0.1, 0.0]})).means
    row = means.filter(quantity="error").row(0, named=True)
    assert (row["mean"], row["num_seeds"], row["num_nonfinite"]) == (pytest.approx(-1.0), 1, 1)


def test_the_interval_of_a_cosine_ends_at_1(measured: Grid) -> None:
    """Student's t of three seeds at 1, 1 and .4 goes far beyond."""
    cosine = pl.when(pl.col("seed") == 0).then(0.4).otherwise(1.0)
    rows = measured["truncation"].with_columns(cosine=cosine)
    means = truncation_bias.view(with_tables(measured, truncation=rows)).means.filter(quantity="cosine")
    assert means["mean"].to_numpy() == pytest.approx(0.8)
    assert means["high"].unique().to_list() == [1.0]


def test_every_row_says_what_it_shows_and_has_its_theory(measured: Grid) -> None:
    axes = truncation_bias.draw(measured).axes
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["a  At initialisation", "b  At the end of training"]
    labels = [ax.get_ylabel().split("\n")[0] for ax in axes[::2]]
    assert labels == ["relative error", "cosine with", "norm φ_K of the gradient"]
    assert [len(ax.lines) for ax in axes[::2]] == [3 + 3 + 1, 3, 3 + 3]


def with_runs(
    tables: Grid, losses: Mapping[int | None, list[float]], cell: str = "lstm", lost: pl.Expr | None = None
) -> Grid:
    """Return a grid with an arm per backward length, whose step time and memory are proportional to it."""
    rows = [
        {"arm": f"K = {K}", "length": 20, "seed": seed, "status": "ok", "test_loss": loss, "test_error": None}
        | {LENGTH: K, "model.cell": cell, "dataset.name": "adding", "step_time_s": 0.001 * (K or 20)}
        | {"activation_bytes": 2**20 * (K or 20), "dataset.length": 20}
        for K, own in losses.items()
        for seed, loss in enumerate(own)
    ]
    runs = pl.DataFrame(rows, schema_overrides={LENGTH: pl.Int64, "test_error": pl.Float64})
    if lost is not None:
        runs = runs.with_columns(status=pl.when(lost).then(pl.lit("diverged")).otherwise("status"))
    return with_tables(tables, runs=runs)


def test_costs_need_arms_that_differ_in_their_backward_length(measured: Grid) -> None:
    assert truncation_cost.is_of(with_runs(measured, {5: [0.1], None: [0.1]}))
    assert not truncation_cost.is_of(with_runs(measured, {5: [0.1]}))
    assert not truncation_cost.is_of(measured)


def test_full_backpropagation_stands_at_the_sequence_length(measured: Grid) -> None:
    tables = with_runs(measured, {5: [0.1, 0.3], None: [0.1, 0.1]})
    view = truncation_cost.view(tables)
    assert view.means.select("which", "backward_length", "full", "mean").rows() == [
        ("loss", 5, False, pytest.approx(math.log10(0.03) / 2)),
        ("loss", 20, True, pytest.approx(-1.0)),
        ("time", 5, False, pytest.approx(5.0)),
        ("time", 20, True, pytest.approx(20.0)),
        ("memory", 5, False, 5.0),
        ("memory", 20, True, 20.0),
    ]
    assert view.arms == ["lstm"]
    figure = truncation_cost.draw(tables)
    assert [[text.get_text() for text in ax.texts] for ax in figure.axes] == [["full"]] * 3
    assert [ax.get_ylabel() for ax in figure.axes] == ["test loss", "time of a step in ms", "memory kept in MiB"]
    both = with_runs(measured, {20: [0.1, 0.3], None: [0.1, 0.1]})  # a truncation as long as the sequence
    assert b"<svg" in to_svg(truncation_cost.draw(both))


@pytest.mark.parametrize(
    ("losses", "parts"),
    [
        (
            {5: [0.3, 0.31], 10: [0.1, 0.12], None: [0.11, 0.11]},
            ["length of 10 is not shown to be worse", "50 % of its time", "one of 5 is worse"],
        ),
        ({5: [0.3, 0.31], 10: [0.2, 0.21], None: [0.11, 0.12]}, ["Every truncation costs test loss", "10 is still"]),
        ({5: [0.3], None: [0.1]}, ["No interval over pairs of seeds"]),
        ({9: [0.3], 19: [0.1]}, ["Lowest mean test loss", "length of 19", "was not run"]),
    ],
)
def test_the_title_names_the_shortest_that_is_not_worse(
    measured: Grid, losses: dict[int | None, list[float]], parts: list[str]
) -> None:
    title = truncation_cost.view(with_runs(measured, losses)).title
    assert all(part in title for part in parts)


@pytest.mark.parametrize(
    ("lost", "title"),
    [
        (pl.lit(value=True), "Inconclusive: no replica finished"),
        (pl.col(LENGTH).is_null(), "at a backward length of 5; full backpropagation did not finish"),
        (pl.col(LENGTH).is_not_null(), "No truncated replica finished"),
    ],
)
def test_what_diverged_leaves_a_figure_that_says_so(measured: Grid, lost: pl.Expr, title: str) -> None:
    tables = with_runs(measured, {5: [0.1, 0.3], None: [0.1, 0.1]}, lost=lost)
    view = truncation_cost.view(tables)
    assert title in view.title
    texts = {text.get_text() for ax in truncation_cost.draw(tables).axes for text in ax.texts}
    assert ("no replica finished" in texts) == title.startswith("Inconclusive")
    assert "diverged: diverged and failed ones are in no mean" in view.caption


def test_time_and_memory_are_one_measurement_per_setting(measured: Grid) -> None:
    tables = with_runs(measured, {9: [0.1, 0.3], None: [0.1, 0.2]})
    shared = truncation_cost.view(tables).means.filter(pl.col("which") != "loss")
    assert shared.select("low", "high", "num_seeds").unique().rows() == [(None, None, 1)]
    assert "means over 2 seeds" in truncation_cost.view(tables).caption
    axes = truncation_cost.draw(tables).axes
    assert [_num_points(ax) for ax in axes] == [4, 2, 2]
    assert [_num_bars(ax) for ax in axes] == [2, 0, 0]


def _num_points(ax: Axes) -> int:
    return sum(np.shape(cloud.get_offsets())[0] for cloud in ax.collections if isinstance(cloud, PathCollection))


def _num_bars(ax: Axes) -> int:
    """The number of intervals that have a length."""
    segments = [path for bars in ax.containers for group in bars[2] for path in group.get_segments()]
    return sum(len(path) > 0 and bool(np.ptp(path, axis=0).any()) for path in segments)


def test_a_loss_per_token_is_drawn_as_perplexity(measured: Grid) -> None:
    tables = with_runs(measured, {5: [0.0, 0.0], None: [0.0, 0.0]})
    view = truncation_cost.view(with_tables(tables, runs=tables.runs.with_columns(test_error=pl.lit(0.5))))
    assert view.means.filter(which="perplexity")["mean"].to_list() == [0.0, 0.0]
    assert "perplexity" in view.caption


def test_arms_that_differ_otherwise_are_lines_of_their_own(measured: Grid) -> None:
    tables = with_runs(measured, {5: [0.1], None: [0.2]})
    other = tables.runs.with_columns(arm=pl.col("arm") + ", clipped")
    assert len(truncation_cost.view(with_tables(tables, runs=pl.concat([tables.runs, other]))).arms) == 4


GRADIENTS = pl.DataFrame({"backward_length": [1, 2, 3, 4], "gradient": [1.0, 4.0, -1.0, -6.0]})
PATHS = pl.DataFrame(
    {
        "backward_length": [2, 2, 2, 4, 4, 4],
        "step": [0, 1, 2, 0, 1, 2],
        "theta": [0.5, 3.0, 20.0, 0.5, 0.1, -1 / 6],
    }
)


def test_influence_balancing_states_where_the_sign_turns_and_what_reaches_the_optimum() -> None:
    title = InfluenceBalancing(GRADIENTS, PATHS).title
    assert "wrong sign until K = 3;" in title
    assert title.endswith("only with K = 4")
    assert InfluenceBalancing(GRADIENTS, PATHS.filter(backward_length=2)).title.endswith("with no K tried")
    wrong = InfluenceBalancing(GRADIENTS.filter(pl.col("gradient") > 0), PATHS)
    assert "wrong sign at every K" in wrong.title


def test_influence_balancing_names_the_largest_gradient_and_draws_both_panels() -> None:
    balancing = InfluenceBalancing(GRADIENTS, PATHS)
    assert "largest 4.0000 at K = 2" in balancing.caption
    assert "K = 2, 4" in balancing.caption
    figure = balancing.draw()
    assert [ax.get_xlabel() for ax in figure.axes] == ["backward length K", "training step"]
    assert [line.get_label() for line in figure.axes[1].get_lines()][:2] == ["K = 2", "K = 4"]
    assert b"<svg" in to_svg(figure)
