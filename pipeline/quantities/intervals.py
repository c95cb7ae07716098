"""Intervals over seeds: of a mean (Student's t), of a share (mid-p), of a paired difference of either.

Every result says over how many seeds it is. A value that is NaN or infinite is counted in `num_nonfinite`, one that
is absent (null) in `num_missing`; neither enters a mean, and neither is forgotten.

What is exact by construction (a number of parameters) is marked in its rows, by a Boolean column `exact`, and has
`low` = `mean` = `high`; nothing else has an interval of width zero. A mean whose seeds are all alike has no interval:
five measurements that agree do not say how far a sixth may lie. The coverage of each kind is in `coverage.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from scipy import special, stats

from pipeline.errors import TableError

CONFIDENCE = 0.95

ALIKE = 1e-9
"""Values that differ by less, relative to the largest, are one value."""

Array = np.ndarray[Any, np.dtype[Any]]

_COUNTS = ("num_seeds", "num_nonfinite", "num_missing")


def mean_interval(
    frame: pl.DataFrame,
    value: str,
    by: Sequence[str],
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
) -> pl.DataFrame:
    """Return the mean of `value` over seeds with its interval, mean ± t s / √n with n - 1 degrees, for each group.

    Args:
        frame: One row per group and seed, with columns `by`, `seed` and `value`, and `exact` where some are.
        value: The column to average; logarithms where values are positive and skewed (losses, times, norms, ratios).
        by: The columns that tell groups apart.
        bounds: What the quantity cannot leave, such as (-1, 1) for a cosine; the interval is cut there.
        confidence: In how many of such intervals the true mean lies.

    Returns:
        Columns `by`, `mean`, `low`, `high`, `num_seeds` (finite values), `num_nonfinite`, `num_missing`, in the order
        in which groups first appear. One seed, or seeds that are all alike, have a mean and no interval (null).

    Raises:
        TableError: If a group has two rows of one seed: they would count as two replications; or if values that are
            exact by construction differ between seeds.
    """
    summary = _grouped(frame, value, by)
    quantiles = {count: t_quantile(count - 1, confidence) for count in summary["num_seeds"].unique() if count > 1}
    quantile = pl.col("num_seeds").replace_strict(quantiles, default=None, return_dtype=pl.Float64)
    half = pl.when(pl.col("alike").not_()).then(quantile * pl.col("deviation") / pl.col("num_seeds").sqrt())
    least, most = bounds or (None, None)
    low, high = (pl.col("mean") - half).clip(least, most), (pl.col("mean") + half).clip(least, most)
    return _exact_marked(summary.with_columns(low=low, high=high)).select(*by, "mean", "low", "high", *_COUNTS)


def share_interval(
    frame: pl.DataFrame, value: str, by: Sequence[str], *, confidence: float = CONFIDENCE
) -> pl.DataFrame:
    """Return the mean share over seeds with its mid-p interval (`share_limits`), for each group.

    A null is missing, of an event as of a share. Where a seed has a share of many things, the seed is still the unit: n
    seeds with the mean p and the variance s² count as n' = p (1 - p) n / s² · (z / t)² seeds that each did or did not,
    with z the normal quantile and t Student's with n - 1 degrees.

    Seeds that are all alike count as n, for their agreement says nothing of the spread. Where none has any, however
    many things were asked of it, the interval is that of no event in n: whatever the distribution of a share X with the
    mean p, P(X = 0) ≤ 1 - p, and it is 1 - p where a seed has all or none; nothing narrower holds for both.

    Source: Korn and Graubard (1998), section 3, with mid-p in the place of Clopper and Pearson's limits.

    Args:
        frame: One row per group and seed, with columns `by`, `seed` and `value`, and `exact` where some are.
        value: Whether it happened (Boolean), or a share in [0, 1].
        by: The columns that tell groups apart.
        confidence: In how many of such intervals the true share lies.

    Returns:
        As `mean_interval`; of events also `num_events`, and one seed has an interval, as it has none of a share.

    Raises:
        TableError: As `mean_interval`.
    """
    is_event = frame.schema[value] == pl.Boolean
    summary = _grouped(frame.with_columns(pl.col(value).cast(pl.Float64)), value, by)
    mean, n = (summary[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("mean", "num_seeds"))
    if is_event:
        effective = n
    else:
        variance = summary["deviation"].fill_null(0.0).to_numpy() ** 2
        normal = t_quantile(np.inf, confidence)
        quantile = np.array([t_quantile(count - 1, confidence) if count > 1 else np.nan for count in n])
        spread = np.where(summary["alike"].fill_null(value=True).to_numpy(), np.nan, variance)
        effective = np.where(np.isnan(spread), n, mean * (1 - mean) * n / spread * (normal / quantile) ** 2)
    low, high = share_limits(mean * effective, effective, confidence)
    is_known = n > (0 if is_event else 1)
    sides = {name: np.where(is_known, side, np.nan) for name, side in (("low", low), ("high", high))}
    summary = summary.with_columns(pl.Series(name, side).fill_nan(None) for name, side in sides.items())
    num_events = (pl.col("mean") * pl.col("num_seeds")).round().cast(pl.Int64).alias("num_events")
    events = [num_events] if is_event else []
    return _exact_marked(summary).select(*by, "mean", "low", "high", *events, *_COUNTS)


def share_limits(num_events: Array, num_seeds: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Return the mid-p limits of a share: where P(more events) + P(as many) / 2 is α/2, and 1 - α/2.

    Wilson's limits cover in 83 % at worst for five seeds, these in 91 %, for every number of seeds from 3 to 30; they
    are narrower than Clopper and Pearson's. Numbers of events and seeds need not be whole: the binomial tail is the
    regularised incomplete beta function of both.

    Source: Lancaster (1961); Agresti and Gottard (2007).
    """
    k, n = np.broadcast_arrays(np.asarray(num_events, float), np.asarray(num_seeds, float))
    k = np.clip(k, 0.0, n)  # rounding
    none, every = k <= ALIKE * n, k >= (1 - ALIKE) * n
    safe_k, safe_rest = np.where(none, 1.0, k), np.where(every, 1.0, n - k)

    def tail(share: Array) -> Array:
        """P(more events) + P(as many) / 2, rising with the share."""
        as_many = np.where(none, 1.0, special.betainc(safe_k, n - k + 1, share))
        more = np.where(every, 0.0, special.betainc(k + 1, safe_rest, share))
        return (as_many + more) / 2

    sides = []
    for goal, fixed in (((1 - confidence) / 2, none), ((1 + confidence) / 2, every)):
        low, high = np.zeros_like(k), np.ones_like(k)
        for _ in range(60):
            middle = (low + high) / 2
            is_short = tail(middle) < goal
            low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
        sides.append(np.where(fixed, 0.0 if goal < 0.5 else 1.0, (low + high) / 2))
    return sides[0], sides[1]


