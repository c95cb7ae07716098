"""The eigenvalues of the recurrent weights in the complex plane, before and after training."""

from __future__ import annotations

import numpy as np
import polars as pl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import INK, canvas, label_panels, looks_of, styled
from pipeline.figures.words import INTERVAL, count, outcomes, the
from pipeline.statistics import GridTables, mean_interval

_GATES = ("h", "n", "g")


def applies(tables: GridTables) -> bool:
    """Return whether the grid has eigenvalues of a tanh block at its longest length."""
    return _chosen(tables) is not None


def table(tables: GridTables) -> pl.DataFrame:
    """Return every eigenvalue of the chosen block by stage and seed; `outside` where its modulus exceeds 1.

    The block is W_hh of the Elman network if the grid has one, else the candidate's block of the first gated cell, at
    the longest length.
    """
    arm, gate = _chosen(tables) or ("", "")
    rows = tables.at_longest(tables.eigenvalues).filter(pl.col("arm") == arm, pl.col("gate") == gate)
    last = pl.col("step").max().over("seed")
    stage = pl.when(pl.col("step") == 0).then(pl.lit("initialisation")).when(pl.col("step") == last).then(pl.lit("end"))
    modulus = (pl.col("real") ** 2 + pl.col("imag") ** 2).sqrt()
    staged = rows.with_columns(stage=stage, modulus=modulus, outside=modulus > 1).drop_nulls("stage")
    return staged.select("stage", "arm", "gate", "seed", "index", "real", "imag", "modulus", "outside").sort(
        "stage", "seed", "index", descending=[True, False, False]
    )


def shares_outside(tables: GridTables) -> pl.DataFrame:
    """Return by stage the mean over seeds of the share of eigenvalues outside the unit circle, with its interval."""
    by_seed = table(tables).group_by("stage", "seed", maintain_order=True).agg(share=pl.col("outside").mean())
    return mean_interval(by_seed, "share", ["stage"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return which share of eigenvalues lies outside the unit circle, before and after."""
    shares = dict(shares_outside(tables).select("stage", "mean").iter_rows())
    arm, _ = _chosen(tables) or ("", "")
    if set(shares) != {"initialisation", "end"}:
        return f"Eigenvalues of {the(arm)}: one stage only, so no comparison"
    before, after = (f"{100 * shares[stage]:.1f} %" for stage in ("initialisation", "end"))
    if before == after:
        return f"Before and after training {before} of {the(arm)}'s eigenvalues lie outside the unit circle"
    return f"Training takes the share of {the(arm)}'s eigenvalues outside the unit circle from {before} to {after}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds."""
    arm, gate = _chosen(tables) or ("", "")
    block = "W_hh" if gate == "h" else f"the block of gate {gate} of W_hh"
    runs = tables.at_longest(tables.runs).filter(pl.col("arm") == arm)
    spread = "; ".join(
        f"{row['stage']} {100 * row['mean']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        for row in shares_outside(tables).drop_nulls("low").iter_rows(named=True)
    )
    shares = f" Outside the circle, mean over seeds and {INTERVAL}: {spread}." if spread else ""
    return (
        f"Eigenvalues of {block} of {the(arm)}, {count(runs['seed'].n_unique(), 'seed')} together, at "
        f"T = {tables.lengths[-1]} on {tables.dataset}, and the unit circle.{shares} "
        f"{outcomes(runs, 'after training they are not shown unless they were measured when they stopped')}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw the two clouds side by side with the unit circle."""
    drawn = table(tables)
    figure, axes = canvas(title(tables), 1, 2, 4.0, sharex=True, sharey=True)
    for ax, (stage, heading) in zip(axes[0], _STAGES.items(), strict=True):
        _panel(ax, drawn.filter(pl.col("stage") == stage))
        ax.set_title(heading)
    reach = 1.08 * max(1.0, float(np.nanmax(drawn["modulus"].to_numpy(), initial=1.0)))
    axes[0, 0].set(xlim=(-reach, reach), ylim=(-reach, reach))
    label_panels(axes[0])
    return figure


_STAGES = {"initialisation": "At initialisation", "end": "At the end of training"}


def _panel(ax: Axes, rows: pl.DataFrame) -> None:
    angles = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angles), np.sin(angles), color=INK, linewidth=0.9, linestyle=":")
    if not rows.is_empty():
        look = looks_of([rows["arm"][0]])[rows["arm"][0]]
        points = rows.select("real", "imag").to_pandas()
        sns.scatterplot(points, x="real", y="imag", ax=ax, color=look.colour, s=12, alpha=0.55, linewidth=0)
    ax.set_box_aspect(1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")


def _chosen(tables: GridTables) -> tuple[str, str] | None:
    found = tables.at_longest(tables.eigenvalues)
    for gate in _GATES:
        for arm in tables.arms:
            if not found.filter(pl.col("arm") == arm, pl.col("gate") == gate).is_empty():
                return arm, gate
    return None
