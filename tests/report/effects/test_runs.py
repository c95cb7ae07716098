from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.report.effects.runs import (
    LengthRatio,
    Metric,
    MetricRatio,
    OutcomeDifference,
    OutcomeShare,
    SolvedShare,
    StepTimeExponent,
    StepTimeRatio,
)
from tests.report.effects.conftest import (
    T975,
    Z975,
    assert_effect,
    assert_nothing,
    geometric,
    grid,
    runs,
    student,
    wilson,
)

BROKEN = {("lstm", 1): "diverged", ("lstm", 3): "timed_out", ("gru", 0): "error"}


def test_solved_share_counts_every_seed_that_answered() -> None:
    reached = {("elman", 10): [True, True, False], ("elman", 50): [False] * 3}
    reached |= {("lstm", 50): [True, None, True, False], ("gru", 50): [None, True, True, True]}
    tables = grid(runs("reached_criterion", reached, broken=BROKEN))
    assert_effect(SolvedShare("solved_share", ("elman",), "shortest").of(tables), wilson(2, 3), 3)
    assert_effect(SolvedShare("solved_share", ("elman",), "longest").of(tables), wilson(0, 3), 3)
    assert_effect(SolvedShare("solved_share", ("lstm",), "longest").of(tables), wilson(2, 4), 4)
    assert_effect(SolvedShare("solved_share", ("gru",), "longest").of(tables), wilson(3, 3), 3)


def test_solved_share_of_several_arms_is_that_of_the_best() -> None:
    tables = grid(runs("reached_criterion", {"elman": [False] * 4, "gru": [True, True, True, False]}))
    best = SolvedShare("solved_share", ("elman", "gru"), "longest")
    assert_effect(best.of(tables), wilson(3, 4), 4)
    assert_effect(SolvedShare("solved_share", ("lstm", "gru"), "longest").of(tables), wilson(3, 4), 4)
    assert_nothing(SolvedShare("solved_share", ("lstm",), "longest").of(tables))
    assert best.said == "best of Elman and GRU: share of seeds that reach the criterion at the longest length"
    alone = SolvedShare("solved_share", ("lstm",), "shortest").said
    assert alone == "LSTM: share of seeds that reach the criterion at the shortest length"


def test_outcome_difference_is_over_all_settings_of_an_arm_by_seed() -> None:
    losses = {("sgd", 20): [1.0] * 3, ("adam", 20): [1.0] * 3}
    sound = grid(runs("test_loss", losses))
    hurt = grid(
        runs("test_loss", losses, broken={("sgd", 0): "diverged", ("sgd", 1): "diverged", ("adam", 0): "diverged"})
    )
    both = replace(sound, all_runs=pl.concat([sound.runs, hurt.runs]))  # two learning rates, the first one selected
    effect = OutcomeDifference("outcome_difference", "adam", "sgd", "diverged")
    found = effect.of(both)  # shares by seed: sgd 1/2, 1/2, 0; adam 1/2, 0, 0
    assert found.value == pytest.approx(-0.5 / 3)
    assert found.num_seeds == 3
    assert effect.said == "adam less sgd: share of all settings that diverged, by seed"
    assert_nothing(OutcomeDifference("outcome_difference", "adam", "gru", "ok").of(both), num_left_out=3)


def test_outcome_share_is_of_the_seeds_that_did_not_fail() -> None:
    losses = {("clip", 10): [1.0] * 5, ("clip", 20): [1.0] * 5, ("none", 20): [1.0] * 2}
    broken = {("clip", 0): "diverged", ("clip", 1): "diverged", ("clip", 2): "timed_out", ("clip", 3): "error"}
    tables = grid(runs("test_loss", losses, broken=broken))
    shares = {status: OutcomeShare("outcome_share", "clip", status) for status in ("ok", "diverged", "timed_out")}  # type: ignore[arg-type]
    assert_effect(shares["ok"].of(tables), wilson(1, 4), 4)
    assert_effect(shares["diverged"].of(tables), wilson(2, 4), 4)
    assert_effect(shares["timed_out"].of(tables), wilson(1, 4), 4)
    assert_effect(OutcomeShare("outcome_share", "none", "diverged").of(tables), wilson(0, 2), 2)
    assert_nothing(OutcomeShare("outcome_share", "gru", "ok").of(tables))
    assert [share.said for share in shares.values()] == [
        "clip: share of seeds that ended ok",
        "clip: share of seeds that diverged",
        "clip: share of seeds that ran out of time",
    ]


def test_metric_is_the_mean_of_the_seeds_that_did_not_diverge() -> None:
    losses = {("lstm", 10): [9.0] * 4, ("lstm", 20): [1.0, 100.0, 3.0, 8.0]}
    tables = grid(runs("test_loss", losses, broken=BROKEN))
    longest = Metric("metric", "lstm", "test_loss", "longest")
    assert_effect(longest.of(tables), student([1.0, 3.0, 8.0]), 3, num_left_out=1)
    assert_effect(Metric("metric", "lstm", "test_loss", "shortest").of(tables), (9.0, 9.0, 9.0), 3, num_left_out=1)
    assert_nothing(Metric("metric", "gru", "test_loss", "longest").of(tables))
    assert longest.said == "LSTM: test loss at the longest length"


def test_metric_leaves_out_and_counts_what_is_missing_or_not_finite() -> None:
    tables = grid(runs("test_loss", {"lstm": [1.0, None, 3.0, math.inf, math.nan]}))
    assert_effect(Metric("metric", "lstm", "test_loss", "longest").of(tables), student([1.0, 3.0]), 2, num_left_out=3)


