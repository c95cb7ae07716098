from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.statistics import decay_rates


def line(norms: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"arm": "a", "seed": 0, "lag": range(len(norms)), "log10_norm": norms})


def test_scalar_linear_network_loses_its_weight_per_timestep() -> None:
    norms = [math.log10(3.0 * abs(-0.9) ** lag) for lag in range(40)]
    row = decay_rates(line(norms), ["arm"]).row(0, named=True)
    assert row["decay_factor"] == pytest.approx(0.9, rel=1e-12)
    assert row["r_squared"] == pytest.approx(1.0)
    assert row["half_life"] == pytest.approx(math.log(0.5) / math.log(0.9), rel=1e-12)
    assert (row["num_lags"], row["num_zero"], row["num_nonfinite"]) == (40, 0, 0)


def test_norms_of_zero_and_nan_are_left_out_and_counted() -> None:
    norms = [0.0, -1.0, -2.0, -math.inf, math.nan, math.inf, -math.inf]
    row = decay_rates(line(norms), ["arm"]).row(0, named=True)
    assert row["slope"] == pytest.approx(-1.0)
    assert (row["num_lags"], row["num_zero"], row["num_nonfinite"]) == (3, 2, 2)


def test_a_growing_gradient_has_no_half_life() -> None:
    row = decay_rates(line([0.0, 0.5, 1.0]), ["arm"]).row(0, named=True)
    assert row["slope"] == pytest.approx(0.5)
    assert row["half_life"] is None


@pytest.mark.parametrize("norms", [[0.0], [0.0, -math.inf], [math.nan, math.nan]])
def test_no_line_through_fewer_than_two_points(norms: list[float]) -> None:
    row = decay_rates(line(norms), ["arm"]).row(0, named=True)
    assert (row["slope"], row["decay_factor"], row["half_life"]) == (None, None, None)
