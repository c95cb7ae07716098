"""How often a decoder is given the true token while it trains, and what becomes of it when it runs free."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.decoders import percent
from pipeline.figures.stages import ranked
from pipeline.figures.style import banded, canvas, handle_of, label_panels, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, on_schedule, paired_difference
from pipeline.results import FINISHED

PROBABILITY = "teacher_forcing_probability"
ERROR = "validation_token_error[free_running]"

MAX_SHADED = 4
"""So many arms have full bands around their lines."""


def applies(tables: GridTables) -> bool:
    """Return whether the probability of the true token was other than 1 somewhere, and the error is known."""
    given = tables.curves.filter(metric=PROBABILITY)["value"]
    return bool((given < 1).any()) and ERROR in tables.curves["metric"]


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds with its interval by `metric` (probability, or error), arm and step.

    At the longest length. A replica that stopped keeps its last measurement.
    """
    curves = tables.at_longest(tables.curves)
    rows = pl.concat(on_schedule(curves.filter(metric=metric), ["metric"]) for metric in (PROBABILITY, ERROR))
    means = mean_interval(rows, "value", ["metric", "arm", "step"], bounds=(0.0, 1.0))
    return means.sort(pl.col("metric") == ERROR, ranked(tables.arms), "step")


def title(tables: GridTables) -> str:
    """Return the lowest and the highest error after training, where their difference is established over seeds."""
    last = _final(tables)
    means = mean_interval(last, "value", ["arm"]).drop_nulls("mean").sort("mean", maintain_order=True)
    if means.is_empty():
        return "Inconclusive: no replica finished training"
    best, worst = means.row(0, named=True), means.row(-1, named=True)
    if means.height == 1:
        return f"Free-running token error after training with {the(best['arm'])}: {percent(best['mean'])}"
    apart = paired_difference(last, "value", "arm", best["arm"], worst["arm"]).row(0, named=True)
    if apart["high"] is None or apart["high"] >= 0:
        return "Inconclusive: no difference between schedules in the free-running token error is established"
    return (
        f"Free-running token error after training: {percent(best['mean'])} with {the(best['arm'])}, "
        f"{percent(worst['mean'])} with {the(worst['arm'])}"
    )


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and which arms lie upon each other."""
    drawn = table(tables)
    curves = drawn.filter(metric=PROBABILITY).group_by("arm", maintain_order=True).agg("step", "mean")
    same = " Arms with the same schedule lie upon each other." if curves["mean"].n_unique() < curves.height else ""
    return (
        f"Above: probability ε_i that the decoder is given the true token rather than its own in training step i, on "
        f"{tables.dataset}.{same} Below: share of wrong tokens on the validation sequences where it is given its own "
        f"only. Means over {seeds_of(drawn)}, bands the {INTERVAL}; a replica that stopped keeps its last measurement. "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged ones count with their last weights')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw the schedules above the errors, over one axis of steps."""
    drawn, looks = table(tables), looks_of(tables.arms)
    figure, axes = canvas(title(tables), 2, 1, 4.4, sharex=True, height_ratios=[1, 1.4])
    shade = 0.15 if len(looks) <= MAX_SHADED else 0.06
    for arm, look in looks.items():
        given, wrong = (drawn.filter(metric=metric, arm=arm) for metric in (PROBABILITY, ERROR))
        banded(axes[0, 0], "step", given, look, shade=0.0)
        banded(axes[1, 0], "step", wrong.with_columns(pl.col("mean", "low", "high") * 100), look, shade=shade)
    for ax, heading in zip(axes[:, 0], ("Schedule", "Running free"), strict=True):
        ax.set_title(heading)
    axes[0, 0].set_ylim(-0.04, 1.04)
    axes[0, 0].set_ylabel("probability ε of\nthe true token")
    axes[1, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylabel("wrong tokens (%)")
    axes[1, 0].set_xlabel("training step")
    legend_below(figure, [handle_of(look) for look in looks.values()], [name_of(arm) for arm in looks])
    label_panels(list(axes[:, 0]))
    return figure


def _final(tables: GridTables) -> pl.DataFrame:
    """Return the last error of every replica that did not diverge."""
    rows = tables.at_longest(tables.curves).filter(pl.col("status").is_in(FINISHED), metric=ERROR)
    last = rows.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    return last.sort(ranked(tables.arms), "seed")
