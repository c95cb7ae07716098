from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import jacobian_spectrum
from pipeline.quantities import GridTables
from tests.synthetic_results import END_FACTORS


def test_means_are_those_of_the_singular_values(measured: GridTables) -> None:
    drawn = jacobian_spectrum.table(measured).filter(stage="end", arm="elman", lag=10)
    slope = math.log10(END_FACTORS["elman/h"])
    found = dict(drawn.select("quantity", "mean").iter_rows())
    expected = {"largest": 10 * slope, "median": 15 * slope, "smallest": 20 * slope, "condition": -10 * slope}
    assert found == pytest.approx(expected)
    assert drawn["num_seeds"].to_list() == [3] * 4


def test_the_bound_is_a_power_of_sigma_max_of_networks_with_one_block(measured: GridTables) -> None:
    bounds = jacobian_spectrum.bounds(measured)
    assert bounds["arm"].unique().to_list() == ["elman"]
    sigma = measured.at_longest(measured.curves).filter(arm="elman", metric="sigma_max[h]", step=0)["value"].log10()
    assert bounds.filter(stage="initialisation", lag=7)["mean"].to_list() == pytest.approx([7 * sigma.mean()])


def test_title_follows_the_interval(measured: GridTables) -> None:
    shrinks = "Over 19 timesteps after training the largest singular value shrinks in the Elman network, the LSTM and "
    assert jacobian_spectrum.title(measured).startswith(shrinks)
    grown = pl.when(pl.col("arm") == "gru").then(-pl.col("log10_value")).otherwise(pl.col("log10_value"))
    wild = pl.when(pl.col("arm") == "lstm").then(pl.col("seed") - 1.0).otherwise(grown)
    tables = replace(measured, jacobians=measured.jacobians.with_columns(log10_value=wild))
    assert jacobian_spectrum.title(tables).endswith(
        "shrinks in the Elman network, grows in the GRU, is not shown to shrink or grow in the LSTM"
    )


def test_zero_and_nan_are_counted_apart(measured: GridTables) -> None:
    at = (pl.col("lag") == 3) & (pl.col("quantity") == "smallest") & (pl.col("step") == 0) & (pl.col("length") == 20)
    lost = pl.when(at & (pl.col("seed") == 0)).then(-math.inf).when(at & (pl.col("seed") == 1)).then(math.nan)
    jacobians = measured.jacobians.with_columns(log10_value=lost.otherwise(pl.col("log10_value")))
    tables = replace(measured, jacobians=jacobians)
    row = jacobian_spectrum.table(tables).filter(stage="initialisation", arm="gru", lag=3, quantity="smallest")
    assert row.select("num_seeds", "num_nonfinite").rows() == [(1, 2)]
    caption = jacobian_spectrum.caption(tables)
    assert "3 singular values of exactly zero left out of means." in caption
    assert "3 values that are NaN or infinite left out." in caption


def test_grids_without_jacobians_have_none(exact: list[GridTables]) -> None:
    assert not jacobian_spectrum.applies(exact[0])
