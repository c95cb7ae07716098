"""Grids of a few numbers, and the intervals that they have by the textbook."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import polars as pl
import pytest
from scipy import optimize, stats

from pipeline.quantities import Effect, Grid, Selection, difference_of, ratio_of, value_of
from pipeline.results import SCHEMAS, TRIAL_TABLES

T975 = {1: 12.706204736174698, 2: 4.302652729749464, 3: 3.182446305283708, 4: 2.776445105197794}
"""The 97.5 % quantile of Student's t by degrees of freedom, from the table."""

Z975 = 1.959963984540054
LONG = tuple(table for table in TRIAL_TABLES if table != "trials")
JOINED = {"arm": pl.String(), "length": pl.Int64(), "status": pl.String()}


def grid(runs: pl.DataFrame, *, all_runs: pl.DataFrame | None = None, **long: pl.DataFrame) -> Grid:
    """Return a grid of these frames; what is not given has no rows, a column that is not given has null."""
    frames = {
        name: pl.concat(
            [pl.DataFrame(schema=SCHEMAS[name] | JOINED), *([long[name]] if name in long else [])],
            how="diagonal_relaxed",
        )
        for name in LONG
    }
    arms = tuple(runs["arm"].unique(maintain_order=True))
    settings = runs.select("trial_id", "arm", "length").unique(maintain_order=True)
    every = runs if all_runs is None else all_runs
    return Grid(study="study", name="grid", arms=arms, settings=settings, runs=runs, all_runs=every, long=frames)


def value(found: Grid, **of: object) -> Effect:
    """Return the value of the quantity that `of` selects."""
    return value_of(Selection.of(of, "check"), found)


def difference(found: Grid, to: Mapping[str, object], **of: object) -> Effect:
    """Return the difference of the quantity that `of` selects to the same with the changes in `to`."""
    return difference_of(Selection.of(of, "check"), Selection.of({**of, **to}, "check"), found)


def ratio(found: Grid, to: Mapping[str, object], **of: object) -> Effect:
    """Return the ratio of the quantity that `of` selects to the same with the changes in `to`."""
    return ratio_of(Selection.of(of, "check"), Selection.of({**of, **to}, "check"), found)


def runs(
    column: str,
    values: Mapping[str | tuple[str, int], Sequence[object]],
    *,
    length: int = 20,
    broken: Mapping[tuple[str, int], str] | None = None,
) -> pl.DataFrame:
    """Return the runs of arms (or of an arm and length), a value of `column` a seed; `broken` is by arm and seed."""
    rows = []
    for key, own in values.items():
        arm, T = (key, length) if isinstance(key, str) else key
        for seed, value in enumerate(own):
            status = (broken or {}).get((arm, seed), "ok")
            rows.append(
                {"trial_id": f"{arm} {T}", "arm": arm, "length": T, "seed": seed, "status": status, column: value}
            )
    keys = {
        "trial_id": pl.String(),
        "arm": pl.String(),
        "length": pl.Int64(),
        "seed": pl.Int64(),
        "status": pl.String(),
    }
    return pl.DataFrame(rows, schema=keys | {column: SCHEMAS["trials"][column]})


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval, mean ± t s/√n."""
    mean, n = statistics.fmean(values), len(values)
    half = T975[n - 1] * statistics.stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


def within_one(effect: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return an effect whose interval ends where a difference of shares does, at -1 and 1."""
    mean, low, high = effect
    return mean, max(-1.0, low), min(1.0, high)


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean and its 95 % interval, that of the logarithms."""
    mean, low, high = student([math.log(value) for value in values])
    return math.exp(mean), math.exp(low), math.exp(high)


def midp(events: float, n: float) -> tuple[float, float, float]:
    """Return the share and where the mean of P(X > events) and P(X >= events) is 2.5 % and 97.5 %."""

    def beyond(share: float) -> float:
        as_many = stats.beta.cdf(share, events, n - events + 1) if events > 0 else 1.0
        more = stats.beta.cdf(share, events + 1, n - events) if events < n else 0.0
        return float(as_many + more) / 2

    low = optimize.brentq(lambda p: beyond(p) - 0.025, 0, 1, xtol=1e-14) if events > 0 else 0.0
    high = optimize.brentq(lambda p: beyond(p) - 0.975, 0, 1, xtol=1e-14) if events < n else 1.0
    return events / n, low, high


def shares(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean share and its interval: that of p (1 - p) n / s² · (z / t)² seeds that did or did not."""
    mean, n = statistics.fmean(values), len(values)
    if len(set(values)) > 1:
        spread = statistics.variance(values)
        n = mean * (1 - mean) * n / spread * (Z975 / T975[n - 1]) ** 2  # type: ignore[assignment]
    _, low, high = midp(mean * n, n)
    return mean, low, high


def assert_effect(effect: Effect, expected: tuple[float, float, float], num_seeds: int, num_left_out: int = 0) -> None:
    """Compare value and interval to nine digits (on failure, all of both are shown), and the counts."""
    found = (effect.value, effect.low, effect.high)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), f"{found} is not {expected}"
    assert (effect.num_seeds, effect.num_left_out) == (num_seeds, num_left_out)


def assert_nothing(effect: Effect, num_left_out: int = 0) -> None:
    """Assert that there is no value, no interval and no seed."""
    assert effect == Effect(None, None, None, 0, num_left_out)
