from __future__ import annotations

import dataclasses
import math

import polars as pl
import pytest

from pipeline.core.measures.orbit import NUM_BURNT, NUM_KEPT, NUM_ORBITS
from pipeline.figures.dynamics import jacobian_spectrum, lyapunov_spectrum, orbit_exponent, state_space_divergence
from pipeline.figures.style import to_svg
from pipeline.quantities import Grid
from tests.synthetic_attention import autoencoding, grid
from tests.synthetic_decoding import with_tables
from tests.synthetic_dynamics import FACTORS, T, dynamical_grid, orbit_grid


@pytest.fixture(scope="module")
def measured() -> Grid:
    return dynamical_grid()


def mixed(tables: Grid, table: str, column: str) -> Grid:
    """The grid in which the GRU's numbers change their sign and the LSTM's differ by seed about zero."""
    signs = (
        pl.when(pl.col("arm") == "gru").then(-pl.col(column)).when(pl.col("arm") == "lstm").then(pl.col("seed") - 1.0)
    )
    return with_tables(tables, **{table: tables[table].with_columns(signs.otherwise(column).alias(column))})


def test_grids_without_measurements_have_none() -> None:
    tables = grid(["lstm"], autoencoding)
    assert not jacobian_spectrum.is_of(tables)
    assert not lyapunov_spectrum.is_of(tables)


def test_what_the_largest_singular_value_does_follows_the_interval(measured: Grid) -> None:
    title = jacobian_spectrum.view(measured).title
    assert title.startswith("Over 19 timesteps after training")
    assert title.endswith("shrinks in the Elman network, the LSTM and the GRU")
    title = jacobian_spectrum.view(mixed(measured, "jacobians", "log10_value")).title
    verdicts = ["shrinks in the Elman network", "grows in the GRU", "is not shown to shrink or grow in the LSTM"]
    assert all(verdict in title for verdict in verdicts)


def test_the_caption_states_condition_numbers_zeros_and_the_bound(measured: Grid) -> None:
    caption = jacobian_spectrum.view(measured).caption
    slope = -(T - 1) * math.log10(FACTORS["elman"][1])
    assert f"Elman: {slope:.2g}" in caption
    assert "Dotted: k log10 σ_max(W_hh)" in caption
    assert "zero" not in caption
    at = (pl.col("lag") == 3) & (pl.col("quantity") == "smallest") & (pl.col("seed") == 0)
    jacobians = measured["jacobians"].with_columns(log10_value=pl.when(at).then(-math.inf).otherwise("log10_value"))
    assert (
        "6 singular values of exactly zero"
        in jacobian_spectrum.view(with_tables(measured, jacobians=jacobians)).caption
    )


def test_bounds_are_drawn_in_the_panels_of_the_largest(measured: Grid) -> None:
    axes = jacobian_spectrum.draw(measured).axes
    assert len(axes) == 6
    assert [len(ax.lines) for ax in axes] == [3 + 1 + 1] * 2 + [3 + 1] * 4  # arms, zero, and the bound of the Elman
    assert axes[0].get_ylim()[1] > 0
    lowest = [ax.get_ylim()[0] for ax in axes]
    assert lowest[0] == lowest[1] > lowest[2] == lowest[3] > lowest[4]  # each row has its own range


def test_the_sign_of_the_largest_exponent_follows_the_interval(measured: Grid) -> None:
    title = lyapunov_spectrum.view(measured).title
    assert "negative in the Elman network (-0.16), the LSTM (-0.005" in title
    title = lyapunov_spectrum.view(mixed(measured, "lyapunov", "lyapunov_nats_per_timestep")).title
    assert "negative in the Elman network (-0.16)" in title
    assert "positive in the GRU (0.015)" in title
    assert "of undecided sign in the LSTM (0)" in title


def test_one_seed_has_no_sign() -> None:
    assert (
        "of undecided sign in the GRU" in lyapunov_spectrum.view(dynamical_grid({"gru": (0.8, 0.9)}, num_seeds=1)).title
    )


def test_where_nothing_finished_nothing_is_known_of_the_end(measured: Grid) -> None:
    lost = dynamical_grid({"gru": (0.8, 0.9)}, num_seeds=1, broken={"gru#0": "diverged"})
    for frame in (jacobian_spectrum, lyapunov_spectrum):
        assert frame.view(lost).title.startswith("Inconclusive")
        assert b"<svg" in to_svg(frame.draw(lost))


def test_each_row_has_its_own_horizontal_axis(measured: Grid) -> None:
    axes = lyapunov_spectrum.draw(measured).axes
    assert [ax.get_xlabel() for ax in axes] == ["index of the exponent"] * 2 + ["timesteps used t"] * 2
    assert axes[0].get_ylim()[0] < 0 < axes[0].get_ylim()[1]  # zero is always seen
    bars = [bar for ax in axes for bar in ax.containers]
    assert len(bars) == 2 * 3  # standard errors of three spectra at two stages


def test_of_many_arms_the_title_names_some(measured: Grid) -> None:
    many = dynamical_grid({f"arm {i}": (0.7, 0.70 + 0.01 * i) for i in range(6)})
    assert "and 5 others" in jacobian_spectrum.view(many).title
    assert "(-" not in lyapunov_spectrum.view(many).title
    assert to_svg(lyapunov_spectrum.draw(many)) == to_svg(lyapunov_spectrum.draw(many))


def test_orbits_are_compared_by_seed_and_exponents_with_zero() -> None:
    made = orbit_grid()
    title = state_space_divergence.view(made).title
    assert title.startswith("Inconclusive: no difference in divergence is established between «never, clipped»")
    close = {"near": (8, (0.1, 0.2, 0.15)), "far": (16, (3.1, 3.3, 3.2))}
    title = state_space_divergence.view(orbit_grid(close)).title
    assert title.startswith("Orbits nearest to the series: near (0.15")
    assert orbit_exponent.view(made).title.startswith("The largest exponent of what is generated is lower in")
    near = dataclasses.replace(made, runs=made.runs.with_columns(series_exponent=pl.lit(0.01)), _memo={})
    assert "is not told apart from the series' own (0.0100) in" in orbit_exponent.view(near).title
    assert "Dashed: that of the system which made the series, 0.0453." in orbit_exponent.view(made).caption
    (axis,) = orbit_exponent.draw(made).axes
    assert {line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"} == {0.0453}
    unknown = dataclasses.replace(made, runs=made.runs.with_columns(series_exponent=None), _memo={})
    assert "Dashed" not in orbit_exponent.view(unknown).caption
    assert "is not shown to be chaotic in" in orbit_exponent.view(unknown).title
    for frame in (state_space_divergence, orbit_exponent):
        assert b"<svg" in to_svg(frame.draw(made))
        counts = (
            f"from {NUM_ORBITS} beginnings of test sequences of dates {NUM_KEPT} timesteps on, after {NUM_BURNT} that"
        )
        assert counts in frame.view(made).caption
