"""The recurrent weights over training: largest singular value and spectral radius, beside the line 1/γ."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.style import GATE_LOOKS, INK, canvas, label_panels, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.statistics import GridTables, mean_interval, on_schedule

MEASURES = {"sigma_max": "largest singular value", "spectral_radius": "spectral radius"}
BOUND = 1.0
"""1/γ of tanh, γ = max |φ'| = 1: σ_max below it is sufficient for vanishing, above it necessary for exploding."""

_SERIES = ["measure", "arm", "gate"]


def applies(tables: GridTables) -> bool:
    """Return whether the weights' spectra were measured."""
    return bool(tables.curves["metric"].str.starts_with("sigma_max[").any())


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds with its interval, by measure, arm, gate and step, at the longest length."""
    parts = pl.col("metric").str.extract_groups(r"^(?<measure>sigma_max|spectral_radius)\[(?<gate>.+)\]$")
    curves = tables.at_longest(tables.curves).filter(pl.col("metric").str.contains(r"^(sigma_max|spectral_radius)\["))
    common = on_schedule(curves, ["metric"]).with_columns(parts.alias("parts")).unnest("parts")
    return mean_interval(common, "value", [*_SERIES, "step"]).sort(*_SERIES, "step")


def title(tables: GridTables) -> str:
    """Return where training takes σ_max of the first arm's tanh block, and what the bound then says."""
    found = table(tables).filter(pl.col("measure") == "sigma_max", pl.col("gate").is_in(["h", "n", "g"]))
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
    treatment = "they are part of the means, with their last measured weights"
    return (
        f"Each gate's block of W_hh over training (logarithmic axes) at T = {tables.lengths[-1]} on "
        f"{tables.dataset}: mean over {seeds_of(drawn)} with {INTERVAL}; a replica that stopped keeps its last "
        f"measurement. The line is 1/γ = 1 of tanh. In an Elman network σ_max below it suffices for the gradient to "
        f"vanish; above it, it may explode but need not (Pascanu et al., 2013). For gated cells the line is for "
        f"comparison only. {outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a column for each arm: σ_max above, spectral radius below, a line for each gate."""
    drawn = table(tables)
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
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_formatter("{x:g}")
    _step_axis(axes[0, 0], max(1, *drawn["step"]))
    label_panels(axes[0])
    return figure


def _panel(ax: Axes, rows: pl.DataFrame) -> None:
    gates = sorted(rows["gate"].unique(), key=lambda gate: ("hifgorzn".find(gate), gate))
    strangers = looks_of([gate for gate in gates if gate not in GATE_LOOKS])
    for gate in gates:
        line, look = rows.filter(pl.col("gate") == gate), GATE_LOOKS.get(gate) or strangers[gate]
        steps = line["step"].to_numpy()
        label = "W_hh" if gates == ["h"] else gate
        ax.plot(steps, line["mean"].to_numpy(), **look.line, marker=look.marker, markersize=3, label=label)
        low, high = (line[side].fill_null(float("nan")).to_numpy() for side in ("low", "high"))
        ax.fill_between(steps, low, high, color=look.colour, alpha=0.18, linewidth=0)
    ax.axhline(BOUND, color=INK, linewidth=0.9, linestyle=":")


def _step_axis(ax: Axes, last: int) -> None:
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, *(10**power for power in range(7) if 10**power <= last)])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(-0.15, last * 1.3)


def _verdict(end: dict[str, float | None]) -> str:
    low, high = end["low"], end["high"]
    if low is None or high is None:
        return "one seed, no interval"
    if high < BOUND:
        return "below 1/γ, so its gradient must vanish"
    if low > BOUND:
        return "above 1/γ, so vanishing is no longer guaranteed"
    return "inconclusive, the interval contains 1/γ"
