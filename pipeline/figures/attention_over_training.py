"""How attention sharpens in training, and when it finds the known alignment."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.examples import at_end, where
from pipeline.figures.stages import interval, staged
from pipeline.figures.style import banded, canvas, handle_of, label_panels, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, on_schedule, paired_difference

METRICS = {"attention_entropy_nats": "Entropy of the weights", "alignment_error": "Alignment error"}

_VERBS = ("sharpens", "widens", "does not measurably change")


def applies(tables: GridTables) -> bool:
    """Return whether the entropy of attention was recorded."""
    return "attention_entropy_nats" in tables.at_longest(tables.curves)["metric"]


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds with its interval, by metric, arm and step, at the longest length.

    Entropy is in nats, the alignment error a share. A replica that stopped keeps its last measurement.
    """
    rows = tables.at_longest(tables.curves).filter(pl.col("metric").is_in(list(METRICS)))
    means = mean_interval(on_schedule(rows, ["metric"]), "value", ["metric", "arm", "step"])
    most = pl.when(metric="alignment_error").then(1.0)
    bounded = means.with_columns(pl.col("low").clip(0.0), pl.min_horizontal("high", most))
    return bounded.sort("metric", "arm", "step")


def title(tables: GridTables) -> str:
    """Return in which arms training sharpens attention, seed by seed, and where the alignment error ends."""
    changes = _changes(tables)
    if not changes:
        return "Inconclusive: no replica finished training"
    if all(change["low"] is None for change in changes.values()):
        arm, change = next(iter(changes.items()))
        return f"One seed, no interval: the entropy of {the(arm)}'s weights changes by {number(change['mean'], 2)} nats"
    arms = {verb: [the(arm) for arm, change in changes.items() if _verb(change) == verb] for verb in _VERBS}
    parts = [f"{verb} the attention of {few(arms[verb])}" for verb in _VERBS if arms[verb]]
    return f"Training {'; it '.join(parts)}{_errors_told(tables)}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and the alignment error at the end."""
    drawn, errors = table(tables), at_end(tables, "alignment_error")
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in errors.iter_rows(named=True))
    share = (
        " Alignment error: the share of output tokens with a known alignment whose largest weight lies outside it; "
        f"at the end {told}."
    )
    treatment = "they are part of the means, with their last measured weights"
    return (
        f"Attention over training (logarithmic axis) on the probe batch of {where(tables)}, the true output given: "
        f"mean over {seeds_of(drawn)} with {INTERVAL}; a replica that stopped keeps its last measurement."
        f"{share if told else ''} {outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for entropy and one for the alignment error where it is known, a line for each arm."""
    drawn = table(tables)
    metrics = [metric for metric in METRICS if metric in drawn["metric"]]
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    figure, axes = canvas(title(tables), 1, len(metrics), 3.0)
    looks = looks_of(tables.arms)
    for ax, metric in zip(axes[0], metrics, strict=True):
        scale = 100.0 if metric == "alignment_error" else 1.0
        rows = drawn.filter(metric=metric).with_columns(pl.col("mean", "low", "high") * scale)
        for arm in arms:
            banded(ax, "step", rows.filter(arm=arm), looks[arm], shade=0.18 if len(arms) <= 4 else 0.06)
        ax.set_title(METRICS[metric])
        ax.set_ylabel("alignment error in %" if metric == "alignment_error" else "entropy in nats")
        ax.set_ylim(bottom=0)
        _step_axis(ax, max(drawn["step"]))
    label_panels(axes[0])
    legend_below(figure, [handle_of(looks[arm]) for arm in arms], [name_of(arm) for arm in arms])
    return figure


def _step_axis(ax: Axes, last: int) -> None:
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, *(10**power for power in range(7) if 10**power <= last)])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(-0.15, last * 1.3)
    ax.set_xlabel("training step")


def _changes(tables: GridTables) -> dict[str, dict[str, float | None]]:
    """Return by arm the mean change of the entropy in training, paired by seed, with its interval."""
    entropy = staged(tables.at_longest(tables.curves).filter(metric="attention_entropy_nats"))
    pairs = {
        arm: paired_difference(entropy.filter(arm=arm), "value", "stage", "end", "initialisation")
        for arm in tables.arms
        if arm in entropy["arm"]
    }
    return {arm: row.row(0, named=True) for arm, row in pairs.items() if row["mean"].is_not_null().any()}


def _verb(change: dict[str, float | None]) -> str:
    low, high = change["low"], change["high"]
    if low is not None and low > 0:
        return "widens"
    return "sharpens" if high is not None and high < 0 else "does not measurably change"


def _errors_told(tables: GridTables) -> str:
    errors = at_end(tables, "alignment_error").drop_nulls("mean").sort("mean", maintain_order=True)
    ends = [f"{100 * row['mean']:.1f} %" for row in errors.iter_rows(named=True)]
    if len(ends) > 1:
        ends = [f"{end} ({name_of(arm)})" for end, arm in zip(ends, errors["arm"], strict=True)]
        return f"; the alignment error ends at {ends[0]} to {ends[-1]}"
    return f"; the alignment error ends at {ends[0]}" if ends else ""
