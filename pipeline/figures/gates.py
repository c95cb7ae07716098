"""Figures of gates: how their values are distributed, and whether the keeping gate explains the gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.findings import STEADY
from pipeline.figures.frame import STAGE_TITLES, Axis, Lines, Pictures, View, listed
from pipeline.figures.style import DOTTED, FAINT, INK, Look, canvas, label_panels, legend_below
from pipeline.quantities import gates as quantities
from pipeline.quantities.words import INTERVAL, capitalised, join_first, name_of, number, with_article

_ORDER = ("f", "z", "i", "r", "o")


def _lives(view: View) -> list[dict[str, float | None]]:
    """Return the half-life by arm, at initialisation and after training."""
    return [quantities.half_life.by_arm(view.grid, stage=stage) for stage in STAGE_TITLES]


def _half_life_finding(view: View) -> str:
    """Where training lengthens or shortens the memory of the keeping gate, by its half-life."""
    lives = _lives(view)
    if any(set(known.values()) <= {None} for known in lives):
        return "Half-lives of the keeping gate are not known both before and after training"
    changes = quantities.half_life_change.means(view.grid)
    sides = {"lengthens": pl.col("low") > 0, "shortens": pl.col("high") < 0}
    parts = []
    for verb, is_on_side in sides.items():
        arms = changes.filter(is_on_side)["arm"]
        spans = {arm: " → ".join(number(known.get(arm), 2) for known in lives) for arm in arms}
        names = [f"{with_article(arm)} ({span} timesteps)" for arm, span in spans.items()]
        parts += [f"{verb} the keeping gate's half-life in {join_first(names, 2)}"] if names else []
    unsure = changes.filter(~pl.any_horizontal(*(side.fill_null(value=False) for side in sides.values())))["arm"]
    rest = [f"no change is established in {join_first(list(map(with_article, unsure)))}"] if len(unsure) else []
    finding = "; ".join([*parts, *rest])
    return f"Training {finding}" if parts else capitalised(finding)


def _half_lives(view: View) -> str:
    lives = quantities.half_life.natural(quantities.half_life.means(view.grid, stage="end"))
    known = view.of_shown(lives).drop_nulls("low")
    lead = f"Half-lives ln ½ / ln f of the keeping gate after training, {INTERVAL}"
    return "" if known.is_empty() else f"{lead}: {listed(view, known)} timesteps."


def _densities(view: View) -> Figure:
    """Draw a panel per gate, and one of saturation."""
    drawn, keeping = view.of_shown(view.means), {*quantities.half_life.of(view.grid)["gate"]}
    gates = sorted(drawn["gate"].unique(), key=lambda gate: (_ORDER.index(gate) if gate in _ORDER else 9, gate))[:5]
    num_columns = 2 if len(gates) in {1, 3} else 3
    num_rows = math.ceil((len(gates) + 1) / num_columns)
    figure, axes = canvas(view.title, num_rows, num_columns, 0.6 + 2.1 * num_rows)
    for ax, gate in zip(axes.flat, gates, strict=False):
        for (arm, stage), line in drawn.filter(gate=gate).group_by("arm", "stage", maintain_order=True):
            look, is_end = view.looks[str(arm)], stage == "end"
            x, heights = (line[name].cast(pl.Float64).to_numpy() for name in ("position", "mean"))
            style = {"linewidth": 1.6, "alpha": 1.0} if is_end else {"linewidth": 1.0, "alpha": 0.45}
            ax.step(x, heights, where="mid", color=look.colour, linestyle=look.dashes, **style)
            if is_end:
                ax.plot(x[::5], heights[::5], color=look.colour, linestyle="none", marker=look.marker)
        ax.set_title(f"gate {gate}{', keeps the state' if gate in keeping else ''}")
        ax.set(xlabel="value of the gate", ylabel="density", xlim=(0, 1))
        ax.set_ylim(bottom=0)
    _saturation(view, axes.flat[len(gates)], gates)
    for ax in axes.flat[len(gates) + 1 :]:
        ax.set_visible(False)
    lives = _lives(view)
    labels = {
        arm: f"{name_of(arm)}: half-life " + " → ".join(number(known.get(arm), 2) for known in lives)
        if any(arm in known for known in lives)
        else name_of(arm)
        for arm in view.shown
    }
    looks = view.looks
    legend_below(figure, {labels[arm]: Look(looks[arm].colour, looks[arm].dashes, looks[arm].marker) for arm in labels})
    label_panels([ax for ax in axes.flat if ax.get_visible()])
    return figure


def _saturation(view: View, ax: Axes, gates: list[str]) -> None:
    """Draw a letter per gate at (share near 0, share near 1), with a line that begins at initialisation."""
    keys = ["stage", "arm", "gate", "side"]
    saturation = quantities.gate_saturation
    shares = saturation.summary(view.of_shown(saturation.of(view.grid)), keys).filter(pl.col("gate").is_in(gates))
    wide = shares.pivot(on="side", index=["stage", "arm", "gate"], values="mean", maintain_order=True)
    ax.plot([0, 1], [1, 0], color=INK, linewidth=0.7, linestyle=":")
    if {"left_saturated", "right_saturated"} <= {*wide.columns}:
        for (arm, gate), path in wide.drop_nulls().group_by(["arm", "gate"], maintain_order=True):
            points, colour = path.select("left_saturated", "right_saturated").rows(), view.looks[str(arm)].colour
            ax.plot(*zip(*points, strict=True), color=colour, linewidth=0.8, alpha=0.5)
            ax.plot(*points[0], color=colour, marker=".", alpha=0.5)
            ax.plot(*points[-1], color=colour, marker=f"${gate}$", markersize=7, linestyle="none")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="share near 0", ylabel="share near 1", title="Saturation")
    ax.set_box_aspect(1)
    ax.annotate("0 or 1 always", (0.5, 0.5), rotation=-45, ha="left", va="bottom", fontsize=7, color=FAINT)


gate_distribution = Pictures(
    name="gate_distribution",
    rows=quantities.gate_density,
    means=lambda view: view.summary(view.rows, ["stage", "arm", "gate", "position"]),
    picture=_densities,
    shows=lambda view: view.of_shown(view.means),
    title=_half_life_finding,
    about="Density of each gate on the probe batch of {dataset} (T = {T}), mean over {seeds}: faint at initialisation, "
    "full at the end of training. Last panel: share of values near 0 (left-saturated) and near 1 (right-saturated), a "
    "line from initialisation to the end, as in Karpathy et al. (2015).",
    values=_half_lives,
    most=5,
    rank=(lambda view: _lives(view)[-1], "half-life of the keeping gate at the end"),
    top_layer="gates",
)


def _retention_finding(view: View) -> str:
    """Whether after training the gradient falls as the keeping gate's product does, slower, or faster."""
    gaps = quantities.retention_gap.means(view.grid, stage="end").drop_nulls("mean")
    if gaps.is_empty():
        return "Inconclusive: gate and gradient are not both known at the end of training"
    speeds: dict[str, list[str]] = {"as fast as": [], "slower than": [], "faster than": [], "": []}
    for row in gaps.iter_rows(named=True):
        speeds[_speed(row["low"], row["high"])].append(with_article(row["arm"]))
    unsure = speeds.pop("")
    parts = [f"{speed} the keeping gate's product in {join_first(arms)}" for speed, arms in speeds.items() if arms]
    falls = [f"the gradient falls {', '.join(parts)}"] if parts else []
    rest = [f"no difference to the keeping gate's product is established in {join_first(unsure)}"] if unsure else []
    return f"After training {'; '.join(falls + rest)}"


