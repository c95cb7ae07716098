"""The eigenvalues of the recurrent weights in the complex plane, before and after training."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.stages import MAX_PANELS, STAGES, chosen_told, layer_told, ranked, recurrent, spread, top_forward
from pipeline.figures.style import FAINT, INK, Look, canvas, handle_of, label_panels, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, count, name_of, number, outcomes, the
from pipeline.quantities import GridTables, mean_interval

_GATES = ("h", "n", "g")


def applies(tables: GridTables) -> bool:
    """Return whether the grid has eigenvalues of a tanh block at its longest length."""
    return bool(_chosen(tables)[0])


def table(tables: GridTables) -> pl.DataFrame:
    """Return every eigenvalue of the chosen block by arm, stage and seed; `outside` where its modulus exceeds 1.

    The block is W_hh of the Elman networks if the grid has any, else the candidate's block of the first gated cell, at
    the longest length; of several layers the last, forward in time.
    """
    arms, gate = _chosen(tables)
    rows = top_forward(tables.at_longest(tables.eigenvalues)).filter(pl.col("arm").is_in(arms), pl.col("gate") == gate)
    last = pl.col("step").max().over("arm", "seed")
    stage = pl.when(pl.col("step") == 0).then(pl.lit("initialisation")).when(pl.col("step") == last).then(pl.lit("end"))
    modulus = (pl.col("real") ** 2 + pl.col("imag") ** 2).sqrt()
    staged = rows.with_columns(stage=stage, modulus=modulus, outside=modulus > 1).drop_nulls("stage")
    return staged.select("stage", "arm", "gate", "seed", "index", "real", "imag", "modulus", "outside").sort(
        pl.col("stage") == "end", ranked(tables.arms), "seed", "index"
    )


def shares_outside(tables: GridTables) -> pl.DataFrame:
    """Return by arm and stage the mean over seeds of the share of eigenvalues outside the unit circle, and interval."""
    by_seed = table(tables).group_by("arm", "stage", "seed", maintain_order=True).agg(share=pl.col("outside").mean())
    return mean_interval(by_seed, "share", ["arm", "stage"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return which share of eigenvalues lies outside the unit circle, before and after."""
    arms, _ = _chosen(tables)
    if len(arms) > 1:
        return _title_of_many(tables)
    arm = arms[0]
    shares = dict(shares_outside(tables).select("stage", "mean").iter_rows())
    if set(shares) != {"initialisation", "end"}:
        return f"Eigenvalues of {the(arm)}: one stage only, so no comparison"
    before, after = (f"{100 * shares[stage]:.1f} %" for stage in ("initialisation", "end"))
    if before == after:
        return f"Before and after training {before} of {the(arm)}'s eigenvalues lie outside the unit circle"
    return f"Training takes the share of {the(arm)}'s eigenvalues outside the unit circle from {before} to {after}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds."""
    arms, gate = _chosen(tables)
    block = "W_hh" if gate == "h" else f"the block of gate {gate} of W_hh"
    runs = tables.at_longest(tables.runs).filter(pl.col("arm").is_in(arms))
    told = "; ".join(
        f"{name_of(row['arm']) + ', ' if len(arms) > 1 else ''}{row['stage']} {100 * row['mean']:.1f} % "
        f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        for row in _listed_shares(tables).iter_rows(named=True)
    )
    shares = f" Outside the circle, mean over seeds and {INTERVAL}: {told}." if told else ""
    whose = the(arms[0]) if len(arms) == 1 else count(len(arms), "arm")
    chosen = chosen_told(_shown(tables), arms, "share outside the circle at the end")
    return (
        f"Eigenvalues of {block} of {whose}, {count(runs['seed'].n_unique(), 'seed')} together, at "
        f"T = {tables.lengths[-1]} on {tables.dataset}, and the unit circle.{shares}{chosen}"
        f"{_beyond_told(table(tables).filter(pl.col('arm').is_in(_shown(tables))))}"
        f"{layer_told(tables.at_longest(tables.eigenvalues))} "
        f"{outcomes(runs, 'after training they are not shown unless they were measured when they stopped')}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw the two clouds with the unit circle: side by side, or of several arms on one another, a panel an arm."""
    drawn, (arms, _) = table(tables), _chosen(tables)
    if len(arms) > 1:
        return _draw_many(tables, drawn)
    look = looks_of(tables.arms)[arms[0]]
    figure, axes = canvas(title(tables), 1, 2, 4.0, sharex=True, sharey=True)
    for ax, (stage, heading) in zip(axes[0], STAGES.items(), strict=True):
        _panel(ax)
        _cloud(ax, drawn.filter(pl.col("stage") == stage), look)
        ax.set_title(heading)
    _set_reach(axes[0, 0], drawn)
    label_panels(axes[0])
    return figure


_START = Look(FAINT, "none", "x")


def _draw_many(tables: GridTables, drawn: pl.DataFrame) -> Figure:
    arms, looks = _shown(tables), looks_of(tables.arms)
    num_columns = min(3, len(arms))
    num_rows = math.ceil(len(arms) / num_columns)
    figure, axes = canvas(title(tables), num_rows, num_columns, 0.6 + 2.32 * num_rows, sharex=True, sharey=True)
    for ax, arm in zip(axes.flat, arms, strict=False):
        _panel(ax)
        mine = drawn.filter(pl.col("arm") == arm)
        _cloud(ax, mine.filter(pl.col("stage") == "initialisation"), _START)
        _cloud(ax, mine.filter(pl.col("stage") == "end"), looks[arm])
        ax.set_title(textwrap.fill(name_of(arm), 26))
    for ax in axes.flat[len(arms) :]:
        ax.set_visible(False)
    for ax in axes.flat:
        ax.label_outer()
    _set_reach(axes[0, 0], drawn.filter(pl.col("arm").is_in(arms)))
    end = handle_of(Look(INK, "none", "o"))
    legend_below(figure, [handle_of(_START), end], ["at initialisation", "at the end of training"])
    label_panels(list(axes.flat[: len(arms)]))
    return figure


def _set_reach(ax: Axes, drawn: pl.DataFrame) -> None:
    reach = 1.08 * _frame(drawn)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach))


