"""Figures of the recurrent weights: their largest singular value and eigenvalues, and what these bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.figures.findings import Row, by_sign, ranked
from pipeline.figures.frame import STAGE_TITLES, Axis, Lines, Panel, Points, View
from pipeline.figures.style import FAINT, GATE_LOOKS, INK, Look, looks_of
from pipeline.quantities.gradients import growth_by_singular_value as growth_points
from pipeline.quantities.gradients import shrinking_share
from pipeline.quantities.quantity import from_log10
from pipeline.quantities.weights import TANH_GATES, eigenvalues, share_outside_circle, weight_spectrum
from pipeline.quantities.words import INTERVAL, capitalised, count, interval, name_of, number, with_article

BOUND = 0.0
"""log10 of 1/γ, γ = max |φ'| = 1 of tanh: σ_max below it suffices for vanishing, above it is needed for exploding."""

_MEASURES = {"sigma_max": "largest singular value", "spectral_radius": "spectral radius"}


def _final_sigma(view: View) -> pl.DataFrame:
    """Return σ_max of the tanh block of each arm over training, by step, in the order of the arms."""
    rows = view.means.filter(pl.col("gate").is_in(TANH_GATES), metric="sigma_max")
    return rows.sort(view.grid.rank(), "step", maintain_order=True)


def _sigma_finding(view: View) -> str:
    """Where training takes σ_max of the first arm's tanh block, and what the bound then says."""
    sigma = _final_sigma(view)
    if sigma.is_empty():
        return "Singular values were measured for no tanh block"
    line = sigma.filter(arm=sigma["arm"][0])
    start, end = line.row(0, named=True), line.row(-1, named=True)
    if end["low"] is None or end["high"] is None:
        verdict = "one seed, no interval" if end["num_seeds"] == 1 else "seeds all alike, no interval"
    elif end["high"] < BOUND:
        verdict = "below 1/γ, so its gradient must vanish"
    elif end["low"] > BOUND:
        verdict = "above 1/γ, so vanishing is no longer guaranteed"
    else:
        verdict = "inconclusive, the interval contains 1/γ"
    ends = " to ".join(number(from_log10(row["mean"]), 2) for row in (start, end))
    return f"Training takes σ_max of {with_article(end['arm'])}'s W_hh from {ends}: {verdict}"


def _sigmas_finding(view: View) -> str:
    """The range that σ_max ends in over many arms, and which lie on which side of the bound."""
    sigma = _final_sigma(view)
    if sigma.is_empty():
        return "Singular values were measured for no tanh block"
    end = sigma.filter(pl.col("step") == pl.col("step").max().over("arm"))
    words = {"above": "above 1/γ in {arms}", "below": "below 1/γ in {arms}", "unsure": "undecided in {arms}"}
    reach = " to ".join(number(from_log10(value), 2) for value in (end["mean"].min(), end["mean"].max()))
    block = "W_hh" if set(end["gate"]) == {"h"} else "the tanh block"
    return f"Training ends with σ_max of {block} at {reach}: {by_sign(end, words, bounds=(BOUND, BOUND))}"


def _about_spectrum(view: View) -> str:
    gates = set(view.rows["gate"])
    block = "The only" if gates == {"h"} else "The tanh" if gates <= set(TANH_GATES) else "Each gate's"
    return (
        f"{block} block of W_hh over training (logarithmic axes) at T = {{T}} on {{dataset}}: geometric mean over "
        "{seeds} with {interval}; a replica that stopped keeps its last measurement. The line is 1/γ = 1 of tanh. In "
        "an Elman network σ_max below it suffices for the gradient to vanish; above it, it may explode but need not "
        "(Pascanu et al., 2013). For gated cells the line is for comparison only."
    )


def _gate_looks(view: View) -> dict[tuple[str, str], tuple[str, Look]]:
    """Return gates with their looks; those of several cells that look alike have one name: «z, f», «W_hh, n, g»."""
    gates = view.rows["gate"].unique(maintain_order=True).to_list()
    looks = looks_of([gate for gate in gates if gate not in GATE_LOOKS]) | GATE_LOOKS
    names: dict[Look, list[str]] = {}
    for gate in gates:
        names.setdefault(looks[gate], []).append("W_hh" if gate == "h" else gate)
    return {(arm, gate): (", ".join(names[looks[gate]]), looks[gate]) for arm in view.with_looks for gate in gates}


