"""Validation loss over training, by length and cell."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import MAX_PANELS, spread
from pipeline.figures.style import (
    FAINT,
    INK,
    canvas,
    handle_of,
    label_panels,
    legend_below,
    log_ticks,
    looks_of,
    styled,
)
from pipeline.figures.words import count, few, listed, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables
from pipeline.quantities.solved import has_criterion

MAX_COLUMNS = 3
MAX_WITH_SEEDS = 4
"""Of more arms than these only medians are drawn."""


def applies(tables: GridTables) -> bool:
    """Return whether validation losses were recorded."""
    return "validation_loss" in tables.curves["metric"]


def curves(tables: GridTables) -> pl.DataFrame:
    """Return the validation loss of every replica by length, arm, seed and step, as it was measured."""
    rows = tables.curves.filter(pl.col("metric") == "validation_loss")
    return rows.select("length", "arm", "seed", "step", "value", "status").sort("length", "arm", "seed", "step")


def table(tables: GridTables) -> pl.DataFrame:
    """Return the median validation loss over seeds by length, arm and step.

    A replica that reached the criterion is frozen, so its last loss stands for later steps; one that diverged has no
    loss after its last step and counts as infinite.

    Columns `length`, `arm`, `step`, `median` (null where at least half of the seeds diverged), `num_seeds`,
    `num_nonfinite`.
    """
    seen = curves(tables)
    steps = seen.select("length", "arm", "step").unique()
    replicas = seen.select("length", "arm", "seed", "status").unique()
    last = seen.group_by("length", "arm", "seed").agg(last_step=pl.col("step").max())
    full = steps.join(replicas, on=["length", "arm"]).join(last, on=["length", "arm", "seed"]).sort("step")
    measured = seen.drop("status").sort("step")
    full = full.join_asof(measured, on="step", by=["length", "arm", "seed"], check_sortedness=False)
    gone = (pl.col("status") == "diverged") & (pl.col("step") > pl.col("last_step"))
    value = pl.when(gone | pl.col("value").is_nan()).then(math.inf).otherwise(pl.col("value"))
    medians = (
        full.with_columns(value=value)
        .group_by("length", "arm", "step")
        .agg(
            median=pl.col("value").median(),
            num_seeds=pl.len().cast(pl.Int64),
            num_nonfinite=pl.col("value").is_infinite().sum().cast(pl.Int64),
        )
    )
    finite = pl.when(pl.col("median").is_finite()).then(pl.col("median"))
    return medians.with_columns(median=finite).sort("length", "arm", "step")


def title(tables: GridTables) -> str:
    """Return which arm reaches the criterion first at the longest length; without one, whose final loss is lowest."""
    drawn = table(tables).filter(pl.col("length") == tables.lengths[-1])
    if has_criterion(tables.runs):
        return _first_to_reach(tables)
    final = drawn.filter(pl.col("step") == pl.col("step").max().over("arm")).drop_nulls("median").sort("median")
    if final.is_empty():
        return "Inconclusive: no arm has a finite median validation loss"
    losses = [f"{the(row['arm'])} {number(row['median'])}" for row in final.iter_rows(named=True)]
    if len(losses) > MAX_WITH_SEEDS:
        return f"Median validation loss after training: from {losses[0]} to {losses[-1]}"
    return f"Median validation loss after training: {listed(losses)}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what a cross is."""
    drawn = table(tables)
    lines = "dashed, the analytic baseline" if tables.runs["baseline_loss"].is_not_null().any() else ""
    stop = "dotted, the criterion" if has_criterion(_by_loss(tables.runs)) else ""
    kept = (
        " A replica that reached the criterion keeps its last loss in the median." if has_criterion(tables.runs) else ""
    )
    extra = f" Horizontal lines: {'; '.join(part for part in (lines, stop) if part)}." if lines or stop else ""
    thin = "thin lines are seeds, thick ones" if len(tables.arms) <= MAX_WITH_SEEDS else "lines are"
    some = f" {len(_panels(tables))} of {len(tables.lengths)} lengths are shown."
    return (
        f"Validation loss on {tables.dataset}: {thin} medians over {seeds_of(drawn)}, no "
        f"interval.{kept}{extra}{some if len(_panels(tables)) < len(tables.lengths) else ''} "
        f"{outcomes(tables.runs, 'a diverged one ends in a cross and counts as infinite from there on')}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each length."""
    drawn, seen, lengths = table(tables), curves(tables), _panels(tables)
    num_columns = 2 if len(lengths) == 4 else min(MAX_COLUMNS, len(lengths))
    num_rows = math.ceil(len(lengths) / num_columns)
    figure, axes = canvas(title(tables), num_rows, num_columns, 0.9 + 2.2 * num_rows, sharey=True)
    for ax, length in zip(axes.flat, lengths, strict=False):
        _panel(ax, tables, drawn.filter(pl.col("length") == length), seen.filter(pl.col("length") == length))
        ax.set_title(f"T = {length}")
        ax.set_xlabel("training step")
    for ax in axes.flat[len(lengths) :]:
        ax.set_visible(False)
    axes[0, 0].set_yscale("log")
    log_ticks(axes[0, 0], "y")
    for ax in axes[:, 0]:
        ax.set_ylabel("validation loss")
    looks = looks_of(tables.arms)
    legend_below(figure, [handle_of(look, marker="") for look in looks.values()], [name_of(arm) for arm in looks])
    label_panels(list(axes.flat))
    return figure


def _panels(tables: GridTables) -> list[int]:
    """Return the lengths that have a panel: at most six, from the shortest to the longest."""
    return [int(length) for length in spread({str(length): float(length) for length in tables.lengths}, MAX_PANELS)]


def _panel(ax: Axes, tables: GridTables, drawn: pl.DataFrame, seen: pl.DataFrame) -> None:
    if drawn.is_empty():
        ax.text(0.5, 0.5, "no results", transform=ax.transAxes, ha="center")
        ax.set_xticks([])
    for arm, look in looks_of(tables.arms).items():
        for replica in seen.filter(pl.col("arm") == arm).partition_by("seed", maintain_order=True):
            steps, losses = replica["step"].to_numpy(), replica["value"].to_numpy()
            if len(tables.arms) <= MAX_WITH_SEEDS:
                ax.plot(steps, losses, color=look.colour, linewidth=0.6, alpha=0.45)
            if replica["status"][0] == "diverged":
                ax.plot(steps[-1:], losses[-1:], color=look.colour, marker="x", markersize=5)
        line = drawn.filter(pl.col("arm") == arm)
        heights = line["median"].fill_null(float("nan")).to_numpy()
        ax.plot(
            line["step"].to_numpy(), heights, **look.line, linewidth=1.8 if len(tables.arms) <= MAX_WITH_SEEDS else 1.3
        )
    for level, dashes, shade in (("baseline_loss", (0, (4, 2)), INK), ("training.stop_below", ":", FAINT)):
        if level in tables.runs.columns:
            for height in _by_loss(tables.runs, level)[level].drop_nulls().unique().sort():
                ax.axhline(height, color=shade, linestyle=dashes, linewidth=0.9)


def _by_loss(runs: pl.DataFrame, level: str = "training.stop_below") -> pl.DataFrame:
    """Return the runs whose criterion is a loss, and so a line in this figure; all of them for another level."""
    if level != "training.stop_below" or "training.stop_on" not in runs.columns:
        return runs
    return runs.filter(pl.col("training.stop_on") == "validation_loss")


def _first_to_reach(tables: GridTables) -> str:
    """Return a sentence about the median step of the criterion, a seed that did not reach it counting as never."""
    runs = tables.at_longest(tables.runs).with_columns(pl.col("criterion_step").cast(pl.Float64).fill_null(math.inf))
    medians = runs.group_by("arm", maintain_order=True).agg(step=pl.col("criterion_step").median())
    reached = medians.filter(pl.col("step").is_finite()).sort("step", maintain_order=True)
    length = tables.lengths[-1]
    if reached.is_empty():
        return f"At T = {length} the median seed of no cell reaches the criterion"
    parts = [f"{the(arm)} after {step:.0f}" for arm, step in reached.iter_rows()]
    never = [the(arm) for arm in medians.filter(pl.col("step").is_infinite())["arm"]]
    most = max(runs["num_steps"].drop_nulls(), default=0)
    told = listed(parts) if len(parts) <= MAX_WITH_SEEDS else f"from {parts[0]} to {parts[-1]}"
    said = f"Steps until the median seed reaches the criterion at T = {length}: {told}"
    return f"{said}; {few(never)} not within {count(most, 'step')}" if never else said
