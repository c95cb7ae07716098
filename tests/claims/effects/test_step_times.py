from __future__ import annotations

import math

import polars as pl
import pytest
from pipeline.claims.effects.step_times import StepTimeExponent, StepTimeRatio
from tests.claims.effects.conftest import T975, Z975, assert_effect, assert_nothing, grid, runs


def clocks(*, error_s: float | None = 0.01) -> pl.DataFrame:
    """Two arms at two lengths: a step takes .3 s ± .01 s and .2 s ± `error_s` at the longest, 1 s at the shortest."""
    told = {("5 timesteps", 20): (0.3, 0.01), ("full", 20): (0.2, error_s)}
    told |= {("5 timesteps", 10): (1.0, 0.5), ("full", 10): (1.0, 0.5)}
    frame = runs("step_time_s", {key: [time] * 4 for key, (time, _) in told.items()}, broken={("full", 3): "diverged"})
    errors = {f"{arm} {length}": error for (arm, length), (_, error) in told.items()}
    error = pl.col("trial_id").replace_strict(errors, return_dtype=pl.Float64)
    return frame.with_columns(step_time_error_s=error)


def test_step_time_ratio_has_the_interval_of_the_timed_portions() -> None:
    ratio = StepTimeRatio("step_time_ratio", "5 timesteps", "full")
    half = Z975 * math.hypot(0.01 / 0.3, 0.01 / 0.2)
    expected = (1.5, 1.5 * math.exp(-half), 1.5 * math.exp(half))
    assert_effect(ratio.of(grid(clocks())), expected, 3)  # seeds that both arms have
    assert ratio.said == "«5 timesteps» over full: ratio of step times (interval over timed portions)"


def test_step_time_ratio_without_both_clocks_is_nothing() -> None:
    assert_nothing(StepTimeRatio("step_time_ratio", "5 timesteps", "full").of(grid(clocks(error_s=None))))
    assert_nothing(StepTimeRatio("step_time_ratio", "5 timesteps", "10 timesteps").of(grid(clocks())))


def test_step_time_exponent_of_a_power_law_is_its_power() -> None:
    times = {("gru", T): [0.002 * T**0.7] * 3 for T in (10, 20, 50, 100)}
    exponent = StepTimeExponent("step_time_exponent", "gru")
    effect = exponent.of(grid(runs("step_time_s", times)))
    assert effect.value == pytest.approx(0.7, rel=1e-12)
    assert effect.high - effect.low < 1e-6  # type: ignore[operator] # √(1 - r²) of a rounded r
    assert (effect.num_seeds, effect.num_left_out) == (3, 0)
    assert exponent.said == "GRU: power of T with which the time of a step grows (interval over lengths)"


def test_step_time_exponent_has_the_interval_of_the_line() -> None:
    decades = {10: 0.0, 100: 1.3, 1000: 2.0}  # slope 1; residuals -.1, .2, -.1: s² = .06 / 1, s_xx = 2
    times = {("gru", T): [10.0**y] * 5 for T, y in decades.items()}
    half = T975[1] * math.sqrt(0.06 / 2)
    effect = StepTimeExponent("step_time_exponent", "gru").of(grid(runs("step_time_s", times)))
    assert_effect(effect, (1.0, 1.0 - half, 1.0 + half), 5)


def test_step_time_exponent_needs_three_lengths() -> None:
    times = {("gru", 10): [0.1] * 3, ("gru", 20): [0.2] * 3, ("lstm", 30): [0.3] * 3}
    assert_nothing(StepTimeExponent("step_time_exponent", "gru").of(grid(runs("step_time_s", times))))
    assert_nothing(StepTimeExponent("step_time_exponent", "elman").of(grid(runs("step_time_s", times))))
