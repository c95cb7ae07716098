"""Measurements of several seeds brought to common steps, though seeds stop at different ones."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def on_schedule(frame: pl.DataFrame, series: Sequence[str]) -> pl.DataFrame:
    """Return `frame` with a row of every seed at every scheduled step of its trial.

    A replica that stops (at the criterion, the time limit or a divergence) keeps its last weights, so its last
    measurement stands for the steps after it. A step at which only a replica that stopped was measured is no
    scheduled step and is left out.

    Args:
        frame: Columns `trial_id`, `seed`, `step` and `series`, and any others.
        series: The columns that tell the curves of one replica apart, such as `metric`.
    """
    seen = frame.select("trial_id", "seed", "step").unique()
    scheduled = _scheduled_steps(seen)
    seeds = seen.select("trial_id", "seed").unique()
    wanted = scheduled.join(seeds, on="trial_id").sort("step")
    measured = seen.with_columns(measured_step="step").sort("step")
    wanted = wanted.join_asof(measured, on="step", by=["trial_id", "seed"], strategy="backward", check_sortedness=False)
    rows = wanted.drop_nulls("measured_step").join(
        frame.rename({"step": "measured_step"}), on=["trial_id", "seed", "measured_step"]
    )
    return rows.select(frame.columns).sort("trial_id", *series, "step", "seed")


def _scheduled_steps(seen: pl.DataFrame) -> pl.DataFrame:
    """Return the (trial_id, step) at which every seed that had not stopped was measured."""
    last = seen.group_by("trial_id", "seed").agg(last_step=pl.col("step").max())
    steps = seen.group_by("trial_id", "step").agg(num_measured=pl.len())
    training = steps.join(last, on="trial_id").filter(pl.col("last_step") >= pl.col("step"))
    alive = training.group_by("trial_id", "step").agg(num_training=pl.len())
    both = steps.join(alive, on=["trial_id", "step"])
    return both.filter(pl.col("num_measured") == pl.col("num_training")).select("trial_id", "step")
