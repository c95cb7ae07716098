"""Up to which sequence length a cell learns: where most of its seeds reach the criterion."""

from __future__ import annotations

import polars as pl

from pipeline.quantities.intervals import share_interval


def solved_share(runs: pl.DataFrame) -> pl.DataFrame:
    """Return the share of seeds that reached the criterion, with its Wilson interval, by arm and length.

    A replica that diverged or ran out of time before the criterion has not reached it. One whose program failed says
    nothing about its cell and is left out.
    """
    answered = runs.filter(pl.col("status") != "error")
    return share_interval(answered, "reached_criterion", ["arm", "length"]).sort("length", maintain_order=True)


def longest_solved(runs: pl.DataFrame) -> pl.DataFrame:
    """Return for each arm the longest length that more than half of its seeds solve, as they do all shorter ones.

    Columns `arm` and `longest_solved` (null where not even the shortest is solved), in the order of `runs`.
    """
    shares = solved_share(runs).with_columns(failed=pl.col("share") <= 0.5)
    reliable = shares.filter(pl.col("failed").cum_sum().over("arm") == 0)
    longest = reliable.group_by("arm").agg(longest_solved=pl.col("length").max())
    arms = runs.select("arm").unique(maintain_order=True)
    return arms.join(longest, on="arm", how="left", maintain_order="left")


def has_criterion(runs: pl.DataFrame) -> bool:
    """Return whether any run could reach a criterion: whether its study sets `training.stop_below`."""
    return "training.stop_below" in runs.columns and bool(runs["training.stop_below"].is_not_null().any())
