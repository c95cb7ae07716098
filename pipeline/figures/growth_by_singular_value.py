"""Claim C1: σ_max(W_hh) below 1/γ suffices for a vanishing gradient; above it the gradient may explode or not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import STAGES, blocks, interval, ranked, recurrent, staged
from pipeline.figures.style import FAINT, INK, Look, canvas, handle_of, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, count, name_of, outcomes
from pipeline.quantities import GridTables, decay_rates, mean_interval

_PLACE = (pl.col("layer") == 0) & (pl.col("direction") == "forward")
_ABOVE = (pl.col("log_sigma") > 0) & pl.col("growth").is_not_null()


def applies(tables: GridTables) -> bool:
    """Return whether the gradient and σ_max of an Elman network were measured at the same steps."""
    return not table(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return a point for each arm, seed and stage, at the longest length, of the first layer forward in time.

    Columns `stage`, `arm`, `seed`, `log_sigma` (ln σ_max(W_hh)), `growth` (slope of ln ‖∂L/∂h_{T-k}‖ against k, in nats
    per timestep; null where no line fits), `num_left_out` (lags of a norm that is zero or not finite).
    """
    traces = recurrent(tables.at_longest(tables.traces)).filter(_PLACE, pl.col("quantity") == "h")
    rows = staged(traces.with_columns(lag=pl.col("timestep").max().over("arm") - pl.col("timestep")))
    fits = decay_rates(rows, ["stage", "arm", "step"])
    sigma = blocks(tables.at_longest(tables.curves), ["sigma_max"]).filter(_PLACE, pl.col("gate") == "h")
    both = fits.join(sigma.select("arm", "seed", "step", "value"), on=["arm", "seed", "step"])
    return both.sort(pl.col("stage") == "end", ranked(tables.arms), "seed").select(
        "stage",
        "arm",
        "seed",
        log_sigma=pl.col("value").log(),
        growth=pl.col("slope") * math.log(10),
        num_left_out=pl.col("num_zero") + pl.col("num_nonfinite"),
    )


def shares(tables: GridTables) -> pl.DataFrame:
    """Return the share of points above 1/γ whose gradient shrinks all the same: mean over seeds, with its interval."""
    above = table(tables).filter(_ABOVE).with_columns(shrinks=(pl.col("growth") < 0).cast(pl.Float64))
    by_seed = above.group_by("seed", maintain_order=True).agg(pl.col("shrinks").mean())
    return mean_interval(by_seed.with_columns(of=pl.lit("all")), "shrinks", ["of"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return how many points above 1/γ shrink nevertheless, and whether a point breaks the bound."""
    points = table(tables).drop_nulls("growth")
    if points.is_empty():
        return "Inconclusive: the gradient's growth is known for no replica"
    above, below = points.filter(pl.col("log_sigma") > 0), points.filter(pl.col("log_sigma") <= 0)
    broken = points.filter(pl.col("growth") > pl.col("log_sigma") + _ROUNDING).height
    excess = f"; {count(broken, 'point')} above the bound growth = ln σ_max" if broken else ""
    if above.is_empty():
        shrinking = below.filter(pl.col("growth") < 0).height
        return f"σ_max lies nowhere above 1/γ: {shrinking} of {count(below.height, 'gradient')} shrink{excess}"
    shrinking = above.filter(pl.col("growth") < 0).height
    share = 100 * shrinking / above.height
    if shrinking == 0:
        return f"Every one of the {above.height} gradients with σ_max above 1/γ grows{excess}"
    said = f"σ_max above 1/γ does not make a gradient explode: {shrinking} of {above.height} ({share:.0f} %) shrink"
    return f"{said}{excess}"


_ROUNDING = 1e-6


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and where the bound holds."""
    points, share = table(tables), shares(tables)
    told = f" Share shrinking above 1/γ, mean over seeds: {interval(share.row(0, named=True))} ({INTERVAL})."
    lags = int(points["num_left_out"].sum())
    left = f" {count(lags, 'norm')} of zero or not finite left out of fits." if lags else ""
    return (
        f"A point for each arm, seed ({count(points['seed'].n_unique(), 'seed')}) and stage at "
        f"T = {tables.lengths[-1]} on {tables.dataset}: growth of ‖∂L/∂h_(T-k)‖ per timestep of lag (least-squares "
        f"slope, first layer), against ln σ_max(W_hh) at the same step. The diagonal is the upper bound for "
        f"γ = max |φ'| = 1, the vertical line σ_max = 1/γ; the bound is of one layer with a loss at the last timestep."
        f"{told if not share.is_empty() else ''} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones have no end of training')}{left}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw the scatter with the bound: hollow at initialisation, filled at the end."""
    points, looks = table(tables).drop_nulls("growth"), looks_of(tables.arms)
    figure, axes = canvas(title(tables), 1, 1, 3.9)
    ax = axes[0, 0]
    arms = [arm for arm in tables.arms if arm in points["arm"]]
    for arm in arms:
        for stage in STAGES:
            mine = points.filter(arm=arm, stage=stage)
            face = looks[arm].colour if stage == "end" else "none"
            style: dict[str, Any] = {"marker": looks[arm].marker, "s": 26, "linewidth": 0.9, "alpha": 0.85}
            ax.scatter(mine["log_sigma"], mine["growth"], edgecolors=looks[arm].colour, facecolors=face, **style)
    _theory(ax, points)
    ax.set_xlabel("ln σ_max(W_hh)")
    ax.set_ylabel("growth of the gradient per timestep of lag (nats)")
    stages = [Look(FAINT, "none", "o")] * 2
    handles = [handle_of(Look(looks[arm].colour, "none", looks[arm].marker)) for arm in arms]
    handles += [handle_of(look, markerfacecolor=face) for look, face in zip(stages, ("none", FAINT), strict=True)]
    legend_below(figure, handles, [*map(name_of, arms), *(STAGES[stage].lower() for stage in STAGES)])
    return figure


def _theory(ax: Axes, points: pl.DataFrame) -> None:
    """Draw the bound, the two zero lines, and name the regions."""
    x, y = (points[name].to_numpy() for name in ("log_sigma", "growth"))
    left, right = min(-0.1, x.min(initial=0.0)), max(0.1, x.max(initial=0.0))
    bottom, top = min(-0.1, y.min(initial=0.0)), max(0.1, y.max(initial=0.0))
    width, height = right - left, top - bottom
    left, right, bottom, top = left - 0.06 * width, right + 0.06 * width, bottom - 0.08 * height, top + 0.14 * height
    ends = np.array([left, right])
    ax.plot(ends, ends, color=INK, linewidth=1.1)
    ax.fill_between(ends, ends, top, color=FAINT, alpha=0.13, linewidth=0)
    ax.axvline(0, color=INK, linewidth=0.9, linestyle=":")
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    small: dict[str, Any] = {"fontsize": 7.5, "color": INK}
    ax.annotate("above the bound, growth = ln σ_max", (0.012, 0.97), xycoords="axes fraction", va="top", **small)
    ax.annotate("1/γ", (0, bottom), xytext=(3, 4), textcoords="offset points", **small)
