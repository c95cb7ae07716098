"""Curves over seeds: mean and interval per step, thinned to what a chart can show."""

from __future__ import annotations

import polars as pl

MAX_POINTS = 300


def history(curves: pl.DataFrame) -> list[dict[str, float]]:
    """Return one row per step: `step`, and `<metric>/mean`, `/low`, `/high` of every metric seen there.

    The interval is Student's t over seeds, at 95 %; one seed has none. Where a seed is missing (it diverged, or
    reached its criterion) or is not finite, `<metric>/num_seeds` says how many are left.

    Args:
        curves: The `curves` table of one trial.
    """
    thinned = _thin(curves).with_columns(metric=chart_name(pl.col("metric")))
    points = over_seeds(thinned, ["step", "metric"])
    num_seeds = curves["seed"].n_unique()
    rows: dict[int, dict[str, float]] = {}
    for point in points.sort("step", "metric").iter_rows(named=True):
        row = rows.setdefault(point["step"], {"step": point["step"]})
        row |= spread(point["metric"], point, show_seeds=point["num_seeds"] < num_seeds)
    return list(rows.values())


def over_seeds(frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return `mean`, `low`, `high` and `num_seeds` of the column `value` in each group of `by`."""
    from pipeline.quantities import mean_interval  # scipy takes seconds to import; disabled tracking needs none of it

    return mean_interval(frame, "value", by)


def spread(name: str, point: dict[str, float | None], *, show_seeds: bool) -> dict[str, float]:
    """Return `<name>/mean`, `/low`, `/high` and, if asked, `/num_seeds`; what is null is left out."""
    parts = ("mean", "low", "high", "num_seeds") if show_seeds else ("mean", "low", "high")
    return {f"{name}/{part}": value for part in parts if (value := point[part]) is not None}


def chart_name(metric: pl.Expr) -> pl.Expr:
    """Return `sigma_max[h]` as `sigma_max_h`: W&B's expressions know letters, digits and underscores only."""
    return metric.str.replace_all(r"\[", "_").str.replace_all(r"\]", "")


def _thin(curves: pl.DataFrame) -> pl.DataFrame:
    """Keep at most `MAX_POINTS` steps of each metric, evenly spaced among its own, first and last included."""
    steps = curves.select("metric", "step").unique().sort("metric", "step")
    rank = pl.int_range(pl.len()).over("metric")
    last = pl.len().over("metric") - 1
    bucket = (rank * (MAX_POINTS - 1)) // last
    # A step opens a bucket if its predecessor lies in an earlier one; the last step has the last bucket to itself.
    opens = (bucket != bucket.shift(1).over("metric")).fill_null(value=True)
    return curves.join(steps.filter((last < MAX_POINTS) | opens), on=["metric", "step"], how="semi")
