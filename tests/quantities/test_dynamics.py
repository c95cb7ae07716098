from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.quantities.dynamics import (
    best_forcing_interval,
    jacobian_bound,
    jacobian_singular_values,
    lyapunov_exponents,
    orbit_exponent,
    state_space_divergence,
)
from pipeline.quantities.grid import Grid
from tests.quantities.conftest import assert_effect, midp, value
from tests.synthetic_decoding import with_tables
from tests.synthetic_dynamics import FACTORS, ORBITS, POWERS, SIGMA, T, dynamical_grid, orbit_grid


def test_singular_values_are_powers_of_the_factor() -> None:
    rows = jacobian_singular_values.of(dynamical_grid())
    means = jacobian_singular_values.summary(rows, ["stage", "arm", "which", "lag"])
    drawn = means.filter(stage="end", arm="elman", lag=10)
    slope = math.log10(FACTORS["elman"][1])
    expected = {which: 10 * power * slope for which, power in POWERS.items()}
    assert dict(drawn.select("which", "mean").iter_rows()) == pytest.approx(expected)
    assert drawn["num_seeds"].to_list() == [3] * 4


def test_a_singular_value_of_zero_and_nan_are_in_no_mean() -> None:
    tables = dynamical_grid()
    at = (pl.col("lag") == 3) & (pl.col("quantity") == "smallest") & (pl.col("step") == 0)
    lost = pl.when(at & (pl.col("seed") == 0)).then(-math.inf).when(at & (pl.col("seed") == 1)).then(math.nan)
    jacobians = tables["jacobians"].with_columns(log10_value=lost.otherwise("log10_value"))
    rows = jacobian_singular_values.of(with_tables(tables, jacobians=jacobians))
    means = jacobian_singular_values.summary(rows, ["stage", "arm", "which", "lag"])
    row = means.filter(stage="initialisation", arm="gru", lag=3, which="smallest")
    assert row.select("num_seeds", "num_nonfinite").rows() == [(1, 2)]


def test_the_bound_is_a_power_of_sigma_max_of_networks_with_one_block() -> None:
    rows = jacobian_bound.of(dynamical_grid())
    assert rows["arm"].unique().to_list() == ["elman"]
    at_seven = rows.filter(stage="initialisation", lag=7).sort("seed")
    assert at_seven["value"].to_list() == pytest.approx([7 * math.log10(SIGMA * (1 + s / 10)) for s in range(3)])


def test_exponents_count_from_one_and_approach_their_limit() -> None:
    rows = lyapunov_exponents.of(dynamical_grid())
    limit = math.log(FACTORS["gru"][1])
    spectrum = rows.filter(stage="end", arm="gru", timestep=T, seed=0)
    assert spectrum["index"].to_list() == [1, 2, 3, 4]
    assert spectrum["value"].to_list() == pytest.approx([limit + 0.1 / T - 0.1 * index for index in range(4)])
    assert spectrum["standard_error"].to_list() == pytest.approx([0.02 / math.sqrt(T)] * 4)
    trace = rows.filter(stage="initialisation", arm="elman", index=1, seed=0)
    expected = [math.log(FACTORS["elman"][0]) + 0.1 / t for t in (1, 5, T)]
    assert trace["value"].to_list() == pytest.approx(expected)


def test_what_diverged_has_no_end() -> None:
    rows = lyapunov_exponents.of(dynamical_grid(broken={"gru#1": "diverged"}))
    end = rows.filter(stage="end", arm="gru")
    assert end.drop_nulls("value")["seed"].unique().sort().to_list() == [0, 2]
    assert end.filter(pl.col("value").is_null())["seed"].unique().to_list() == [1]  # counted as missing
    assert rows.filter(stage="initialisation", arm="gru")["seed"].unique().sort().to_list() == [0, 1, 2]


def best_by_seed(grid: Grid) -> list[int]:
    """The least limit that holds, by seed."""
    rows = best_forcing_interval.of(grid).filter("value")
    return rows.group_by("seed").agg(pl.col("at_most").min()).sort("seed")["at_most"].to_list()


def test_the_best_interval_is_that_of_each_seed_among_arms_without_clipping() -> None:
    rows = best_forcing_interval.of(orbit_grid())
    assert rows["arm"].unique().to_list() == ["all arms"]
    assert rows["at_most"].unique().sort().to_list() == [4, 16, 60]
    assert best_by_seed(orbit_grid()) == [16, 4, 16]
    assert best_by_seed(orbit_grid(ORBITS | {"never": (None, (0.01, 8.0, 7.0))})) == [60, 4, 16]
    assert_effect(value(orbit_grid(), quantity="best_forcing_interval", at_most=4), midp(1, 3), 3)
    assert best_forcing_interval.summary(rows, ["at_most"])["num_events"].to_list() == [1, 3, 3]


def test_a_seed_of_which_no_arm_has_a_divergence_has_no_best_and_is_missing() -> None:
    lost = orbit_grid(broken={f"{arm}#0": "diverged" for arm in ("every 4", "every 16", "never")})
    assert_effect(value(lost, quantity="best_forcing_interval", at_most=4), midp(1, 2), 2, num_left_out=1)


def test_orbits_of_a_seed_that_diverged_are_missing_and_its_best_is_among_the_others() -> None:
    grid = orbit_grid(broken={"every 16#0": "diverged"})
    lost = state_space_divergence.of(grid).filter(arm="every 16", seed=0)
    assert lost["value"].to_list() == [None]
    assert best_by_seed(grid) == [4, 4, 16]
    assert orbit_exponent.of(grid).filter(arm="never")["value"].to_list() == [0.0, 0.01, 0.02]
