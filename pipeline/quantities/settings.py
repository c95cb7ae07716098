"""A row per setting of a grid, selected or not: what came out, over how many seeds, and what went wrong.

And of which kind the curves are that each trial left.
"""

from __future__ import annotations

import polars as pl

from pipeline.quantities.attention import (
    alignment_error,
    alignment_share,
    attention_entropy,
    similarity_rank_correlation,
    within_class_share,
)
from pipeline.quantities.clipping import clip_cosine
from pipeline.quantities.dynamics import local_smoothness, orbit_exponent, probe_gradient_norm, state_space_divergence
from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.outcomes import median_criterion_step, solved, test_error, test_loss
from pipeline.quantities.quantity import Quantity
from pipeline.quantities.training import forcing_probability, free_running_error, validation_loss
from pipeline.quantities.weights import weight_spectrum
from pipeline.results import STATUSES

SUMMARISED: dict[str, Quantity] = {"test_loss": test_loss, "test_error": test_error, "solved_share": solved}
"""Columns that are means over seeds, each with its interval in `<name>_low` and `<name>_high`."""

OF_METRIC: dict[str, Quantity] = {
    "loss": validation_loss,
    "error": test_error,
    "token_error": free_running_error,
    "grad_norm": probe_gradient_norm,
    "clipped_grad_norm": probe_gradient_norm,
    "clip_cosine": clip_cosine,
    "teacher_forcing_probability": forcing_probability,
    "probe_grad_norm": probe_gradient_norm,
    "local_smoothness": local_smoothness,
    "sigma_max": weight_spectrum,
    "spectral_radius": weight_spectrum,
    "attention_entropy_nats": attention_entropy,
    "alignment_error": alignment_error,
    "alignment_share": alignment_share,
    "within_class_share": within_class_share,
    "similarity_rank_correlation": similarity_rank_correlation,
    "state_space_divergence": state_space_divergence,
    "orbit_exponent": orbit_exponent,
}
"""By metric of `curves` a quantity of its kind: how means over seeds and their intervals are taken of it."""


@once_per_grid
def settings_table(grid: Grid) -> pl.DataFrame:
    """Return a row per setting of a grid, in the order of the plan.

    `test_loss` is a geometric mean. `criterion_step` is the median over seeds, null where the median seed did not reach
    the criterion. `step_time_s` is the median, `gradient_check_error` the largest over seeds. `num_<status>` seeds
    ended so, `num_stopped_early` at the criterion, `num_not_converged` still improving.
    """
    runs = grid.all_runs.sort("position", "seed")
    keys = ["position", "label", "arm", "length", "trial_id", "selected"]
    rows = runs.select(*keys, *_varied(grid)).unique(maintain_order=True)
    settings = grid.by_setting()
    for name, quantity in SUMMARISED.items():
        summary = quantity.natural(quantity.summary(quantity.of(settings))).select(
            pl.col("arm").cast(pl.Int64).alias("position"),
            *(pl.col(side).alias(f"{name}{suffix}") for side, suffix in _SIDES.items()),
        )
        rows = rows.join(summary, on="position", how="left", maintain_order="left")
    rows = rows.join(_plain(runs), on="position", how="left", maintain_order="left")
    return rows.select(pl.lit(grid.study).alias("study"), pl.lit(grid.name).alias("grid"), pl.all())


_SIDES = {"mean": "", "low": "_low", "high": "_high"}


def _varied(grid: Grid) -> list[str]:
    """Return the axes of a grid besides cell, dataset and length, which have columns of their own."""
    axes = [column for column in grid.settings.columns if "." in column]
    used = [axis for axis in axes if grid.settings[axis].is_not_null().any() and axis in grid.all_runs.columns]
    return [axis for axis in used if axis not in {"model.cell", "dataset.length", "dataset.name"}]


def _plain(runs: pl.DataFrame) -> pl.DataFrame:
    """Return by position the worst status and what is a median, a mean or a maximum without an interval."""
    severity = pl.col("status").replace_strict(STATUSES, range(len(STATUSES)), return_dtype=pl.Int64)
    median_step = median_criterion_step()
    worst = runs.group_by("position").agg(
        status=severity.max(),
        num_seeds=pl.len().cast(pl.Int64),
        **{f"num_{status}": (pl.col("status") == status).sum().cast(pl.Int64) for status in STATUSES},
        num_stopped_early=pl.col("reached_criterion").sum().cast(pl.Int64),
        num_not_converged=pl.col("converged").not_().sum().cast(pl.Int64),
        num_converged=pl.col("converged").sum().cast(pl.Int64),
        num_beat_untrained=pl.col("beat_untrained").sum().cast(pl.Int64),
        num_exploded=pl.col("exploded_step").count().cast(pl.Int64),
        criterion_step=pl.when(median_step.is_finite()).then(median_step),
        clipped_share=pl.col("clipped_share").mean(),
        step_time_s=pl.col("step_time_s").median(),
        gradient_check_error=pl.col("gradient_check_error").max(),
        num_parameters=pl.col("num_parameters").max(),
        peak_memory_bytes=pl.col("peak_memory_bytes").max(),
        wall_time_s=pl.col("wall_time_s").max(),
    )
    named = pl.col("status").replace_strict(range(len(STATUSES)), STATUSES, return_dtype=pl.String)
    return worst.with_columns(status=named)