def _speed(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    if low > -STEADY and high < STEADY:
        return "as fast as"
    return "slower than" if low > 0 else "faster than" if high < 0 else ""


def _slopes(view: View) -> str:
    gaps = view.of_shown(quantities.retention_gap.means(view.grid, stage="end")).drop_nulls("mean")
    lead = "Slope of the gradient minus that of the product, decades per timestep"
    return "" if gaps.is_empty() else f"{lead}: {listed(view, gaps)}."


def _source_looks(view: View) -> dict[tuple[str, str], tuple[str, Look]]:
    looks = {}
    for arm in view.with_looks:
        looks[arm, "gradient"] = "gradient, measured", Look(view.looks[arm].colour, "solid", "")
        looks[arm, "retention"] = "product of the keeping gate", Look(INK, (0, (5, 1.5)), "")
        looks[arm, "power"] = "f^k of its mean f", Look(FAINT, DOTTED, "")
    return looks


def _last_product(view: View) -> dict[str, float | None]:
    end = view.means.filter(stage="end", source="retention")
    last = end.filter(pl.col("lag") == pl.col("lag").max().over("arm"))
    return dict(last.select("arm", "mean").iter_rows())


_last_retention = Lines(
    name="gate_retention",
    rows=lambda grid: quantities.retention_by_lag.of(grid).filter(stage="end"),
    quantity=quantities.retention_by_lag,
    means=lambda view: view.summary(view.rows, ["stage", "arm", "source", "lag"]),
    x=Axis(label="lag k (timesteps)", column="lag", scale="counts"),
    y=Axis(label="relative to lag 0", scale="decades", lines={0.0: ""}, max_decades=16),
    across=("arm", None),
    series=("arm", "source"),
    looks=_source_looks,
    height=2.0,
    title=_retention_finding,
    about="Mean product of the keeping gate (f of the LSTM, z of the GRU) over the last k timesteps, f^k with the "
    "gate's mean f, and the norm of ∂L/∂c (∂L/∂h of the GRU) k timesteps back relative to lag 0, at T = {T} on "
    "{dataset}: means over {seeds}, bands the {interval}. «As fast» means within 1 % per timestep. What lies more than "
    "16 decades below lag 0 is cut off; where the loss is at every timestep, gradient enters at every lag.",
    values=_slopes,
    most=6,
    rank=(_last_product, "the keeping gate's product at the longest lag"),
    top_layer="gates",
)
gate_retention = replace(
    _last_retention,
    rows=quantities.retention_by_lag,
    down=("stage", STAGE_TITLES),
    most=3,
    rank=None,
    crowded=_last_retention,
)
