"""What each cell learns at which sequence length: test loss beside the analytic baseline, and who succeeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.figures.stages import compares_cells
from pipeline.figures.style import INK, canvas, handle_of, label_panels, legend_below, looks_of, styled, with_room
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval
from pipeline.quantities.solved import has_criterion, longest_solved, solved_share
from pipeline.results import FINISHED

_DODGE = 0.045
"""Arms stand side by side at a length: by as many decades of the length axis, at most."""


def applies(tables: GridTables) -> bool:
    """Return whether the grid has test losses and several lengths, or cells and a criterion at one.

    Of other arms at one length `outcome_by_arm` tells the same.
    """
    several = len(tables.lengths) > 1 or (has_criterion(tables.runs) and compares_cells(tables))
    return several and tables.runs["test_loss"].is_not_null().any()


def points(tables: GridTables) -> pl.DataFrame:
    """Return the test loss of every replica by arm and length, as log10 too; of the step with the best validation."""
    runs = tables.runs.with_columns(log10_loss=pl.col("test_loss").log10())
    return runs.select("arm", "length", "seed", "status", "test_loss", "log10_loss").sort("length", maintain_order=True)


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: geometric mean of the test loss of replicas that did not diverge, and its interval.

    Columns `arm`, `length`, `loss`, `low`, `high`, `num_seeds`, `num_nonfinite`, `num_missing`.
    """
    sound = points(tables).filter(pl.col("status").is_in(FINISHED))
    means = mean_interval(sound, "log10_loss", ["arm", "length"])
    return means.rename({"mean": "loss"}).with_columns(
        (10.0 ** pl.col(name)).alias(name) for name in ("loss", "low", "high")
    )


