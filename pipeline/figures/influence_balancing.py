"""Influence balancing: a truncated gradient of the wrong sign, and what training with it comes to.

The tables come from the self-test's own system (`pipeline.selftest.influence_balancing`), not from a grid of a study.
"""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.style import FAINT, INK, canvas, label_panels, looks_of, styled
from pipeline.figures.words import number

LIMIT = 1.5
"""|θ| that the right panel shows; what grows beyond has diverged."""


def title(gradients: pl.DataFrame, paths: pl.DataFrame) -> str:
    """Return from which K on the sign is right, and which K train to the optimum."""
    right = min(gradients.filter(pl.col("gradient") < 0)["backward_length"].to_list(), default="never")
    ends = paths.group_by("backward_length", maintain_order=True).agg(pl.col("theta").last())
    good = ends.filter((pl.col("theta") + 1 / 6).abs() < 0.01)["backward_length"].to_list()
    told = " and ".join(f"K = {K}" for K in good) or "no K tried"
    return (
        f"The truncated gradient has the wrong sign until K = {right}; training reaches the optimum with {told} alone"
    )


def caption(gradients: pl.DataFrame, paths: pl.DataFrame) -> str:
    """Return what is drawn."""
    largest = gradients.sort("gradient", descending=True).row(0, named=True)
    told = f"largest {number(largest['gradient'], 5)} at K = {largest['backward_length']}"
    tried = ", ".join(str(K) for K in paths["backward_length"].unique(maintain_order=True))
    return (
        f"Left: the K-step gradient ds/dθ of Tallec and Ollivier's system of 23 linear units, through the shipped "
        f"backward pass; the exact one is -6, {told}. Right: θ under SGD at rate 1e-4 by TBPTT(1, K) with the state "
        f"carried, K = {tried}, from 0.5; the optimum is -1/6. Lines end where |θ| exceeds {LIMIT:g}. A deterministic "
        f"system: there are no seeds and no intervals."
    )


@styled
def draw(gradients: pl.DataFrame, paths: pl.DataFrame) -> Figure:
    """Draw the gradient against K, and θ against the step for each K that was trained.

    Args:
        gradients: Columns `backward_length` and `gradient`.
        paths: Columns `backward_length`, `step` and `theta`.
    """
    figure, axes = canvas(title(gradients, paths), 1, 2, 3.2)
    left, right = axes[0]
    left.plot(gradients["backward_length"].to_numpy(), gradients["gradient"].to_numpy(), color=INK)
    left.axhline(-6, color=FAINT, linestyle=":", linewidth=1.0)
    left.annotate("exact", (gradients["backward_length"].to_numpy().max(), -6), ha="right", va="bottom", fontsize=7.5)
    left.axhline(0, color=INK, linewidth=0.6)
    left.set(xlabel="backward length K", ylabel="K-step gradient ds/dθ")
    lengths = paths["backward_length"].unique(maintain_order=True).to_list()
    for length, look in zip(lengths, looks_of([str(K) for K in lengths]).values(), strict=True):
        path = paths.filter(pl.col("backward_length") == length, pl.col("theta").abs() <= LIMIT)
        right.plot(path["step"].to_numpy(), path["theta"].to_numpy(), **look.line, label=f"K = {length}")
    right.axhline(-1 / 6, color=FAINT, linestyle=":", linewidth=1.0)
    right.annotate("optimum -1/6", (1, -1 / 6), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=7.5)
    right.set(xlabel="training step", ylabel="θ", ylim=(-LIMIT / 2, LIMIT))
    right.legend(loc="upper right")
    left.set_title("The K-step gradient")
    right.set_title("Training by TBPTT(1, K)")
    label_panels(axes[0])
    return figure