def test_metric_may_be_a_whole_number() -> None:
    tables = grid(runs("num_parameters", {"lstm": [1000, 1002]}))
    metric = Metric("metric", "lstm", "num_parameters", "longest")
    assert_effect(metric.of(tables), student([1000.0, 1002.0]), 2)
    assert metric.said == "LSTM: number of parameters at the longest length"


def test_metric_ratio_is_the_geometric_mean_of_the_paired_ratios() -> None:
    losses = {"lstm": [2.0, 3.0, 10.0, 8.0], "gru": [1.0, 1.0, 4.0, 2.0]}
    ratio = MetricRatio("metric_ratio", "lstm", "gru", "test_loss", "longest")
    assert_effect(ratio.of(grid(runs("test_loss", losses))), geometric([2.0, 3.0, 2.5, 4.0]), 4)
    broken = {("lstm", 1): "diverged", ("gru", 3): "error", ("lstm", 0): "timed_out"}
    partial = ratio.of(grid(runs("test_loss", losses, broken=broken)))
    assert_effect(partial, geometric([2.0, 2.5]), 2, num_left_out=2)
    assert ratio.said == "LSTM over GRU: ratio of test loss at the longest length, by seed"


def test_metric_ratio_counts_a_seed_that_diverged_on_both_sides() -> None:
    losses = {"lstm": [2.0, 3.0, 10.0], "gru": [1.0, 1.0, 4.0]}
    tables = grid(runs("test_loss", losses, broken={("lstm", 2): "diverged", ("gru", 2): "diverged"}))
    effect = MetricRatio("metric_ratio", "lstm", "gru", "test_loss", "longest").of(tables)
    assert_effect(effect, geometric([2.0, 3.0]), 2, num_left_out=1)


def test_metric_ratio_leaves_out_what_has_no_logarithm() -> None:
    times = {"lstm": [2.0, 0.0, 4.0, None], "gru": [1.0, 1.0, 1.0, 1.0]}
    tables = grid(runs("criterion_time_s", times))
    ratio = MetricRatio("metric_ratio", "lstm", "gru", "criterion_time_s", "longest")
    assert_effect(ratio.of(tables), geometric([2.0, 4.0]), 2, num_left_out=2)
    assert ratio.said == "LSTM over GRU: ratio of criterion time at the longest length, by seed"


def test_metric_ratio_to_a_missing_arm_is_nothing() -> None:
    tables = grid(runs("test_loss", {"lstm": [1.0, 2.0]}))
    assert_nothing(MetricRatio("metric_ratio", "lstm", "gru", "test_loss", "longest").of(tables), num_left_out=2)
    assert_nothing(MetricRatio("metric_ratio", "elman", "gru", "test_loss", "longest").of(tables))


def test_length_ratio_is_of_the_longest_over_the_shortest() -> None:
    losses = {("gru", 10): [1.0, 2.0, 4.0], ("gru", 20): [9.0] * 3, ("gru", 30): [3.0, 4.0, 16.0]}
    ratio = LengthRatio("length_ratio", "gru", "test_loss")
    assert_effect(ratio.of(grid(runs("test_loss", losses))), geometric([3.0, 2.0, 4.0]), 3)
    losses[("gru", 10)] = [1.0, None, 4.0]
    assert_effect(ratio.of(grid(runs("test_loss", losses))), geometric([3.0, 4.0]), 2, num_left_out=1)
    assert ratio.said == "GRU: ratio of test loss, longest over shortest length, by seed"
    assert_nothing(LengthRatio("length_ratio", "lstm", "test_loss").of(grid(runs("test_loss", losses))))


def test_length_ratio_of_a_constant_is_one_with_no_doubt() -> None:
    numbers = {("gru", 10): [1185] * 3, ("gru", 30): [1185] * 3}
    effect = LengthRatio("length_ratio", "gru", "num_parameters").of(grid(runs("num_parameters", numbers)))
    assert_effect(effect, (1.0, 1.0, 1.0), 3)


def test_a_single_length_is_not_compared_with_itself() -> None:
    tables = grid(runs("num_parameters", {"gru": [1185] * 3}))
    assert_nothing(LengthRatio("length_ratio", "gru", "num_parameters").of(tables))


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
    effect = ratio.of(grid(clocks()))
    found = (effect.value, effect.low, effect.high)
    assert found == pytest.approx((1.5, 1.5 * math.exp(-half), 1.5 * math.exp(half)), rel=1e-5)  # its z is 1.96
    assert (effect.num_seeds, effect.num_left_out) == (3, 0)  # those that both arms have
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


UNKNOWN = r"check.column: expected a number of the trials table \(unknown column 'test_los'; did you mean 'test_loss'\?"


@pytest.mark.parametrize(
    ("effect", "content", "message"),
    [
        (
            SolvedShare,
            {"name": "solved_share", "arms": [], "length": "longest"},
            "check.arms: expected at least one arm",
        ),
        (Metric, {"name": "metric", "arm": "gru", "column": "test_los", "length": "longest"}, UNKNOWN),
        (
            MetricRatio,
            {"name": "metric_ratio", "arm": "gru", "than": "lstm", "column": "test_los", "length": "longest"},
            UNKNOWN,
        ),
        (LengthRatio, {"name": "length_ratio", "arm": "gru", "column": "test_los"}, UNKNOWN),
        (
            LengthRatio,
            {"name": "length_ratio", "arm": "gru", "column": "device"},
            r"check.column: expected a number of the trials table \(unknown column 'device'",
        ),
        (
            OutcomeShare,
            {"name": "outcome_share", "arm": "gru", "status": "error"},
            "check.status: unknown value 'error'",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(effect: Any, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(effect, content, "check")
