from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pipeline.errors import TableError
from pipeline.quantities import line_interval, mean_interval, paired_difference, share_interval
from pipeline.quantities.intervals import event_difference_limits
from tests.quantities.conftest import midp, shares


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
def test_share_of_events_has_the_mid_p_interval(successes: int, number: int) -> None:
    events = pl.DataFrame({"arm": "a", "seed": range(number), "won": [seed < successes for seed in range(number)]})
    row = share_interval(events, "won", ["arm"]).row(0, named=True)
    assert (row["low"], row["high"]) == pytest.approx(midp(successes, number)[1:], abs=1e-12)
    if successes:  # half of what binomtest counts as "as many"
        beyond = stats.binom.sf(successes, number, row["low"]) + stats.binom.pmf(successes, number, row["low"]) / 2
        assert beyond == pytest.approx(0.025)
    assert (row["mean"], row["num_events"], row["num_seeds"]) == (successes / number, successes, number)


def test_a_seed_without_an_outcome_is_missing() -> None:
    events = pl.DataFrame({"arm": "a", "seed": [0, 1], "won": [True, None]})
    found = share_interval(events, "won", ["arm"])
    assert found.select("mean", "num_events", "num_seeds", "num_missing").rows() == [(1.0, 1, 1, 1)]


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


@pytest.mark.parametrize("values", [[0.2, 0.2, 0.2], [0.1 + 0.2, 0.3, 0.3], [-4.0, -4.0]])
def test_measurements_that_are_all_alike_have_no_interval(values: list[float | None]) -> None:
    row = mean_interval(frame(values), "value", ["arm"]).row(0, named=True)
    assert (row["mean"], row["low"], row["high"]) == (pytest.approx(values[0]), None, None)
    both = pl.concat([frame([v + 1 for v in values if v is not None], "a"), frame(values, "b")])
    assert paired_difference(both, "value", "arm", "a", "b")["low"].to_list() == [None]


def test_what_is_exact_is_its_own_interval() -> None:
    rows = frame([0.3, 0.3, None]).with_columns(exact=pl.lit(value=True))
    row = mean_interval(rows, "value", ["arm"]).row(0, named=True)
    assert (row["mean"], row["low"], row["high"], row["num_missing"]) == (0.3, 0.3, 0.3, 1)
    both = pl.concat([rows, frame([0.1, 0.1, 0.1], "b").with_columns(exact=pl.lit(value=True))])
    row = paired_difference(both, "value", "arm", "a", "b").row(0, named=True)
    assert row["low"] == row["high"] == row["mean"] == pytest.approx(0.2)
    with pytest.raises(TableError, match="seeds differ"):
        mean_interval(frame([0.3, 0.4]).with_columns(exact=pl.lit(value=True)), "value", ["arm"])


@pytest.mark.parametrize("values", [[0.1, 0.2, 0.4], [0.0, 0.0, 1.0], [0.25, 0.25, 0.25], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_a_share_of_many_things_counts_its_seeds(values: list[float | None]) -> None:
    row = share_interval(frame(values), "value", ["arm"]).row(0, named=True)
    expected = shares([value for value in values if value is not None])
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(expected, abs=1e-9)
    assert row["low"] < row["high"]


def test_paired_events_have_newcombes_interval() -> None:
    """With Wilson's limits in the place of mid-p his table II has (.0569, .3404) for 36, 12, 2, 0."""
    both, one, two, neither = 36.0, 12.0, 2.0, 0.0
    low, high = event_difference_limits(np.array([both, one, two, neither]))
    (p, l1, u1), (q, l2, u2) = midp(48, 50), midp(38, 50)
    assert both * neither - one * two < 0  # no lessening
    phi = -24 / math.sqrt(48 * 2 * 38 * 12)
    below = math.sqrt((p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2)
    above = math.sqrt((u1 - p) ** 2 - 2 * phi * (u1 - p) * (q - l2) + (q - l2) ** 2)
    assert (low, high) == pytest.approx((p - q - below, p - q + above), abs=1e-9)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=0.02)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"), [([1] * 5, [0] * 5, 0.36, 1.0), ([0] * 5, [0] * 5, -0.46, 0.46)]
)
def test_events_of_every_seed_differ_by_no_interval_of_width_zero(
    first: list[int], second: list[int], low: float, high: float
) -> None:
    both = pl.concat([frame([*map(float, first)], "a"), frame([*map(float, second)], "b")])
    for rows in (both.with_columns(pl.col("value") == 1), both):
        row = paired_difference(rows, "value", "arm", "a", "b", of_shares=True).row(0, named=True)
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.01)
        assert row["num_seeds"] == 5