def title(tables: GridTables) -> str:
    """Return up to which length each arm learns; without a criterion, which arm has the lowest loss at the longest."""
    if not has_criterion(tables.runs):
        best = table(tables).filter(pl.col("length") == tables.lengths[-1]).drop_nulls("loss").sort("loss")
        if best.is_empty():
            return "Inconclusive: no replica finished training at the longest length"
        return f"At T = {tables.lengths[-1]} {the(best['arm'][0])} has the lowest mean test loss"
    longest, shortest = tables.lengths[-1], tables.lengths[0]
    noun = "cell" if compares_cells(tables) else "arm"
    reach = longest_solved(tables.runs)
    if reach["longest_solved"].is_null().all():
        return f"No {noun} reaches the criterion with most of its seeds, not even at T = {shortest}"
    if (reach["longest_solved"] == longest).fill_null(value=False).all():
        return f"Every {noun} solves every length that was tried, up to T = {longest}"
    reach = reach.sort("longest_solved", descending=True, nulls_last=True, maintain_order=True)
    groups = reach.group_by("longest_solved", maintain_order=True).agg("arm")
    if groups.height > 3:  # the reaches at both ends, and how many arms lie between
        between = groups[1:-1].explode("arm").height
        return f"Most seeds solve {_reach(*groups.row(0))} to {_reach(*groups.row(-1))}; {between} arms lie between"
    return f"Most seeds solve {', '.join(_reach(*row) for row in groups.iter_rows())}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what a cross is."""
    drawn = table(tables)
    baseline = _baseline(tables)
    said = f"The dashed line is the analytic baseline {baseline:.4g}. " if baseline is not None else ""
    lost = "a diverged one is a cross at the test loss of its best step, in no mean"
    if has_criterion(tables.runs):
        lead, failed = "Left: test loss", f"{lost}, and a failure on the right; one with an error is in neither panel"
        right = f"Right: share of seeds whose {_judged(tables)} fell below the criterion, with 95 % Wilson interval. "
    else:
        lead, failed, right = "Test loss", f"{lost}; one with an error is not shown", ""
    return (
        f"{lead} on {tables.dataset} after training, at each replica's best validation step; faint points are "
        f"seeds, markers geometric means over {seeds_of(drawn)} with {INTERVAL} of log10. {said}{right}"
        f"{outcomes(tables.runs, failed)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw the test loss against length and, where there is a criterion, the share of seeds that reached it."""
    num_panels = 2 if has_criterion(tables.runs) else 1
    figure, axes = canvas(title(tables), 1, num_panels, 3.4, sharex=True)
    _losses(axes[0, 0], tables)
    if num_panels == 2:
        _shares(axes[0, 1], tables)
        label_panels(axes[0])
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(with_room(tables.lengths, 0.12)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("sequence length T")
        ax.set_xlim(tables.lengths[0] / 1.25, tables.lengths[-1] * 1.25)
    looks = looks_of(tables.arms)
    legend_below(figure, [handle_of(look) for look in looks.values()], [name_of(arm) for arm in looks])
    return figure


def _reach(length: int | None, arms: list[str]) -> str:
    return f"{'no length' if length is None else f'up to T = {length}'} with {few([the(arm) for arm in arms])}"


def _judged(tables: GridTables) -> str:
    """Return what the criterion is about, as `training.stop_on` says: «validation loss»; both where settings differ."""
    if "training.stop_on" not in tables.runs.columns:
        return "validation loss"
    stopping = tables.runs.filter(pl.col("training.stop_below").is_not_null())
    return " or ".join(name.replace("_", " ") for name in stopping["training.stop_on"].unique().sort(descending=True))


def _losses(ax: Axes, tables: GridTables) -> None:
    means, seeds, looks = table(tables), points(tables), looks_of(tables.arms)
    for arm, look in looks.items():
        mine, cloud = means.filter(pl.col("arm") == arm), seeds.filter(pl.col("arm") == arm)
        sound, lost = cloud.filter(pl.col("status").is_in(FINISHED)), cloud.filter(pl.col("status") == "diverged")
        shift = _shift(tables, arm)
        ax.scatter(sound["length"] * shift, sound["test_loss"], s=10, color=look.colour, alpha=0.45, linewidth=0)
        ax.scatter(lost["length"] * shift, lost["test_loss"], s=26, color=look.colour, marker="x", linewidth=1.2)
        low, high = (mine["loss"] - mine["low"]).fill_null(0.0), (mine["high"] - mine["loss"]).fill_null(0.0)
        _with_bars(ax, mine["length"] * shift, mine["loss"], [low, high], arm, look)
    baseline = _baseline(tables)
    if baseline is not None:
        ax.axhline(baseline, color=INK, linestyle=(0, (4, 2)), linewidth=0.9)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (0, 3), "textcoords": "offset points"}
        ax.annotate("baseline", (1, baseline), ha="right", fontsize=7.5, **place)
    ax.set_yscale("log")
    ax.set_ylabel("test loss")
    ax.set_title("Test loss")


def _shares(ax: Axes, tables: GridTables) -> None:
    shares, looks = solved_share(tables.runs), looks_of(tables.arms)
    for arm, look in looks.items():
        mine = shares.filter(pl.col("arm") == arm)
        bars = [mine["share"] - mine["low"], mine["high"] - mine["share"]]
        _with_bars(ax, mine["length"] * _shift(tables, arm), mine["share"], bars, arm, look)
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("share of seeds")
    ax.set_title("Seeds that reached the criterion")


def _with_bars(ax: Axes, x: pl.Series, y: pl.Series, bars: list[pl.Series], arm: str, look: object) -> None:
    heights = np.clip(np.array([bar.to_numpy() for bar in bars]), 0.0, None)
    colour, dashes, marker = (getattr(look, part) for part in ("colour", "dashes", "marker"))
    style = {"color": colour, "linestyle": dashes, "marker": marker, "capsize": 2.5, "elinewidth": 1.0}
    ax.errorbar(x.to_numpy(), y.to_numpy(), heights, label=name_of(arm), markersize=5, **style)


def _shift(tables: GridTables, arm: str) -> float:
    """Return the factor that moves an arm beside the others at the same length."""
    lengths, arms = tables.lengths, tables.arms
    gaps = [math.log10(after / before) for before, after in zip(lengths[:-1], lengths[1:], strict=True)]
    step = min([_DODGE, *(gap / (2 * len(arms)) for gap in gaps)])
    return float(10 ** (step * (arms.index(arm) - (len(arms) - 1) / 2)))


def _baseline(tables: GridTables) -> float | None:
    known = tables.runs["baseline_loss"].drop_nulls().unique()
    return float(known[0]) if len(known) == 1 else None
