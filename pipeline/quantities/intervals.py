"""Intervals over seeds: of a mean (Student's t), of a share (Wilson), of a paired difference.

Every result says over how many seeds it is. A value that is NaN or infinite is counted in `num_nonfinite`, one that
is absent (null) in `num_missing`; neither enters a mean, and neither is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import polars as pl
from scipy import stats

from pipeline.errors import TableError

CONFIDENCE = 0.95
NORMAL_QUANTILE = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


def mean_interval(
    frame: pl.DataFrame, value: str, by: Sequence[str], *, bounds: tuple[float, float] | None = None
) -> pl.DataFrame:
    """Return the mean of `value` over seeds with its 95 % interval, mean ± t(0.975, n-1) s / √n, for each group.

    Args:
        frame: One row per group and seed, with columns `by`, `seed` and `value`.
        value: The column to average.
        by: The columns that tell groups apart.
        bounds: What the quantity cannot leave, such as (0, 1) for a share; the interval is cut there.

    Returns:
        Columns `by`, `mean`, `low`, `high`, `num_seeds` (finite values), `num_nonfinite`, `num_missing`, in the order
        in which groups first appear. One seed has a mean and no interval (null).

    Raises:
        TableError: If a group has two rows of one seed: they would count as two replications.
    """
    _check_one_row_per_seed(frame, by)
    finite = pl.col(value).is_finite()
    summary = frame.group_by(by, maintain_order=True).agg(
        mean=pl.col(value).filter(finite).mean(),
        deviation=pl.col(value).filter(finite).std(),
        num_seeds=finite.sum().cast(pl.Int64),
        num_nonfinite=finite.not_().sum().cast(pl.Int64),
        num_missing=pl.col(value).null_count().cast(pl.Int64),
    )
    quantiles = {count: _t_quantile(count - 1) for count in summary["num_seeds"].unique().to_list() if count > 1}
    quantile = pl.col("num_seeds").replace_strict(quantiles, default=None, return_dtype=pl.Float64)
    half = quantile * pl.col("deviation") / pl.col("num_seeds").sqrt()
    least, most = bounds or (None, None)
    low, high = (pl.col("mean") - half).clip(least, most), (pl.col("mean") + half).clip(least, most)
    return summary.with_columns(low=low, high=high).select(
        *by, "mean", "low", "high", "num_seeds", "num_nonfinite", "num_missing"
    )


def share_interval(frame: pl.DataFrame, event: str, by: Sequence[str]) -> pl.DataFrame:
    """Return the share of seeds with `event` and its 95 % Wilson interval, for each group.

    A seed whose event is null (it left no result) counts as a failure. Source: Wilson (1927).

    Args:
        frame: One row per group and seed, with columns `by`, `seed` and the Boolean `event`.
        event: The column that says whether it happened.
        by: The columns that tell groups apart.

    Returns:
        As `mean_interval`, and `num_events`; every seed counts, so `num_nonfinite` and `num_missing` are 0.

    Raises:
        TableError: If a group has two rows of one seed.
    """
    _check_one_row_per_seed(frame, by)
    z2 = NORMAL_QUANTILE**2
    n, share = pl.col("num_seeds"), pl.col("num_events") / pl.col("num_seeds")
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n**2))).sqrt() / (1 + z2 / n)
    counts = frame.group_by(by, maintain_order=True).agg(
        num_events=pl.col(event).fill_null(value=False).sum().cast(pl.Int64), num_seeds=pl.len().cast(pl.Int64)
    )
    nothing = pl.lit(0, pl.Int64)
    return counts.select(
        *by,
        mean=share,
        low=(centre - half).clip(0.0, 1.0),
        high=(centre + half).clip(0.0, 1.0),
        num_events="num_events",
        num_seeds="num_seeds",
        num_nonfinite=nothing,
        num_missing=nothing,
    )


def paired_difference(frame: pl.DataFrame, value: str, arm: str, first: str, second: str) -> pl.DataFrame:
    """Return the mean over seeds of `first` minus `second`, paired by seed, with its 95 % interval: one row.

    Arms share data order and initial draws seed by seed, so the difference has less spread than either arm.

    Args:
        frame: One row per arm and seed, with columns `arm`, `seed` and `value`.
        value: The column to compare.
        arm: The column that names arms.
        first: One arm.
        second: The arm to subtract.

    Returns:
        As `mean_interval`; a seed that only one of the arms has counts in `num_missing`. No row where neither has any.
    """
    sides = [frame.filter(pl.col(arm) == name).select("seed", pl.col(value).alias("side")) for name in (first, second)]
    pairs = sides[0].join(sides[1], on="seed", how="full", coalesce=True, suffix="_second")
    pairs = pairs.select("seed", difference=pl.col("side") - pl.col("side_second"), pair=pl.lit(f"{first} - {second}"))
    return mean_interval(pairs, "difference", ["pair"])


def line_interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float] | None:
    """Return the slope of a least-squares line with its 95 % interval (Student's t); None below three points."""
    if len(x) < 3 or not np.isfinite(y).all():
        return None
    line = stats.linregress(x, y)
    half = _t_quantile(len(x) - 2) * float(line.stderr)
    return float(line.slope), float(line.slope) - half, float(line.slope) + half


def _check_one_row_per_seed(frame: pl.DataFrame, by: Sequence[str]) -> None:
    keys = [*by, "seed"]
    repeated = frame.filter(frame.select(keys).is_duplicated())
    if not repeated.is_empty():
        row = ", ".join(f"{name}={value!r}" for name, value in repeated.select(keys).row(0, named=True).items())
        raise TableError(f"expected one row for each of {', '.join(keys)}; got several for {row}")


@cache
def _t_quantile(degrees: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))
