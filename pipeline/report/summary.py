"""One row for each setting: what came out, over how many seeds, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pipeline.quantities import GridTables, mean_interval, share_interval
from pipeline.results import FINISHED, STATUSES

_KEYS = ["position"]


def settings_summary(tables: GridTables) -> pl.DataFrame:
    """Return a row for each setting of a grid, in the order of the plan.

    `test_loss` is the geometric mean over seeds that did not diverge, with the interval of its logarithm; `test_error`
    the mean. `solved_share` counts every seed but those with an error. `criterion_step` is the median over seeds, null
    where the median seed did not reach it. `step_time_s` is the median, `gradient_check_error` the largest over seeds.
    """
    runs = tables.all_runs.sort("position", "seed")
    named = runs.select("position", "label", "arm", "length", "trial_id", "selected", *_varied(tables)).unique(
        maintain_order=True
    )
    sound = runs.filter(pl.col("status").is_in(FINISHED))
    losses = mean_interval(sound.with_columns(pl.col("test_loss").log10()), "test_loss", _KEYS)
    losses = losses.with_columns((10.0 ** pl.col(name)).alias(name) for name in ("mean", "low", "high"))
    answered = runs.filter(pl.col("status") != "error")
    solved = share_interval(answered, "reached_criterion", _KEYS).rename({"share": "mean"})
    parts = [
        _prefixed(losses, "test_loss", ("mean", "low", "high", "num_seeds", "num_nonfinite")),
        _prefixed(mean_interval(sound, "test_error", _KEYS, bounds=(0.0, 1.0)), "test_error", ("mean", "low", "high")),
        _prefixed(solved, "solved_share", ("mean", "low", "high")),
        _plain(runs),
    ]
    for part in parts:
        named = named.join(part, on="position", how="left", maintain_order="left")
    return named.select(pl.lit(tables.study).alias("study"), pl.lit(tables.grid).alias("grid"), pl.all())


def failures(tables: GridTables) -> pl.DataFrame:
    """Return what did not end `ok`: a row for each setting, status and place, with its seeds and the message."""
    bad = tables.all_runs.filter(pl.col("status") != "ok").sort("position", "seed")
    place = ["diverged_step", "diverged_timestep", "diverged_quantity"]
    keys = ["position", "label", "selected", "status", *place, "status_message"]
    return bad.group_by(keys, maintain_order=True).agg(pl.col("seed"))


def _varied(tables: GridTables) -> list[str]:
    """Return the axes of a grid besides cell, dataset and length, which have columns of their own."""
    axes = [column for column in tables.settings.columns if "." in column]
    used = [axis for axis in axes if tables.settings[axis].is_not_null().any() and axis in tables.all_runs.columns]
    return [axis for axis in used if axis not in {"model.cell", "dataset.length", "dataset.name"}]


def _plain(runs: pl.DataFrame) -> pl.DataFrame:
    severity = pl.col("status").replace_strict(STATUSES, range(len(STATUSES)), return_dtype=pl.Int64)
    never = pl.col("criterion_step").cast(pl.Float64).fill_null(float("inf")).median()
    worst = (
        runs.with_columns(severity=severity)
        .group_by("position")
        .agg(
            severity=pl.col("severity").max(),
            num_seeds=pl.len().cast(pl.Int64),
            num_ok=(pl.col("status") == "ok").sum().cast(pl.Int64),
            criterion_step=pl.when(never.is_finite()).then(never),
            clipped_share=pl.col("clipped_share").mean(),
            step_time_s=pl.col("step_time_s").median(),
            gradient_check_error=pl.col("gradient_check_error").max(),
            num_parameters=pl.col("num_parameters").max(),
            wall_time_s=pl.col("wall_time_s").max(),
        )
    )
    status = pl.col("severity").replace_strict(range(len(STATUSES)), STATUSES, return_dtype=pl.String)
    return worst.with_columns(status=status).drop("severity")


def _prefixed(frame: pl.DataFrame, prefix: str, names: Sequence[str]) -> pl.DataFrame:
    renamed = {name: prefix if name == "mean" else f"{prefix}_{name}" for name in names}
    return frame.select("position", *names).rename(renamed)