def paired_difference(
    frame: pl.DataFrame,
    value: str,
    arm: str,
    first: str | float,
    second: str | float,
    *,
    of_shares: bool = False,
    bounds: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
) -> pl.DataFrame:
    """Return the mean over seeds of `first` minus `second`, paired by seed, with its interval: one row.

    Arms share data order and initial draws seed by seed, so the difference has less spread than either arm.

    Of events the interval is Newcombe's paired one (`event_difference_limits`); of all else Student's of the
    differences. Where `of_shares` and the differences are all alike, it is Newcombe's as if each seed were one event
    and the two arms had nothing to do with one another.

    Args:
        frame: One row per arm and seed, with columns `arm`, `seed` and `value`, and `exact` where some are.
        value: The column to compare; Boolean where it is whether something happened.
        arm: The column that names arms.
        first: One arm.
        second: The arm to subtract.
        of_shares: Whether the values are shares in [0, 1].
        bounds: What the values cannot leave, (0, 1) for shares; the interval is cut at the largest difference of two.
        confidence: In how many of such intervals the true difference lies.

    Returns:
        As `mean_interval`; a seed that only one of the arms has counts in `num_missing`. No row where neither has any.
    """
    marks = ["exact"] if "exact" in frame.columns else []
    sides = [
        frame.filter(pl.col(arm) == name).select("seed", *marks, side=pl.col(value).cast(pl.Float64))
        for name in (first, second)
    ]
    pairs = sides[0].join(sides[1], on="seed", how="full", coalesce=True, suffix="_second")
    side, other = pl.col("side"), pl.col("side_second")
    is_zero = ((side - other).abs() <= 1e-12 * pl.max_horizontal(side.abs(), other.abs())) & side.is_finite()
    pairs = pairs.select(
        "seed",
        "side",
        "side_second",
        *((pl.col("exact") & pl.col("exact_second")).alias("exact") for _ in marks),
        difference=pl.when(is_zero).then(0.0).otherwise(side - other),
        pair=pl.lit(f"{first} - {second}"),
    )
    reach = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    found = mean_interval(pairs, "difference", ["pair"], bounds=reach, confidence=confidence)
    is_event = frame.schema[value] == pl.Boolean
    known = pairs.filter(pl.col("difference").is_finite())
    if is_event or (of_shares and known.height > 1 and found["low"][0] is None):
        counts = np.array([known.filter(side == a, other == b).height for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))])
        if not is_event:
            p, q = (float(known[name].to_numpy().mean()) for name in ("side", "side_second"))
            counts = known.height * np.array([p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)])
        if known.height:
            low, high = event_difference_limits(counts, confidence)
            found = found.with_columns(low=pl.lit(low, pl.Float64), high=pl.lit(high, pl.Float64))
    return found


