"""How the share of sequences that are not exactly right depends on the length of the source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.decoders import errors_by, percent, with_arm
from pipeline.figures.stages import ranked
from pipeline.figures.style import canvas, handle_of, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of
from pipeline.quantities import GridTables, mean_interval
from pipeline.results import FINISHED

MAX_BINS = 8
"""More source lengths than these are put into bins of about as many sequences each."""

_BIN = ["source_length", "shortest", "longest"]


def applies(tables: GridTables) -> bool:
    """Return whether a decoder was tested, or trained, at more than one source length."""
    tested = tables.breakdown.filter(by="source_length", mode="free_running")
    return tested["at"].n_unique() > 1 or (_trained_by_length(tables) and not tested.is_empty())


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: the mean error over seeds with its interval, by arm and source length.

    Columns `arm`, `source_length` (mean of a bin), `shortest` and `longest` (of the bin), `mean`, `low`, `high`, ….
    """
    return mean_interval(points(tables), "error", ["arm", *_BIN], bounds=(0.0, 1.0))


def points(tables: GridTables) -> pl.DataFrame:
    """Return the share of test sequences not exactly right of every replica that did not diverge, free running.

    Where networks were trained at several lengths, each at its own; else by the lengths among the test sequences.
    """
    if _trained_by_length(tables):
        runs = tables.runs.filter(pl.col("status").is_in(FINISHED)).with_columns(shortest="length", longest="length")
        rows = runs.with_columns(source_length=pl.col("length").cast(pl.Float64), error="test_error")
    else:
        rows = _in_bins(errors_by(tables, "source_length").filter(mode="free_running"))
    return rows.select("arm", *_BIN, "seed", "error").sort(ranked(tables.arms), "source_length", "seed")


def growths(tables: GridTables) -> pl.DataFrame:
    """Return by how much the error at the longest sources exceeds that at the shortest, paired by seed, by arm.

    Columns `arm`, `near` and `far` (mean errors of the two), `mean` (of their difference), `low`, `high`, ….
    """
    rows = points(tables)
    near, far = (rows.filter(pl.col("source_length") == end) for end in _ends(rows))
    pairs = near.join(far, on=["arm", "seed"], suffix="_far", maintain_order="left")
    pairs = pairs.with_columns(growth=pl.col("error_far") - pl.col("error"))
    levels = pairs.group_by("arm").agg(near=pl.col("error").mean(), far=pl.col("error_far").mean())
    return mean_interval(pairs, "growth", ["arm"]).join(levels, on="arm", maintain_order="left")


def title(tables: GridTables) -> str:
    """Return how far the error grows where it grows most, and what it is in the arm that is best at the longest."""
    known = growths(tables).drop_nulls("mean")
    if known.is_empty():
        return "Inconclusive: no replica finished training"
    near, far = (f"{end:.0f}" for end in _ends(points(tables)))
    grown = known.filter(pl.col("low") > 0).sort("mean", descending=True, maintain_order=True)
    best = known.sort("far", maintain_order=True).row(0, named=True)
    told = with_arm(best["arm"], tables)
    if grown.is_empty():
        reason = " (one seed has no interval)" if known["num_seeds"].max() == 1 else ""
        return (
            f"No growth of the error from {near} to {far} source tokens is established{reason}; "
            f"{told} {percent(best['far'])} of the longest are wrong"
        )
    worst = grown.row(0, named=True)
    lead = with_arm(worst["arm"], tables)
    change = f"from {percent(worst['near'])} at {near} source tokens to {percent(worst['far'])} at {far}"
    said = f"{lead[0].upper()}{lead[1:]} the error grows {change}"
    if best["arm"] == worst["arm"]:
        return said
    if best["arm"] in grown["arm"]:
        return f"{said}; {told} from {percent(best['near'])} to {percent(best['far'])}"
    most = table(tables).filter(arm=best["arm"])["mean"].drop_nulls().to_numpy().max()
    return f"{said}; {told} it is {percent(most)} at most" if most else f"{said}; {told} it stays at 0"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    if _trained_by_length(tables):
        where = "of networks trained at that length, on test sequences of it"
    elif (drawn["shortest"] < drawn["longest"]).any():
        where = (
            f"in {drawn['source_length'].n_unique()} bins of about equally many test sequences, at their mean length"
        )
    else:
        where = "of the test sequences of that length"
    return (
        f"Share of output sequences on {tables.dataset} that are not exactly right, the decoder being given its own "
        f"tokens, against the length of the source, {where}; weights of the best validation step. Markers are means "
        f"over {seeds_of(drawn)} with {INTERVAL}; arms stand side by side. "
        f"{outcomes(tables.runs, 'diverged and failed ones are not shown')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw one panel with a line for each arm."""
    drawn, looks = table(tables), looks_of(tables.arms)
    figure, axes = canvas(title(tables), 1, 1, 3.1)
    ax, step = axes[0, 0], _dodge(drawn, len(looks))
    for place, (arm, look) in enumerate(looks.items()):
        line = drawn.filter(arm=arm).drop_nulls("mean")
        x = line["source_length"].to_numpy() + step * (place - (len(looks) - 1) / 2)
        y, low, high = (100 * line[side].fill_null(math.nan).to_numpy() for side in ("mean", "low", "high"))
        style: dict[str, Any] = {"marker": look.marker, "markersize": 5, "capsize": 2.5, "elinewidth": 1.0}
        ax.errorbar(x, y, np.clip([y - low, high - y], 0.0, None), **look.line, **style)
    if drawn.is_empty():
        ax.text(0.5, 0.5, "no replica finished", transform=ax.transAxes, ha="center")
    ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])
    ax.set_xlabel("source length (tokens)")
    ax.set_ylabel("sequences not exactly right (%)")
    legend_below(figure, [handle_of(look) for look in looks.values()], [name_of(arm) for arm in looks])
    return figure


def _trained_by_length(tables: GridTables) -> bool:
    return "dataset.length" in tables.runs.columns and tables.runs["dataset.length"].drop_nulls().n_unique() > 1


def _in_bins(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the errors of each replica by bins of source length, weighted by their numbers of sequences."""
    counts = rows.group_by("at").agg(pl.col("num").max()).sort("at")
    middle = (pl.col("num").cum_sum() - pl.col("num") / 2) / pl.col("num").sum()
    place = (middle * MAX_BINS).floor() if counts.height > MAX_BINS else pl.col("at")
    length = (pl.col("at") * pl.col("num")).sum().over("bin") / pl.col("num").sum().over("bin")
    bins = counts.with_columns(bin=place).with_columns(
        source_length=length, shortest=pl.col("at").min().over("bin"), longest=pl.col("at").max().over("bin")
    )
    error = (pl.col("error") * pl.col("num")).sum() / pl.col("num").sum()
    return rows.join(bins.drop("num"), on="at").group_by("arm", *_BIN, "seed").agg(error=error)


def _ends(rows: pl.DataFrame) -> tuple[float, float]:
    """Return the mean lengths of the shortest and of the longest sources; NaN where there are none."""
    lengths = rows["source_length"].to_numpy()
    return (float(lengths.min()), float(lengths.max())) if len(lengths) else (math.nan, math.nan)


def _dodge(drawn: pl.DataFrame, num_arms: int) -> float:
    """Return how far apart neighbouring arms stand at a length: all of them within a third of the smallest gap."""
    lengths = np.unique(drawn["source_length"].to_numpy())
    if len(lengths) < 2:
        return 0.0
    return min(float(np.diff(lengths).min()) / (3 * num_arms), 0.01 * float(np.ptp(lengths)))