_tanh_spectrum = Lines(
    name="spectrum",
    rows=lambda grid: weight_spectrum.of(grid).filter(pl.col("gate").is_in(TANH_GATES)),
    quantity=weight_spectrum,
    x=Axis(label="training step", column="step", scale="steps"),
    y=Axis(label="of the tanh block of W_hh", scale="log10", lines={BOUND: "1/γ"}),
    across=("metric", {name: capitalised(label) for name, label in _MEASURES.items()}),
    series=("arm", "gate"),
    looks=lambda view: {(arm, gate): (name_of(arm), look) for arm, look in view.looks.items() for gate in TANH_GATES},
    title=_sigmas_finding,
    about=_about_spectrum,
    top_layer="eigenvalues",
)
spectrum = replace(
    _tanh_spectrum,
    rows=weight_spectrum,
    y={name: Axis(label=label, scale="log10", lines={BOUND: "1/γ"}) for name, label in _MEASURES.items()},
    across=("arm", None),
    down=("metric", dict.fromkeys(_MEASURES, "")),
    looks=_gate_looks,
    height=1.8,
    title=_sigma_finding,
    most=3,
    crowded=_tanh_spectrum,
)


def _outside_finding(view: View) -> str:
    """Which share of eigenvalues lies outside the unit circle, before and after, or of several arms after."""
    before, after = (ranked(share_outside_circle.means(view.grid, stage=stage)) for stage in STAGE_TITLES)
    if len(view.arms) > 1:
        return _outside_range(after)
    arm = with_article(view.arms[0])
    if before.is_empty() or after.is_empty():
        return f"Eigenvalues of {arm}: one stage only, so no comparison"
    shares = [f"{100 * rows['mean'][0]:.1f} %" for rows in (before, after)]
    if shares[0] == shares[1]:
        return f"Before and after training {shares[0]} of {arm}'s eigenvalues lie outside the unit circle"
    return f"Training takes the share of {arm}'s eigenvalues outside the unit circle from {' to '.join(shares)}"


def _outside_range(end: pl.DataFrame) -> str:
    if end.is_empty():
        return "No replica finished training: only the initial eigenvalues are known"
    least, most = end.row(0, named=True), end.row(-1, named=True)
    high = f"{number(100 * most['mean'], 2)} %"
    if least["mean"] == most["mean"]:
        return f"After training {high} of the eigenvalues lie outside the circle in every arm"
    low = f"{number(100 * least['mean'], 2)} % ({with_article(least['arm'])})"
    return (
        f"After training {low} to {high} ({with_article(most['arm'])}) of the eigenvalues lie outside the unit circle"
    )


def _about_cloud(view: View) -> str:
    gate = view.rows["gate"][0]
    block = "W_hh" if gate == "h" else f"the block of gate {gate} of W_hh"
    whose = with_article(view.arms[0]) if len(view.arms) == 1 else count(len(view.arms), "arm")
    seeds = count(view.rows["seed"].n_unique(), "seed")
    return f"Eigenvalues of {block} of {whose}, {seeds} together, at T = {{T}} on {{dataset}}, and the unit circle."


def _shares_outside(view: View) -> str:
    rows = view.of_shown(share_outside_circle.means(view.grid, ["stage", "arm"])).drop_nulls("low")
    parts = [
        f"{name_of(row['arm']) + ', ' if len(view.arms) > 1 else ''}{row['stage']} {100 * row['mean']:.1f} % "
        f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        for row in rows.iter_rows(named=True)
    ]
    return f"Outside the circle, mean over seeds and {INTERVAL}: {'; '.join(parts)}." if parts else ""


