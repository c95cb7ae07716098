"""Losses and errors along training, and on test data by kind of token or at lengths that were never trained on."""

from __future__ import annotations

import math

import polars as pl

from pipeline.quantities.grid import Grid, finished, of_every_replica, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import metric, on_schedule


def scheduled(grid: Grid, name: str, **facts: str | int) -> pl.DataFrame:
    """Return a curve with every seed at every scheduled step: a replica that stopped keeps its last measurement."""
    rows = on_schedule(metric(grid["curves"], name, **facts), ["metric"])
    return rows.select("arm", "seed", "step", "value")


@once_per_grid
def validation_losses(grid: Grid) -> pl.DataFrame:
    """Return the validation loss of every replica by length and step, as it was measured; `status` beside it."""
    rows = metric(grid["curves"], "loss", split="validation")
    return rows.select("length", "arm", "seed", "step", "value", "status").sort("length", "arm", "seed", "step")


@quantity(words="validation loss", scale="log10", better="lower", facets=("step",), across_lengths=True)
def validation_loss(grid: Grid) -> pl.DataFrame:
    """log10 of `validation_losses`."""
    return validation_losses(grid).with_columns(pl.col("value").log10())


@once_per_grid
def median_validation_loss(grid: Grid) -> pl.DataFrame:
    """Return the median validation loss over seeds by length, arm and step, which has no interval.

    A replica that reached the criterion is frozen, so its last loss stands for later steps; one that diverged has no
    loss after its last step and counts as infinite.

    Columns `length`, `arm`, `step`, `mean` (the median; null where at least half of the seeds diverged), `low` and
    `high` (null), `num_seeds`, `num_nonfinite` (0, for what is infinite counts).
    """
    seen = validation_losses(grid)
    keys = ["length", "arm", "seed"]
    steps = seen.select("length", "arm", "step").unique()
    replicas = seen.group_by(*keys, "status").agg(last_step=pl.col("step").max())
    every = steps.join(replicas, on=["length", "arm"]).sort("step")
    measured = seen.drop("status").sort("step")
    every = every.join_asof(measured, on="step", by=keys, check_sortedness=False)
    is_gone = (pl.col("status") == "diverged") & (pl.col("step") > pl.col("last_step"))
    value = pl.when(is_gone | pl.col("value").is_nan()).then(math.inf).otherwise(pl.col("value"))
    by_step = every.with_columns(value=value).group_by("length", "arm", "step")
    found = by_step.agg(mean=pl.col("value").median(), num_seeds=pl.len().cast(pl.Int64))
    finite, nothing = pl.when(pl.col("mean").is_finite()).then(pl.col("mean")), pl.lit(None, pl.Float64)
    found = found.with_columns(mean=finite, low=nothing, high=nothing, num_nonfinite=pl.lit(0, pl.Int64))
    return found.sort("length", grid.rank(), "step")


@quantity(words="test error on {group} cases", scale="share", better="lower", facets=("group",))
def test_error_by_group(grid: Grid) -> pl.DataFrame:
    """Share of wrong answers on the test sequences, by the kind of the token that they answer."""
    curves = grid["curves"].filter(pl.col("group").is_not_null(), metric="error", split="test")
    errors = curves.select("group", "arm", "seed", value=finished("value"))
    return of_every_replica(grid, errors, "group").sort("group", grid.rank(), "seed")


@quantity(
    words="test loss at the {unseen} unseen length over the baseline", scale="log10", better="lower", facets=("unseen",)
)
def unseen_over_baseline(grid: Grid) -> pl.DataFrame:
    """log10 of the test loss at a length never trained on, over the baseline: below 0 beats any memoryless answer.

    At the `nearest` and at the `farthest` of the tested lengths beyond the trained one.
    """
    rows = grid["curves"].filter(pl.col("tested_length") > grid.lengths[-1], metric="loss", split="test")
    baselines = grid.runs.select("trial_id", "seed", "baseline_loss")
    logs = (pl.col("value") / pl.col("baseline_loss")).log10()
    rows = rows.join(baselines, on=["trial_id", "seed"]).with_columns(value=finished(logs))
    ends = {"nearest": pl.col("tested_length").min(), "farthest": pl.col("tested_length").max()}
    chosen = [
        rows.filter(pl.col("tested_length") == end).with_columns(unseen=pl.lit(name)) for name, end in ends.items()
    ]
    return of_every_replica(grid, pl.concat(chosen).select("unseen", "arm", "seed", "value"), "unseen")


@quantity(
    words="test loss at length {tested_length}",
    scale="log10",
    better="lower",
    facets=("tested_length",),
    across_lengths=True,
)
def test_loss_by_tested_length(grid: Grid) -> pl.DataFrame:
    """log10 of the test loss at the trained `length` and at every other length that a network was tested at."""
    known = finished(pl.col("value").log10())
    seen = grid.runs.rename({"test_loss": "value"}).with_columns(tested_length="length")
    unseen = grid["curves"].filter(pl.col("tested_length") != pl.col("length"), metric="loss", split="test")
    both = [rows.select("length", "arm", "seed", "tested_length", value=known) for rows in (seen, unseen)]
    return pl.concat(both).sort("length", grid.rank(), "tested_length", "seed")


@quantity(words="probability of the true token", bounds=(0.0, 1.0), facets=("step",))
def forcing_probability(grid: Grid) -> pl.DataFrame:
    """Probability with which a decoder in training is given the true token rather than its own."""
    return scheduled(grid, "teacher_forcing_probability")


@quantity(words="free-running token error", scale="share", better="lower", facets=("step",))
def free_running_error(grid: Grid) -> pl.DataFrame:
    """Share of wrong tokens on the validation sequences, the decoder being given its own tokens."""
    return scheduled(grid, "token_error", split="validation", mode="free_running")


@quantity(words="free-running token error after training", scale="share", better="lower")
def final_free_running_error(grid: Grid) -> pl.DataFrame:
    """Share of wrong tokens on the validation sequences at the last step of every replica, free-running."""
    rows = metric(grid["curves"], "token_error", split="validation", mode="free_running")
    last = rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    return last.sort(grid.rank(), "seed").select("arm", "seed", value=finished("value"))
