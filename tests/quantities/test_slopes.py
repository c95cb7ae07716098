from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from pipeline.quantities import decay_rates, line_interval


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


def test_line_interval_is_the_slope_with_students_t() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    half = 4.302652730 * math.sqrt((1.8 / 2) / 5.0)  # slope .8, residual sum of squares 1.8, s_xx 5
    assert line_interval(x, y) == pytest.approx((0.8, 0.8 - half, 0.8 + half), rel=1e-9)


@pytest.mark.parametrize("y", [[1.0, 2.0], [1.0], [], [1.0, math.nan, 3.0], [1.0, 2.0, math.inf]])
def test_no_line_interval_below_three_points_or_through_what_is_not_finite(y: list[float]) -> None:
    assert line_interval(np.arange(float(len(y))), np.array(y)) is None