def _frame(drawn: pl.DataFrame) -> float:
    """Return the modulus up to which eigenvalues are shown: all, but for the few of weights that exploded."""
    moduli = drawn["modulus"].drop_nulls().drop_nans().to_numpy()
    if not len(moduli):
        return 1.0
    return max(1.0, min(float(moduli.max()), 1.5 * float(np.quantile(moduli, 0.95))))


def _beyond_told(drawn: pl.DataFrame) -> str:
    beyond = drawn.filter(pl.col("modulus") > 1.08 * _frame(drawn)).height
    return f" {count(beyond, 'eigenvalue')} beyond the frame." if beyond else ""


def _cloud(ax: Axes, rows: pl.DataFrame, look: Look) -> None:
    cross = look is _START
    style: dict[str, Any] = {"s": 12, "alpha": 0.55, "marker": "x" if cross else "o", "linewidth": 0.7 if cross else 0}
    ax.scatter(rows["real"], rows["imag"], color=look.colour, **style)


def _panel(ax: Axes) -> None:
    angles = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angles), np.sin(angles), color=INK, linewidth=0.9, linestyle=":")
    ax.set_box_aspect(1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")


def _chosen(tables: GridTables) -> tuple[list[str], str]:
    """Return the arms that have the first of `_GATES` that any arm has, and that gate."""
    found = recurrent(tables.at_longest(tables.eigenvalues))
    for gate in _GATES:
        known = found.filter(pl.col("gate") == gate)["arm"].unique()
        arms = [arm for arm in tables.arms if arm in known]
        if arms:
            return arms, gate
    return [], ""


def _shown(tables: GridTables) -> list[str]:
    shares = dict(shares_outside(tables).filter(stage="end").select("arm", "mean").iter_rows())
    return spread({arm: shares.get(arm) for arm in _chosen(tables)[0]}, MAX_PANELS)


def _listed_shares(tables: GridTables) -> pl.DataFrame:
    """Return the shares that the caption lists: those with an interval, of the arms shown."""
    shares = shares_outside(tables).drop_nulls("low")
    return shares.filter(pl.col("arm").is_in(_shown(tables))).sort(ranked(tables.arms), maintain_order=True)


def _title_of_many(tables: GridTables) -> str:
    end = shares_outside(tables).filter(pl.col("stage") == "end").drop_nulls("mean").sort("mean", maintain_order=True)
    if end.is_empty():
        return "No replica finished training: only the initial eigenvalues are known"
    least, most = end.row(0, named=True), end.row(-1, named=True)
    if least["mean"] == most["mean"]:
        return (
            f"After training {number(100 * most['mean'], 2)} % of the eigenvalues lie outside the circle in every arm"
        )
    return (
        f"After training {number(100 * least['mean'], 2)} % ({the(least['arm'])}) to {number(100 * most['mean'], 2)} % "
        f"({the(most['arm'])}) of the eigenvalues lie outside the unit circle"
    )
