from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pipeline.errors import TableError
from pipeline.quantities import line_interval, mean_interval, paired_difference, share_interval


def frame(values: list[float | None], arm: str = "a") -> pl.DataFrame:
    return pl.DataFrame({"arm": arm, "seed": range(len(values)), "value": pl.Series(values, dtype=pl.Float64)})


def test_mean_and_interval_are_students() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 0.2]
    row = mean_interval(frame(values), "value", ["arm"]).row(0, named=True)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((np.mean(values), low, high), rel=1e-12)
    assert (row["num_seeds"], row["num_nonfinite"], row["num_missing"]) == (5, 0, 0)


def test_what_is_not_finite_is_counted_and_not_averaged() -> None:
    row = mean_interval(frame([1.0, 3.0, math.nan, math.inf, -math.inf, None]), "value", ["arm"]).row(0, named=True)
    assert (row["mean"], row["num_seeds"], row["num_nonfinite"], row["num_missing"]) == (2.0, 2, 3, 1)


@pytest.mark.parametrize(("values", "mean"), [([2.5], 2.5), ([math.nan], None), ([None, None], None)])
def test_fewer_than_two_seeds_have_no_interval(values: list[float | None], mean: float | None) -> None:
    row = mean_interval(frame(values), "value", ["arm"]).row(0, named=True)
    assert (row["mean"], row["low"], row["high"]) == (mean, None, None)


def test_two_rows_of_a_seed_are_no_replication() -> None:
    twice = pl.concat([frame([1.0, 2.0]), frame([1.0, 2.0])])
    with pytest.raises(TableError, match="one row for each of arm, seed; got several for arm='a', seed=0"):
        mean_interval(twice, "value", ["arm"])
    with pytest.raises(TableError, match="expected one row for each of arm, seed"):
        share_interval(twice.with_columns(value=pl.lit(value=True)), "value", ["arm"])


@pytest.mark.parametrize(("successes", "number"), [(0, 5), (3, 5), (5, 5), (1, 1)])
def test_share_has_the_wilson_interval(successes: int, number: int) -> None:
    events = pl.DataFrame({"arm": "a", "seed": range(number), "won": [seed < successes for seed in range(number)]})
    row = share_interval(events, "won", ["arm"]).row(0, named=True)
    expected = stats.binomtest(successes, number).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (row["mean"], row["num_events"], row["num_seeds"]) == (successes / number, successes, number)


def test_a_seed_without_an_outcome_is_a_failure() -> None:
    events = pl.DataFrame({"arm": "a", "seed": [0, 1], "won": [True, None]})
    assert share_interval(events, "won", ["arm"])["mean"].to_list() == [0.5]


def test_differences_are_paired_by_seed() -> None:
    both = pl.concat([frame([1.0, 2.0, 10.0], "a"), frame([0.5, 1.4, 9.6, 7.0], "b")])
    row = paired_difference(both, "value", "arm", "a", "b").row(0, named=True)
    expected = stats.ttest_rel([1.0, 2.0, 10.0], [0.5, 1.4, 9.6]).confidence_interval(0.95)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.5, expected.low, expected.high))
    assert (row["num_seeds"], row["num_missing"]) == (3, 1)


def test_line_interval_is_the_slope_with_students_t() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    half = 4.302652730 * math.sqrt((1.8 / 2) / 5.0)  # slope .8, residual sum of squares 1.8, s_xx 5
    assert line_interval(x, y) == pytest.approx((0.8, 0.8 - half, 0.8 + half), rel=1e-9)


@pytest.mark.parametrize("y", [[1.0, 2.0], [1.0], [], [1.0, math.nan, 3.0], [1.0, 2.0, math.inf]])
def test_no_line_interval_below_three_points_or_through_what_is_not_finite(y: list[float]) -> None:
    assert line_interval(np.arange(float(len(y))), np.array(y)) is None
