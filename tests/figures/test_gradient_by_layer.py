from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import gradient_by_lag, gradient_by_layer, gradient_heatmap
from pipeline.quantities import GridTables
from tests.synthetic_results import END_FACTORS


def test_every_place_has_a_line(deep: GridTables) -> None:
    drawn = gradient_by_layer.table(deep).filter(stage="end", arm="elman")
    assert drawn.select("layer", "direction").unique().height == 6
    slope = math.log10(END_FACTORS["elman/h"])
    first = drawn.filter(layer=0, direction="forward")["mean"].to_list()
    assert first == pytest.approx([-1.8 - 0.8 + 1.5 * slope * (20 - t) for t in range(1, 21)])
    backward = drawn.filter(layer=2, direction="backward")["mean"].to_list()
    assert backward == pytest.approx([-1.8 + slope * (t - 1) for t in range(1, 21)])


def test_gap_is_the_mean_difference_of_last_and_first_layer(deep: GridTables) -> None:
    gap = gradient_by_layer.gaps(deep).filter(stage="end", arm="elman").row(0, named=True)
    assert gap["mean"] == pytest.approx(0.8 - 0.5 * 9.5 * math.log10(END_FACTORS["elman/h"]))
    assert gap["num_seeds"] == 3


def test_title_follows_the_gap(deep: GridTables) -> None:
    assert gradient_by_layer.title(deep).startswith(
        "After training the first layer's gradient is smaller in the LSTM (0.91 [0.91, 0.91] decades) and the Elman"
    )
    wild = deep.traces.with_columns(
        log10_norm=pl.when(pl.col("layer") == 0)
        .then(pl.col("log10_norm") + 9 * pl.col("seed") - 8)
        .otherwise("log10_norm")
    )
    assert gradient_by_layer.title(replace(deep, traces=wild)) == (
        "After training no difference between first and last layer's gradient is established in "
        "the LSTM (-0.094 [-22, 22] decades) and the Elman network (0.14 [-22, 22] decades)"
    )


def test_one_layer_both_ways_compares_directions(deep: GridTables) -> None:
    flat = replace(deep, traces=deep.traces.filter(pl.col("layer") == 0, pl.col("arm") == "elman"))
    assert gradient_by_layer.title(flat).startswith(
        "Mean gradient of the forward less the backward states after training: the Elman network"
    )
    assert gradient_by_layer.draw(flat).axes


def test_one_layer_one_way_has_no_such_figure(measured: GridTables) -> None:
    assert not gradient_by_layer.applies(measured)


def test_other_figures_take_the_last_layer_forward(deep: GridTables) -> None:
    rates = gradient_by_lag.rates(deep).filter(stage="end", arm="elman")
    assert 10 ** rates["mean"][0] == pytest.approx(END_FACTORS["elman/h"])
    drawn = gradient_heatmap.table(deep.at_longest(deep.traces))
    assert drawn.filter(arm="elman", step=0)["mean"][-1] == pytest.approx(-1.5)
    assert "last layer, forward in time" in gradient_by_lag.caption(deep)
