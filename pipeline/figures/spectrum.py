"""The recurrent weights over training: largest singular value and spectral radius, beside the line 1/γ."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pipeline.figures.stages import blocks, layer_told, top_forward
from pipeline.figures.style import (
    GATE_LOOKS,
    INK,
    banded,
    canvas,
    handle_of,
    label_panels,
    legend_below,
    looks_of,
    styled,
)
from pipeline.figures.words import INTERVAL, few, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, on_schedule

MEASURES = {"sigma_max": "largest singular value", "spectral_radius": "spectral radius"}
BOUND = 1.0
"""1/γ of tanh, γ = max |φ'| = 1: σ_max below it is sufficient for vanishing, above it necessary for exploding."""

MAX_COLUMNS = 3
"""More arms than these are lines of two panels, by the block of their tanh (gate h, n or g)."""

MAX_RATIO = 64

_SERIES = ["measure", "arm", "gate"]
_TANH = ("h", "n", "g")


def applies(tables: GridTables) -> bool:
    """Return whether spectra of recurrent networks' weights were measured."""
    return not blocks(tables.curves, ["sigma_max"]).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds with its interval, by measure, arm, gate and step, at the longest length.

    Of several layers the last, forward in time, is taken.
    """
    common = on_schedule(top_forward(blocks(tables.at_longest(tables.curves))), ["metric"])
    return mean_interval(common, "value", [*_SERIES, "step"]).sort(*_SERIES, "step")


def title(tables: GridTables) -> str:
    """Return where training takes σ_max of the first arm's tanh block, and what the bound then says; or of many."""
    found = table(tables).filter(pl.col("measure") == "sigma_max", pl.col("gate").is_in(_TANH))
    if found["arm"].n_unique() > MAX_COLUMNS:
        return _of_many(found, [arm for arm in tables.arms if arm in found["arm"]])
    arm = next((arm for arm in tables.arms if arm in found["arm"]), None)
    if arm is None:
        return "Singular values were measured for no tanh block"
    line = found.filter(pl.col("arm") == arm).sort("step")
    start, end = line.row(0, named=True), line.row(-1, named=True)
    said = f"Training takes σ_max of {the(arm)}'s W_hh from {number(start['mean'], 2)} to {number(end['mean'], 2)}"
    return f"{said}: {_verdict(end)}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and where the bound holds."""
    drawn = table(tables)
    block = "The tanh" if _is_crowded(tables, drawn) else "Each gate's"
    block = "The only" if set(drawn["gate"]) == {"h"} else block
    treatment = "they are part of the means, with their last measured weights"
    return (
        f"{block} block of W_hh over training (logarithmic axes) at T = {tables.lengths[-1]} on "
        f"{tables.dataset}: mean over {seeds_of(drawn)} with {INTERVAL}; a replica that stopped keeps its last "
        f"measurement. The line is 1/γ = 1 of tanh. In an Elman network σ_max below it suffices for the gradient to "
        f"vanish; above it, it may explode but need not (Pascanu et al., 2013). For gated cells the line is for "
        f"comparison only.{layer_told(blocks(tables.at_longest(tables.curves)))} "
        f"{outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a column for each arm: σ_max above, spectral radius below, a line for each gate."""
    drawn = table(tables)
    if _is_crowded(tables, drawn):
        return _draw_many(tables, drawn.filter(pl.col("gate").is_in(_TANH)))
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    figure, axes = canvas(title(tables), 2, len(arms), 4.4, sharex=True, sharey="row")
    for row, (measure, told) in zip(axes, MEASURES.items(), strict=True):
        for ax, arm in zip(row, arms, strict=True):
            _panel(ax, drawn.filter(pl.col("measure") == measure, pl.col("arm") == arm))
        row[0].set_ylabel(told)
    for ax, arm in zip(axes[0], arms, strict=True):
        ax.set_title(name_of(arm))
        ax.legend(loc="upper left", ncols=2, columnspacing=1.0)
        ax.margins(y=0.22)
    axes[0, 0].annotate("1/γ", (1, BOUND), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5)
    for ax in axes[1]:
        ax.set_xlabel("training step")
    for ax in axes[:, 0]:
        _doublings(ax)
    _step_axis(axes[0, 0], max(1, *drawn["step"]))
    label_panels(axes[0])
    return figure


def _draw_many(tables: GridTables, drawn: pl.DataFrame) -> Figure:
    """Draw σ_max and spectral radius side by side, a line for each arm."""
    figure, axes = canvas(title(tables), 1, 2, 3.2, sharex=True, sharey=True)
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    looks = looks_of(tables.arms)
    for ax, (measure, told) in zip(axes[0], MEASURES.items(), strict=True):
        for arm in arms:
            banded(ax, "step", drawn.filter(arm=arm, measure=measure), looks[arm], shade=0.06, markersize=3)
        ax.axhline(BOUND, color=INK, linewidth=0.9, linestyle=":")
        ax.set_title(told.capitalize())
        ax.set_xlabel("training step")
    axes[0, 0].annotate("1/γ", (1, BOUND), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5)
    _doublings(axes[0, 0])
    _step_axis(axes[0, 0], max(1, *drawn["step"]))
    legend_below(figure, [handle_of(looks[arm]) for arm in arms], [name_of(arm) for arm in arms])
    label_panels(axes[0])
    return figure


def _is_crowded(tables: GridTables, drawn: pl.DataFrame) -> bool:
    return sum(arm in drawn["arm"] for arm in tables.arms) > MAX_COLUMNS


def _doublings(ax: Axes) -> None:
    """Label the vertical axis in steps of a half and two, or where weights exploded in powers of ten."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high / low > MAX_RATIO:
        return
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.5)))
    ax.yaxis.set_major_formatter("{x:g}")


def _panel(ax: Axes, rows: pl.DataFrame) -> None:
    gates = sorted(rows["gate"].unique(), key=lambda gate: ("hifgorzn".find(gate), gate))
    strangers = looks_of([gate for gate in gates if gate not in GATE_LOOKS])
    for gate in gates:
        line, look = rows.filter(pl.col("gate") == gate), GATE_LOOKS.get(gate) or strangers[gate]
        label = "W_hh" if gates == ["h"] else gate
        banded(ax, "step", line, look, markersize=3, markevery=1, label=label)
    ax.axhline(BOUND, color=INK, linewidth=0.9, linestyle=":")


def _step_axis(ax: Axes, last: int) -> None:
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, *(10**power for power in range(7) if 10**power <= last)])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(-0.15, last * 1.3)


def _of_many(found: pl.DataFrame, arms: list[str]) -> str:
    """Return the range that σ_max ends in, and the arms on each side of the bound."""
    end = found.filter(pl.col("step") == pl.col("step").max().over("arm"))
    rows = {row["arm"]: row for row in end.iter_rows(named=True)}
    sides: dict[str, list[str]] = {"above": [], "below": [], "undecided": []}
    for arm in arms:
        low, high = rows[arm]["low"], rows[arm]["high"]
        known = low is not None and high is not None
        sides["above" if known and low > BOUND else "below" if known and high < BOUND else "undecided"].append(arm)
    reach = " to ".join(number(value, 2) for value in (end["mean"].min(), end["mean"].max()))  # type: ignore[arg-type]
    parts = [
        f"{told} in {few([the(arm) for arm in sides[side]])}"
        for side, told in (("above", "above 1/γ"), ("below", "below 1/γ"), ("undecided", "undecided"))
        if sides[side]
    ]
    block = "W_hh" if set(found["gate"]) == {"h"} else "the tanh block"
    return f"Training ends with σ_max of {block} at {reach}: {'; '.join(parts)}"


def _verdict(end: dict[str, float | None]) -> str:
    low, high = end["low"], end["high"]
    if low is None or high is None:
        return "one seed, no interval"
    if high < BOUND:
        return "below 1/γ, so its gradient must vanish"
    if low > BOUND:
        return "above 1/γ, so vanishing is no longer guaranteed"
    return "inconclusive, the interval contains 1/γ"
