"""What clipping did: the gradient norm before and after it, step by step, and how often it acted."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.figures.style import FAINT, INK, canvas, label_panels, looks_of, styled
from pipeline.figures.words import INTERVAL, count, left_out, listed, name_of, outcomes, seeds_of, the
from pipeline.statistics import GridTables, mean_interval

MAX_BINS = 75
"""Steps are gathered into at most as many bins; a bin of a seed is the median of its steps."""

_NORMS = ("grad_norm", "clipped_grad_norm")


def applies(tables: GridTables) -> bool:
    """Return whether the gradient norm of updates was recorded."""
    return "grad_norm" in tables.curves["metric"]


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn, by arm and bin of steps, at the longest length.

    Columns `arm`, `step` (middle of the bin), `metric` (`grad_norm`, `clipped_grad_norm`: median over seeds in
    `middle`, quartiles in `low` and `high`; `clipped`: mean share of clipped steps and its interval), `num_seeds` and
    `num_nonfinite` (updates whose norm is NaN or infinite, in no median).
    """
    updates = _updates(tables)
    last = int(updates["step"].to_numpy().max())
    num_bins = min(MAX_BINS, last)
    binned = updates.with_columns(bin=(pl.col("step") - 1) * num_bins // last)
    binned = binned.with_columns(step=(pl.col("bin") + 0.5) * (last / num_bins) + 0.5)
    norms = [_spread(binned, metric) for metric in _NORMS]
    shares = binned.group_by("arm", "step", "seed").agg(clipped=pl.col("clipped").mean())
    share = mean_interval(shares, "clipped", ["arm", "step"]).rename({"mean": "middle"}).drop("num_missing")
    columns = ["arm", "metric", "step", "middle", "low", "high", "num_seeds", "num_nonfinite"]
    parts = [*norms, share.with_columns(metric=pl.lit("clipped"))]
    return pl.concat([part.select(columns) for part in parts]).sort("arm", "metric", "step")


def shares(tables: GridTables) -> pl.DataFrame:
    """Return the mean share of clipped steps over seeds, with its interval, by arm at the longest length."""
    by_seed = _updates(tables).group_by("arm", "seed", maintain_order=True).agg(clipped=pl.col("clipped").mean())
    return mean_interval(by_seed, "clipped", ["arm"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return which share of steps was clipped, by arm."""
    found = shares(tables).drop_nulls("mean").sort("mean", descending=True, maintain_order=True)
    if found["mean"].sum() == 0:
        return "No step was clipped"
    parts = [f"{100 * row['mean']:.0f} % of {the(row['arm'])}'s" for row in found.iter_rows(named=True)]
    return f"Clipping shortens {listed(parts)} steps"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    rule = tables.runs["clipping.name"].unique().sort().to_list() if "clipping.name" in tables.runs.columns else []
    longest = tables.at_longest(tables.runs)
    return (
        f"Norm of the gradient over all parameters of a replica before (solid) and after clipping (dashed), at "
        f"T = {tables.lengths[-1]} on {tables.dataset}, rule {' or '.join(rule) or 'unknown'}; steps are gathered into "
        f"{count(drawn['step'].n_unique(), 'bin')}, lines are medians and bands quartiles over {seeds_of(drawn)}, a "
        f"seed counting until it stops. Below: share of steps that were shortened, mean with {INTERVAL}. Dotted: the "
        f"threshold. {outcomes(longest, 'they count until they stopped')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw two panels for each arm: norms on a log axis, and below them the share of steps clipped."""
    drawn, arms = table(tables), tables.arms
    arms = [arm for arm in arms if arm in drawn["arm"]]
    figure, axes = canvas(
        title(tables), 2, len(arms), 4.1, sharex=True, sharey="row", gridspec_kw={"height_ratios": [2.2, 1]}
    )
    means = dict(shares(tables).select("arm", "mean").iter_rows())
    for (above, below), arm in zip(axes.T, arms, strict=True):
        rows = drawn.filter(pl.col("arm") == arm)
        _norms(above, rows, looks_of([arm])[arm].colour)
        _share(below, rows.filter(pl.col("metric") == "clipped"), looks_of([arm])[arm].colour)
        for threshold in _thresholds(tables, arm):
            above.axhline(threshold, color=INK, linestyle=":", linewidth=1.0)
        above.set_title(name_of(arm))
        below.set_title(f"mean {100 * means[arm]:.0f} %", loc="right", fontweight="normal")
        below.set_xlabel("training step")
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("gradient norm")
    axes[1, 0].set_ylabel("share clipped")
    axes[1, 0].set_ylim(0, 1)
    handles = [
        Line2D([], [], color=INK, label="before clipping"),
        Line2D([], [], color=FAINT, linestyle="--", label="after clipping"),
        Line2D([], [], color=INK, linestyle=":", linewidth=1.0, label="threshold"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    label_panels(axes[0])
    return figure


def _updates(tables: GridTables) -> pl.DataFrame:
    """Return a row for each update: its norms beside one another, and whether it was clipped."""
    curves = tables.at_longest(tables.curves).filter(pl.col("metric").is_in(_NORMS))
    wide = curves.pivot(on="metric", index=["arm", "seed", "step"], values="value", maintain_order=True)
    shortened = pl.col("clipped_grad_norm") < pl.col("grad_norm")
    return wide.with_columns(clipped=shortened.cast(pl.Float64))


def _spread(binned: pl.DataFrame, metric: str) -> pl.DataFrame:
    finite = pl.col(metric).is_finite()
    by_seed = binned.group_by("arm", "step", "seed").agg(
        value=pl.col(metric).filter(finite).median(), num_nonfinite=finite.not_().sum()
    )
    value = pl.col("value")
    return by_seed.group_by("arm", "step").agg(
        metric=pl.lit(metric),
        middle=value.median(),
        low=value.quantile(0.25, "linear"),
        high=value.quantile(0.75, "linear"),
        num_seeds=value.count().cast(pl.Int64),
        num_nonfinite=pl.col("num_nonfinite").sum().cast(pl.Int64),
    )


def _norms(ax: Axes, rows: pl.DataFrame, colour: str) -> None:
    for metric in _NORMS:
        line = rows.filter(pl.col("metric") == metric)
        before = metric == "grad_norm"
        steps, shade = line["step"].to_numpy(), colour if before else FAINT
        ax.plot(steps, line["middle"].to_numpy(), color=shade, linestyle="-" if before else "--")
        if before:
            low, high = line["low"].to_numpy(), line["high"].to_numpy()
            ax.fill_between(steps, low, high, color=shade, alpha=0.2, linewidth=0)


def _share(ax: Axes, rows: pl.DataFrame, colour: str) -> None:
    steps = rows["step"].to_numpy()
    ax.plot(steps, rows["middle"].to_numpy(), color=colour)
    low, high = (rows[side].fill_null(float("nan")).to_numpy() for side in ("low", "high"))
    ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def _thresholds(tables: GridTables, arm: str) -> list[float]:
    if "clipping.threshold" not in tables.runs.columns:
        return []
    mine = tables.at_longest(tables.runs).filter(pl.col("arm") == arm)
    return [float(value) for value in mine["clipping.threshold"].drop_nulls().unique().sort()]