def event_difference_limits(counts: Array, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the limits of the difference of two paired shares.

    With the limits (l, u) of each share p, the lower one of p - q is p - q - √(a² - 2 φ a b + b²), where a = p - l and
    b = u' - q, and φ is the correlation of the pairs, lessened by n / 2 pairs where it is positive.

    Source: Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10, with mid-p in the place of Wilson's limits.

    Args:
        counts: How many pairs have both events, the first alone, the second alone, neither.
        confidence: In how many of such intervals the true difference lies.
    """
    both, one, two, neither = (float(count) for count in counts)
    n = both + one + two + neither
    shares = np.array([both + one, both + two]) / n
    low, high = share_limits(shares * n, np.full(2, n), confidence)
    cross, product = both * neither - one * two, n**4 * float(np.prod(shares * (1 - shares)))
    lessened = max(cross - n / 2, 0.0) if cross > 0 else cross
    phi = lessened / product**0.5 if product > ALIKE else 0.0
    below, above = shares - low, high - shares
    difference = float(shares[0] - shares[1])
    reaches = [
        max(0.0, a * a - 2 * phi * a * b + b * b) ** 0.5 for a, b in ((below[0], above[1]), (above[0], below[1]))
    ]
    return max(-1.0, difference - float(reaches[0])), min(1.0, difference + float(reaches[1]))


def ratio_half_width(errors: Array, counts: Array, confidence: float = CONFIDENCE) -> Array:
    """Return how far the logarithm of a ratio of two independent means reaches to either side: t √(e² + e'²).

    Source: Welch (1947), with Satterthwaite's degrees of freedom, (e² + e'²)² / (e⁴ / (n - 1) + e'⁴ / (n' - 1)).

    Args:
        errors: The standard error of each mean over the mean, (2, ...).
        counts: Over how many values each mean is, at least 2; broadcast with `errors`.
        confidence: In how many of such intervals the true ratio lies.

    Returns:
        In nats; NaN where both errors are 0.
    """
    with np.errstate(invalid="ignore"):
        variances = np.square(errors)
        degrees = variances.sum(axis=0) ** 2 / (variances**2 / (counts - 1)).sum(axis=0)
        return special.stdtrit(degrees, (1 + confidence) / 2) * np.sqrt(variances.sum(axis=0))


def line_interval(x: Array, y: Array, confidence: float = CONFIDENCE) -> tuple[float, float, float] | None:
    """Return the slope of a least-squares line with its interval (Student's t); None below three points."""
    if len(x) < 3 or not np.isfinite(y).all():
        return None
    line = stats.linregress(x, y)
    half = t_quantile(len(x) - 2, confidence) * float(line.stderr)
    return float(line.slope), float(line.slope) - half, float(line.slope) + half


@cache
def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t; of infinitely many degrees the normal one."""
    return float(stats.t.ppf((1 + confidence) / 2, degrees))


def _grouped(frame: pl.DataFrame, value: str, by: Sequence[str]) -> pl.DataFrame:
    """Return `mean` and `deviation` of the finite values of each group, whether they are `alike` and `exact`.

    Raises:
        TableError: If a group has two rows of one seed.
    """
    keys = [*by, "seed"]
    repeated = frame.filter(frame.select(keys).is_duplicated())
    if not repeated.is_empty():
        row = ", ".join(f"{name}={value!r}" for name, value in repeated.select(keys).row(0, named=True).items())
        raise TableError(f"expected one row for each of {', '.join(keys)}; got several for {row}")
    finite = pl.col(value).is_finite()
    kept = pl.col(value).filter(finite)
    exact = pl.col("exact").filter(finite).all() if "exact" in frame.columns else pl.lit(value=False)
    return frame.group_by(by, maintain_order=True).agg(
        mean=kept.mean(),
        deviation=kept.std(),
        alike=kept.max() - kept.min() <= ALIKE * kept.abs().max(),
        exact=exact & (finite.sum() > 0),
        num_seeds=finite.sum().cast(pl.Int64),
        num_nonfinite=finite.not_().sum().cast(pl.Int64),
        num_missing=pl.col(value).null_count().cast(pl.Int64),
    )


def _exact_marked(summary: pl.DataFrame) -> pl.DataFrame:
    """Return a summary whose exact means are their own interval.

    Raises:
        TableError: If seeds differ in what is exact.
    """
    differs = summary.filter("exact", ~pl.col("alike"))
    if not differs.is_empty():
        raise TableError(
            f"expected one value of what is exact by construction; seeds differ: {differs.row(0, named=True)}"
        )
    sides = [pl.when("exact").then(pl.col("mean")).otherwise(pl.col(side)).alias(side) for side in ("low", "high")]
    return summary.with_columns(sides)
