from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from pipeline.claims.effects.runs import (
    LengthDifference,
    LengthRatio,
    Metric,
    MetricDifference,
    MetricRatio,
    OutcomeDifference,
    OutcomeShare,
    SolvedShare,
)
from pipeline.config import build
from pipeline.errors import ConfigError
from tests.claims.effects.conftest import assert_effect, assert_nothing, geometric, grid, runs, student, wilson

EMPTY = runs("test_error", {"general": [0.5] * 3})
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


def test_metric_that_is_a_share_has_an_interval_from_0_to_1() -> None:
    mean, low, high = student([0.0, 0.1, 0.05])
    assert low < 0
    tables = grid(runs("test_error", {"dot": [0.0, 0.1, 0.05]}))
    assert_effect(Metric("metric", "dot", "test_error", "longest").of(tables), (mean, 0.0, high), 3)


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


def test_metric_difference_is_paired_by_seed() -> None:
    errors = {("dot", 20): [0.0, 0.1, 0.25, 0.5], ("none", 20): [0.5, 0.8, 0.75, 1.0], ("none", 10): [0.0] * 4}
    difference = MetricDifference("metric_difference", "dot", "none", "test_error", "longest")
    assert_effect(difference.of(grid(runs("test_error", errors))), student([-0.5, -0.7, -0.5, -0.5]), 4)
    broken = {("dot", 1): "diverged", ("none", 3): "error", ("dot", 0): "timed_out"}
    partial = difference.of(grid(runs("test_error", errors, broken=broken)))
    assert_effect(partial, student([-0.5, -0.5]), 2, num_left_out=2)
    assert difference.said == "dot less none: test error at the longest length, by seed"
    assert_nothing(MetricDifference("metric_difference", "dot", "none", "test_error", "shortest").of(grid(EMPTY)))


def test_length_difference_is_of_the_longest_less_the_shortest() -> None:
    errors = {("none", 5): [0.0, 0.1, 0.2], ("none", 10): [0.9] * 3, ("none", 30): [0.7, 1.0, 0.5]}
    difference = LengthDifference("length_difference", "none", "test_error")
    assert_effect(difference.of(grid(runs("test_error", errors))), student([0.7, 0.9, 0.3]), 3)
    errors[("none", 5)] = [0.0, None, 0.2]
    assert_effect(difference.of(grid(runs("test_error", errors))), student([0.7, 0.3]), 2, num_left_out=1)
    assert difference.said == "none: test error at the longest length less that at the shortest, by seed"
    assert_nothing(LengthDifference("length_difference", "dot", "test_error").of(grid(runs("test_error", errors))))


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
    assert_nothing(LengthDifference("length_difference", "gru", "num_parameters").of(tables))


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
        (
            MetricDifference,
            {"name": "metric_difference", "arm": "gru", "than": "lstm", "column": "test_los", "length": "longest"},
            UNKNOWN,
        ),
        (LengthRatio, {"name": "length_ratio", "arm": "gru", "column": "test_los"}, UNKNOWN),
        (LengthDifference, {"name": "length_difference", "arm": "gru", "column": "test_los"}, UNKNOWN),
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
