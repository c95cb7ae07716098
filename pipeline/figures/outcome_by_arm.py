"""How each arm ends: its test loss or error, and the shares of its seeds that solve, diverge or run out of time."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures import error_by_cell, loss_by_length
from pipeline.figures.decoders import decodes
from pipeline.figures.stages import compares_cells, ranked
from pipeline.figures.style import (
    FAINT,
    INK,
    Look,
    canvas,
    handle_of,
    label_panels,
    legend_below,
    log_ticks,
    looks_of,
    styled,
)
from pipeline.figures.words import INTERVAL, few, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, paired_difference, share_interval
from pipeline.quantities.solved import has_criterion
from pipeline.results import FINISHED

ENDS = {
    "solved": Look("#12416e", "none", "o"),
    "diverged": Look("#d1580b", "none", "X"),
    "timed_out": Look("#93308a", "none", "s"),
    "error": Look(FAINT, "none", "v"),
}
_NAMES = {"solved": "reached the criterion", "diverged": "diverged", "timed_out": "ran out of time", "error": "failed"}


def applies(tables: GridTables) -> bool:
    """Return whether there are several arms, and no figure of bare cells says the same."""
    said = error_by_cell.applies(tables) or (compares_cells(tables) and loss_by_length.applies(tables))
    return len(tables.arms) > 1 and not said


def table(tables: GridTables) -> pl.DataFrame:
    """Return the shares of seeds by arm and `end` (solved, diverged, timed_out, error) with 95 % Wilson intervals.

    At the longest length. `solved` is there where the study has a criterion, the others where a seed ended so; seeds
    whose program failed count in the share `error` alone.
    """
    runs = tables.at_longest(tables.runs)
    sound = runs.filter(pl.col("status") != "error")
    events = {"solved": pl.col("reached_criterion")} if has_criterion(runs) else {}
    events |= {end: pl.col("status") == end for end in ("diverged", "timed_out", "error") if end in runs["status"]}
    parts = [
        share_interval((runs if end == "error" else sound).with_columns(event=event), "event", ["arm"]).with_columns(
            end=pl.lit(end)
        )
        for end, event in events.items()
    ]
    empty = share_interval(runs.clear().with_columns(event=pl.lit(value=True)), "event", ["arm"])
    both = pl.concat([empty.with_columns(end=pl.lit("", pl.String)), *parts])
    return both.sort(ranked(tables.arms), maintain_order=True).select("arm", "end", pl.exclude("arm", "end"))


def losses(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds that did not diverge of the test error, or else of log10 test loss, by arm."""
    return mean_interval(_sound(tables), "value", ["arm"]).sort(ranked(tables.arms))


def title(tables: GridTables) -> str:
    """Return which arms most seeds solve; without a criterion, whether the best arm is ahead of the next one."""
    shares = table(tables)
    lost = [the(arm) for arm in shares.filter(pl.col("end") == "diverged", pl.col("share") > 0.5)["arm"]]
    tail = f"; most seeds of {few(lost)} diverge" if lost else ""
    where = f"At T = {tables.lengths[-1]}"
    solved = shares.filter(pl.col("end") == "solved")
    if not solved.is_empty():
        won = solved.filter(pl.col("share") > 0.5).sort("share", descending=True, maintain_order=True)
        if won.is_empty():
            return f"{where} no arm reaches the criterion with most of its seeds{tail}"
        if won.height == solved.height:
            return f"{where} every arm reaches the criterion with most of its seeds{tail}"
        names = few([the(arm) for arm in won["arm"]])
        return f"{where} most seeds reach the criterion with {names}, not with {_others(solved, won)}{tail}"
    return f"{_ahead(tables)}{tail}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn, runs = losses(tables), tables.at_longest(tables.runs)
    what = "test loss"
    if _has_classes(tables):
        what = "share of sequences not exactly right, running free," if decodes(tables) else "share of wrong classes"
    mean = "means" if _has_classes(tables) else "geometric means"
    lead, right = f"{what[0].upper()}{what[1:]}", ""
    if not table(tables).is_empty():
        lead, right = f"Left: {what}", " Right: shares of seeds that ended so, with 95 % Wilson intervals."
    return (
        f"{lead} on {tables.dataset} at T = {tables.lengths[-1]}, at each replica's best validation step: "
        f"points are seeds, markers {mean} over {seeds_of(drawn)} with {INTERVAL}.{right} "
        f"{outcomes(runs, 'diverged and failed ones have no test loss here')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a row for each arm: its seeds and their mean on the left, how they ended on the right."""
    shares, arms = table(tables), tables.arms
    num_panels = 1 if shares.is_empty() else 2
    height = 1.0 + (0.32 if len(arms) > 6 else 0.42) * len(arms)
    figure, axes = canvas(title(tables), 1, num_panels, height, sharey=True, gridspec_kw=_WIDTHS[num_panels])
    _losses(axes[0, 0], tables)
    if num_panels == 2:
        _shares(axes[0, 1], shares, arms)
        ends = [end for end in ENDS if end in shares["end"]]
        legend_below(figure, [handle_of(ENDS[end]) for end in ends], [_NAMES[end] for end in ends])
        label_panels(axes[0])
    if axes[0, 0].texts:  # the titles make room for the name of the baseline
        for ax in axes[0]:
            ax.set_title(ax.get_title(loc="left"), loc="left", pad=15)
    axes[0, 0].set_yticks(range(len(arms)), [textwrap.fill(name_of(arm), 26) for arm in arms])
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


_WIDTHS: Any = {1: {}, 2: {"width_ratios": [1.25, 1]}}


def _losses(ax: Axes, tables: GridTables) -> None:
    looks, sound, means = looks_of(tables.arms), _sound(tables), losses(tables)
    for place, arm in enumerate(tables.arms):
        values = sound.filter(pl.col("arm") == arm)["value"].drop_nulls().to_numpy()
        ax.scatter(
            _shown(tables, values), [place + 0.2] * len(values), s=10, color=looks[arm].colour, alpha=0.45, linewidth=0
        )
        for row in means.filter(pl.col("arm") == arm).drop_nulls("mean").iter_rows(named=True):
            ends = [row["mean"] if row[side] is None else row[side] for side in ("mean", "low", "high")]
            middle, low, high = _shown(tables, np.array(ends))
            if _has_classes(tables):
                low, high = max(low, 0.0), min(high, 100.0)
            style: dict[str, Any] = {
                "color": looks[arm].colour,
                "marker": looks[arm].marker,
                "markersize": 5,
                "capsize": 2.5,
            }
            ax.errorbar([middle], [place], xerr=[[middle - low], [high - middle]], **style)
    if _has_classes(tables):
        ax.set_xlim(left=0)
        ax.set_xlabel("test error in %")
        ax.set_title("Test error")
        return
    ax.set_xscale("log")
    ax.set_xlabel("test loss")
    ax.set_title("Test loss")
    baselines = tables.at_longest(tables.runs)["baseline_loss"].drop_nulls().unique()
    if len(baselines) == 1:
        ax.axvline(baselines[0], color=INK, linestyle=(0, (4, 2)), linewidth=0.9)
        ax.annotate("baseline", (baselines[0], 1), xycoords=("data", "axes fraction"), **_ABOVE)
    log_ticks(ax, "x")


_ABOVE: Any = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 7}
"""A name above the panel, where no row can lie under it."""