def _circle(view: View, ax: Axes, panel: Panel) -> None:  # noqa: ARG001 - as the frame calls it
    angles = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angles), np.sin(angles), color=INK, linewidth=0.9, linestyle=":")
    ax.set_box_aspect(1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _square(rows: pl.DataFrame) -> Sequence[tuple[float, float]]:
    """Return limits that hold the circle and all eigenvalues, but for the few of weights that exploded."""
    moduli = rows["modulus"].drop_nulls().drop_nans().to_numpy()
    reach = max(1.0, min(float(moduli.max()), 1.5 * float(np.quantile(moduli, 0.95)))) if len(moduli) else 1.0
    return [(-1.08 * reach, 1.08 * reach)] * 2


_START = Look(FAINT, "none", "x")
_cloud_by_arm = Points(
    name="eigenvalue_cloud",
    rows=eigenvalues,
    means=lambda view: share_outside_circle.means(view.grid, stage="end"),
    x=Axis(label="real part", column="real"),
    y=Axis(label="imaginary part", column="imag"),
    across=("arm", None),
    series="stage",
    look=lambda view: {
        (arm, stage): _START if stage == "initialisation" else Look(view.looks[arm].colour, "none", "o")
        for arm in view.with_looks
        for stage in STAGE_TITLES
    },
    more=lambda view: {"at initialisation": _START, "at the end of training": Look(INK, "none", "o")},
    limits=_square,
    add=_circle,
    height=2.3,
    title=_outside_finding,
    about=_about_cloud,
    values=_shares_outside,
    not_ok="after training they are not shown unless they were measured when they stopped",
    most=6,
    rank=(lambda view: share_outside_circle.by_arm(view.grid, stage="end"), "share outside the circle at the end"),
    top_layer="eigenvalues",
)
eigenvalue_cloud = replace(
    _cloud_by_arm,
    across=("stage", STAGE_TITLES),
    series=None,
    look=None,
    more=None,
    height=3.2,
    most=1,
    rank=None,
    crowded=_cloud_by_arm,
)

_ROUNDING = 1e-6


def _growth_finding(view: View) -> str:
    """How many points above 1/γ shrink nevertheless, and whether a point breaks the bound."""
    if view.rows.is_empty():
        return "Inconclusive: the gradient's growth is known for no replica"
    above, below = view.rows.filter(pl.col("log_sigma") > 0), view.rows.filter(pl.col("log_sigma") <= 0)
    broken = view.rows.filter(pl.col("growth") > pl.col("log_sigma") + _ROUNDING).height
    excess = f"; {count(broken, 'point')} above the bound growth = ln σ_max" if broken else ""
    num_shrinking = (above if above.height else below).filter(pl.col("growth") < 0).height
    if above.is_empty():
        return f"σ_max lies nowhere above 1/γ: {num_shrinking} of {count(below.height, 'gradient')} shrink{excess}"
    if num_shrinking == 0:
        return f"Every one of the {above.height} gradients with σ_max above 1/γ grows{excess}"
    share = f"{num_shrinking} of {above.height} ({100 * num_shrinking / above.height:.0f} %)"
    return f"σ_max above 1/γ need not make a gradient explode: {share} shrink{excess}"


def _growth_values(view: View) -> str:
    row: Row = next(view.means.iter_rows(named=True), {"mean": None})
    share = "" if row["mean"] is None else f"Share shrinking above 1/γ, mean over seeds: {interval(row)}."
    num_left_out = int(view.rows["num_left_out"].sum())
    lags = f"{count(num_left_out, 'norm')} of zero or not finite left out of fits." if num_left_out else ""
    return " ".join(filter(None, (share, lags)))


def _growth_limits(rows: pl.DataFrame) -> Sequence[tuple[float, float]]:
    sides = []
    for name, below, above in (("log_sigma", 0.06, 0.06), ("growth", 0.08, 0.14)):
        values = rows[name].to_numpy()
        low, high = min(-0.1, values.min(initial=0.0)), max(0.1, values.max(initial=0.0))
        sides.append((low - below * (high - low), high + above * (high - low)))
    return sides


def _theory(view: View, ax: Axes, panel: Panel) -> None:  # noqa: ARG001 - as the frame calls it
    """Draw the bound and the zero lines, and name the region above the bound."""
    (left, right), (bottom, top) = _growth_limits(view.rows)
    ends = np.array([left, right])
    ax.plot(ends, ends, color=INK, linewidth=1.1)
    ax.fill_between(ends, ends, top, color=FAINT, alpha=0.13, linewidth=0)
    ax.axvline(0, color=INK, linewidth=0.9, linestyle=":")
    ax.axhline(0, color=INK, linewidth=0.6)
    small: dict[str, Any] = {"fontsize": 7.5, "color": INK}
    ax.annotate(
        "above the bound, growth = ln σ_max", (0, top), xytext=(4, -4), textcoords="offset points", va="top", **small
    )
    ax.annotate("1/γ", (0, bottom), xytext=(3, 4), textcoords="offset points", **small)


def _about_growth(view: View) -> str:
    updates = count(int(view.grid.runs["num_steps"].max() or 0), "update")  # type: ignore[arg-type]
    return (
        f"A point per arm, seed and stage (hollow at initialisation, filled after training, at most {updates}) at "
        "T = {T} on {dataset}: growth of ‖∂L/∂h_(T-k)‖ per timestep of lag (least-squares slope, first layer), against "
        "ln σ_max(W_hh) at the same step. The diagonal is the upper bound for γ = max |φ'| = 1, the vertical line "
        "σ_max = 1/γ; the bound is of one layer with a loss at the last timestep. Shares are over {seeds} with "
        "{interval}."
    )


growth_by_singular_value = Points(
    name="growth_by_singular_value",
    rows=lambda grid: growth_points(grid).drop_nulls("growth"),
    x=Axis(label="ln σ_max(W_hh)", column="log_sigma"),
    y=Axis(label="growth of the gradient per timestep of lag (nats)", column="growth"),
    hollow=pl.col("stage") == "initialisation",
    limits=_growth_limits,
    add=_theory,
    means=lambda view: shrinking_share.means(view.grid, sigma_max="above_1"),
    height=3.1,
    title=_growth_finding,
    about=_about_growth,
    values=_growth_values,
)