def _shares(ax: Axes, shares: pl.DataFrame, arms: list[str]) -> None:
    ends = [end for end in ENDS if end in shares["end"]]
    for row in shares.iter_rows(named=True):
        place = arms.index(row["arm"]) + 0.22 * (ends.index(row["end"]) - (len(ends) - 1) / 2)
        look = ENDS[row["end"]]
        bars = np.clip([[row["share"] - row["low"]], [row["high"] - row["share"]]], 0.0, None)
        style: dict[str, Any] = {
            "color": look.colour,
            "marker": look.marker,
            "markersize": 4.5,
            "capsize": 1.5,
            "elinewidth": 0.8,
        }
        ax.errorbar([row["share"]], [place], xerr=bars, **style)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xlabel("share of seeds")
    ax.set_title("How its seeds ended")


def _ahead(tables: GridTables) -> str:
    """Return whether the best arm is ahead of the next one, seed by seed."""
    means = losses(tables).drop_nulls("mean").sort("mean", maintain_order=True)
    measure = "test error" if _has_classes(tables) else "test loss"
    if means.is_empty():
        return "Inconclusive: no replica finished training"
    best = _valued(tables, means.row(0, named=True))
    if means.height == 1:
        return f"Only {best} has a {measure}"
    following = _valued(tables, means.row(1, named=True))
    difference = paired_difference(_sound(tables), "value", "arm", means["arm"][0], means["arm"][1])
    if difference["high"][0] is None:
        return f"One pair of seeds, no interval: {best} against {following} in {measure}"
    if difference["high"][0] < 0:
        return f"Lowest {measure}: {best}, ahead of {following} in a comparison paired by seed"
    return f"Inconclusive: no difference in {measure} is established between the best two, {best} and {following}"


def _shown(tables: GridTables, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return in the unit of the axis what `losses` has: percent, or loss of log10 loss."""
    return 100 * values if _has_classes(tables) else 10.0**values


def _valued(tables: GridTables, row: dict[str, Any]) -> str:
    mean = float(row["mean"])
    value = f"{number(100 * mean)} %" if _has_classes(tables) else number(10**mean)
    return f"{the(str(row['arm']))} ({value})"


def _others(solved: pl.DataFrame, won: pl.DataFrame) -> str:
    lost = [the(arm) for arm in solved["arm"] if arm not in won["arm"]]
    return few(lost) if len(lost) <= 3 else f"{len(lost)} others"


def _has_classes(tables: GridTables) -> bool:
    return bool(tables.runs["test_error"].is_not_null().any())


def _sound(tables: GridTables) -> pl.DataFrame:
    runs = tables.at_longest(tables.runs).filter(pl.col("status").is_in(FINISHED))
    value = pl.col("test_error") if _has_classes(tables) else pl.col("test_loss").log10()
    return runs.with_columns(value=value)
