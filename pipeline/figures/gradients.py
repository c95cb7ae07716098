"""Figures of the gradient itself: how much of it arrives at earlier timesteps, layers, inputs and encoders."""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import seaborn as sns
from matplotlib import colormaps, image
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pipeline.figures.findings import STEADY, Row, by_sign, contrast, ranked, with_arm
from pipeline.figures.frame import MAX_LISTED, STAGE_TITLES, Axis, Lines, Pictures, View, listed, reach
from pipeline.figures.style import Look, canvas, decades, state_looks
from pipeline.quantities import Grid
from pipeline.quantities import gradients as quantities
from pipeline.quantities.attention import attending
from pipeline.quantities.gradients import recurring
from pipeline.quantities.quantity import from_log10
from pipeline.quantities.words import interval, join_first, name_of, number, quoted, with_article

COLOURS = "cividis"
_NO_SOFTWARE: Any = {"Software": None}  # else another matplotlib would make other bytes
MAX_DECADES = 16
"""Colours end so many decades below the largest norm."""

ONLY_INITIAL = "No replica finished training: only the initial gradient is known"


def _state(row: Row) -> str:
    return f"{with_article(row['arm'])}'s {row['state']}"


def _factor(slope: float | None) -> str:
    return "no fit" if slope is None else f"×{from_log10(slope):.3f}"


def _one_state(grid: Grid) -> pl.DataFrame:
    """Return the gradient in h and c by lag; where it has more than eight lines, of each arm c if it has it."""
    rows = quantities.gradient_by_lag.of(grid).filter(pl.col("state").is_in(["h", "c"]))
    if rows.select("arm", "state").n_unique() <= 8:
        return rows
    return rows.filter((pl.col("state") == "c") | (pl.col("state") == "c").any().over("arm").not_())


def _decay(view: View) -> pl.DataFrame:
    drawn = view.rows.select("arm", "state").unique()
    rows = quantities.decay_factor.of(view.grid).join(drawn, on=["arm", "state"], maintain_order="left")
    return quantities.decay_factor.summary(rows, ["stage", "arm", "state"])


def _decay_finding(view: View) -> str:
    """Where the gradient falls fastest after training, where slowest, and where not at all."""
    end = ranked(_decay(view).filter(stage="end"))
    if end.is_empty():
        return ONLY_INITIAL
    is_falling, after = pl.col("high") < -STEADY, f"After training at T = {view.T}"
    falling, others = end.filter(is_falling), end.filter(is_falling.not_().fill_null(value=True))
    if falling.is_empty():
        reason = "one seed has no interval" if end["num_seeds"].max() == 1 else "every interval reaches 0.99"
        return f"{after} no gradient is shown to decay with lag ({reason})"
    fast, slow = falling.row(0, named=True), falling.row(-1, named=True)
    finding = f"{after} the gradient decays tenfold every {number(-1 / fast['mean'], 2)} timesteps in {_state(fast)}"
    if falling.height > 1:
        finding += f", every {number(-1 / slow['mean'], 2)} in {_state(slow)}"
    words = {"within": "it keeps its size in {arms}", "unsure": "no decay is established in {arms}"}
    rest = by_sign(others, words, name=_state, bounds=(-STEADY, STEADY))
    return f"{finding}; {rest}" if rest else finding


def _decay_looks(view: View) -> dict[tuple[str, str], tuple[str, Look]]:
    slopes = {tuple(key): mean for *key, mean in _decay(view).select("arm", "state", "stage", "mean").iter_rows()}
    looks = {}
    for (arm, state), look in state_looks(view.with_looks).items():
        factors = " → ".join(_factor(slopes.get((arm, state, stage))) for stage in STAGE_TITLES)
        looks[arm, state] = f"{name_of(arm)} {state}  {factors}", look
    return looks


gradient_by_lag = Lines(
    name="gradient_by_lag",
    rows=_one_state,
    quantity=quantities.gradient_by_lag,
    x=Axis(label="lag k (timesteps back from the last)", column="lag", scale="counts"),
    y=Axis(label="gradient norm relative to lag 0", scale="decades", lines={0.0: ""}),
    across=("stage", STAGE_TITLES),
    series=("arm", "state"),
    looks=_decay_looks,
    title=_decay_finding,
    about="Frobenius norm over the probe batch of ∂L/∂h (and ∂L/∂c of a cell state) k timesteps before the last one, "
    "relative to lag 0, at T = {T} on {dataset}; exact float64 backward pass. Lines are means of log10 over {seeds}, "
    "bands the {interval}. In the legend: factors per timestep at initialisation and after training, least-squares "
    "fits of the log10 norm, seed by seed. Where the study selects between settings, the selected one is shown.",
    not_ok="diverged and failed replicas are shown at initialisation only, if at all",
    top_layer="traces",
)


def _decades_lost(view: View) -> pl.DataFrame:
    """Return by arm and state the log10 norm at t = T minus that at t = 1, at the last step, smallest first."""
    keys = ["arm", "state"]
    last = view.means.filter(pl.col("step") == pl.col("step").max().over(keys)).sort("timestep")
    ends = last.group_by(keys, maintain_order=True).agg(lost=pl.col("mean").last() - pl.col("mean").first())
    return ends.drop_nulls("lost").sort("lost", "arm", "state")


def _fading(view: View) -> str:
    """How much less gradient the first timestep gets than the last, after training, at best and at worst."""
    lost = _decades_lost(view)
    if lost.is_empty():
        return "Inconclusive: the gradient at the first or last timestep is not finite"
    ends = [lost.row(0, named=True), lost.row(-1, named=True)][: lost.height]
    parts = []
    for row in ends:
        side = "below" if row["lost"] >= 0 else "above"
        parts.append(f"{number(abs(row['lost']), 2)} decades ({quoted(row['arm'])}'s {row['state']}) {side}")
    return f"After training the first timestep's gradient lies {' to '.join(parts)} the last one's"


def _draw_heat_maps(view: View, *, width: int = 2) -> Figure:
    """Draw a panel per arm and state, `width` in a row, the training step against the timestep, on one colour scale."""
    means = view.of_shown(view.means)
    panels = _panels_of(view, means)
    num_columns = min(width, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    figure, axes = canvas(view.title, num_rows, num_columns, 0.9 + 1.75 * num_rows)
    ends = reach(means["mean"], MAX_DECADES)
    for ax, (arm, state) in zip(axes.flat, panels, strict=False):
        draw_heat_map(ax, means.filter(arm=arm, state=state), ends, num_ticks=5 if width == 2 else 3)
        ax.set_title(textwrap.fill(f"{name_of(arm)} {state}", 66 // num_columns))
        if width > 2:
            ax.label_outer(remove_inner_ticks=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    bar = figure.colorbar(axes[0, 0].collections[0], ax=axes, aspect=30, pad=0.015, extend="min")
    bar.outline.set_visible(False)
    bar.set_label("gradient norm")
    decades(bar.ax)
    return figure


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """One panel without axes, a pixel per training step (upwards) and timestep (to the right), and what it shows.

    Attributes:
        name: Of arm and state.
        png: The pixels.
        steps: Training steps, from below.
        num_timesteps: T.
        corners: Mean log10 norms at t = 1 and t = T, before training, then at the last step.
    """

    arm: str
    name: str
    png: bytes
    steps: list[int]
    num_timesteps: int
    corners: tuple[float, float, float, float]


def heat_maps(grid: Grid) -> tuple[list[HeatMap], tuple[float, float]]:
    """Return the panels of `gradient_heatmap`, and the log10 norms at the ends of their one colour scale."""
    view = gradient_heatmap.view(grid)
    means = view.of_shown(view.means)
    low, high = ends = reach(means["mean"], MAX_DECADES)
    panels = []
    for arm, state in _panels_of(view, means):
        wide = means.filter(arm=arm, state=state).sort("step", "timestep")
        cells = wide.pivot(on="timestep", index="step", values="mean")
        pixels = cells.drop("step").to_numpy().astype(float)
        buffer = io.BytesIO()
        kept = np.where(np.isnan(pixels), low, pixels)[::-1]
        image.imsave(buffer, kept, vmin=low, vmax=high, cmap=COLOURS, format="png", metadata=_NO_SOFTWARE)
        corners = float(pixels[0, 0]), float(pixels[0, -1]), float(pixels[-1, 0]), float(pixels[-1, -1])
        found = {"steps": cells["step"].to_list(), "num_timesteps": pixels.shape[1], "png": buffer.getvalue()}
        panels.append(HeatMap(arm=arm, name=f"{name_of(arm)} {state}", corners=corners, **found))
    return panels, ends


def colour_ramp(num: int = 16) -> list[str]:
    """Return colours of heat maps, from the lowest value to the highest, as #rrggbb."""
    return [to_hex(colormaps[COLOURS](place)) for place in np.linspace(0, 1, num)]


def _panels_of(view: View, means: pl.DataFrame) -> list[tuple[str, str]]:
    """Return arm and state of each panel, arms in order, h before c."""
    keys = means.select("arm", "state").unique().rows()
    return sorted(keys, key=lambda key: (view.shown.index(key[0]), key[1] != "h"))


def draw_heat_map(ax: Axes, rows: pl.DataFrame, ends: tuple[float, float], num_ticks: int) -> None:
    """Draw `mean` by `step` and `timestep`, on colours between two ends."""
    wide = rows.sort("step", "timestep").pivot(on="timestep", index="step", values="mean")
    cells = wide.drop("step").to_pandas().astype(float)
    style: dict[str, Any] = {"cbar": False, "cmap": COLOURS, "rasterized": True}
    sns.heatmap(cells, ax=ax, vmin=ends[0], vmax=ends[1], xticklabels=False, yticklabels=False, **style)
    num_rows, num_columns = cells.shape
    ticks = np.unique(np.linspace(1, num_columns, min(num_ticks, num_columns)).round().astype(int))
    ax.set_xticks(ticks - 0.5, [str(tick) for tick in ticks])
    shown = list(range(num_rows - 1, -1, -max(1, math.ceil(num_rows / 8))))
    ax.set_yticks([row + 0.5 for row in shown], [str(wide["step"][row]) for row in shown])
    ax.tick_params(axis="y", rotation=0)
    ax.invert_yaxis()
    ax.set(xlabel="timestep t", ylabel="training step")


gradient_heatmap = Pictures(
    name="gradient_heatmap",
    rows=quantities.gradient_over_training,
    means=lambda view: view.summary(view.rows, ["arm", "state", "step", "timestep"]),
    picture=_draw_heat_maps,
    shows=lambda view: view.of_shown(view.means),
    title=_fading,
    about="log10 of the Frobenius norm over the probe batch of ∂L/∂h and ∂L/∂c at timestep t, against training step, "
    "at T = {T} on {dataset}; mean over {seeds}. A replica that stopped keeps its last measurement. Colours end "
    f"{MAX_DECADES} decades below the largest norm.",
    most=3,
    rank=(lambda view: dict(_decades_lost(view).group_by("arm").agg(pl.col("lost").min()).iter_rows()), "decades lost"),
    top_layer="traces",
)


def _h_at_common_steps(grid: Grid) -> pl.DataFrame:
    """Return log10 of ‖∂L/∂h_t‖ of every arm at the steps of the one that trained longest."""
    rows = quantities.gradient_over_training.of(grid).filter(state="h").sort("step")
    steps = rows.filter(pl.col("arm") == pl.col("arm").last()).select("step").unique()
    keys = ["arm", "seed", "state", "timestep"]
    wanted = rows.select(keys).unique().join(steps, how="cross").sort("step")
    found = wanted.join_asof(rows, on="step", by=keys, strategy="backward", check_sortedness=False)
    return found.sort(grid.rank(), "step", "timestep", "seed")


gradient_heatmap_row = replace(
    gradient_heatmap,
    name="gradient_heatmap_row",
    rows=_h_at_common_steps,
    quantity=quantities.gradient_over_training,
    applies=lambda grid: len(grid.arms) > 3,
    needs="more than three arms",
    picture=partial(_draw_heat_maps, width=5),
    about="log10 of the Frobenius norm over the probe batch of ∂L/∂h at timestep t, against training step, at T = {T} "
    "on {dataset}; mean over {seeds}. A replica that stopped keeps its last measurement. Colours end "
    f"{MAX_DECADES} decades below the largest norm.",
    most=5,
    by_rank=True,
)


LAYERS = list(zip(("#12416e", "#d1580b", "#58bab0", "#93308a", "#c79a2b", "#6f6f6f"), "os^DvP", strict=True))
"""Colour and marker of a layer."""


def _layer_looks(view: View) -> dict[tuple[int, str], tuple[str, Look]]:
    dashes = {"forward": "solid", "backward": (0, (4, 1.5))}
    looks = {}
    for layer, direction in view.rows.select("layer", "direction").unique().iter_rows():
        colour, marker = LAYERS[layer % len(LAYERS)]
        looks[layer, direction] = f"layer {layer + 1}, {direction}", Look(colour, dashes[direction], marker)
    return looks


def _layer_finding(view: View) -> str:
    """Whether after training less gradient reaches the first layer than the last, by arm."""
    gaps = quantities.layer_gap.means(view.grid, stage="end").drop_nulls("mean")
    if gaps.is_empty():
        return _direction_finding(view)

    def name(row: Row) -> str:
        if gaps.height > 3:
            return with_article(row["arm"])
        flipped = {"mean": -row["mean"], "low": -row["high"], "high": -row["low"]} if is_larger(row) else row
        return f"{with_article(row['arm'])} ({interval(flipped)} decades)"

    def is_larger(row: Row) -> bool:
        return row["high"] is not None and row["high"] < 0

    words = {
        "above": "is below the last layer's in {arms}",
        "below": "is above the last layer's in {arms}",
        "unsure": "no difference is established in {arms}",
    }
    sides = by_sign(gaps, words, name=name)
    if sides.startswith("no difference"):
        return f"After training, between the first and the last layer's gradient {sides}"
    return f"After training the first layer's gradient {sides}"


def _direction_finding(view: View) -> str:
    """Where no arm has two layers: which direction's states get more gradient."""
    if "end" not in view.rows["stage"]:
        return ONLY_INITIAL
    gaps = quantities.direction_gap.means(view.grid, stage="end").drop_nulls("mean")
    if gaps.is_empty():
        return "Inconclusive: the gradient of one direction is not finite"
    parts = []
    for row in gaps.iter_rows(named=True):
        is_clear = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
        parts.append(f"{with_article(row['arm'])} {interval(row)} decades{'' if is_clear else ', inconclusive'}")
    return f"Mean gradient of the forward minus the backward states after training: {join_first(parts)}"


def _layer_gaps(view: View) -> str:
    gaps = view.of_shown(quantities.layer_gap.means(view.grid, stage="end")).drop_nulls("mean")
    lead = "Last layer's log10 norm minus the first one's, mean over timesteps, after training"
    return "" if gaps.is_empty() else f"{lead}: {listed(view, gaps)}."


_last_layers = Lines(
    name="gradient_by_layer",
    rows=lambda grid: quantities.gradient_by_layer.of(grid).filter(stage="end"),
    quantity=quantities.gradient_by_layer,
    x=Axis(label="timestep t", column="timestep"),
    y=Axis(label="gradient norm", scale="decades"),
    across=("arm", None),
    series=("layer", "direction"),
    looks=_layer_looks,
    height=2.1,
    title=_layer_finding,
    about="Frobenius norm over the probe batch of ∂L/∂h_t of every layer and direction, at T = {T} on {dataset}: "
    "mean over {seeds} of log10, bands the {interval}; layers are counted from the input, dashed is backward in time.",
    values=_layer_gaps,
    most=6,
    rank=(
        lambda view: quantities.layer_gap.by_arm(view.grid, stage="end"),
        "how much less gradient the first layer gets",
    ),
)
gradient_by_layer = replace(
    _last_layers,
    rows=quantities.gradient_by_layer,
    down=("stage", STAGE_TITLES),
    most=3,
    rank=None,
    crowded=_last_layers,
)


def _encoder_finding(view: View) -> str:
    """The factor per timestep of lag after training, with and without attention, if a difference is established.

    If it is not, but was at initialisation, those. Without a contrast, the smallest and the largest of the arms.
    """
    end = ranked(quantities.encoder_decay_factor.means(view.grid, stage="end"))
    if end.is_empty():
        return ONLY_INITIAL
    decay, attends = quantities.encoder_decay_factor, attending(view.grid)
    after, before = (
        contrast(decay, decay.of(view.grid).filter(stage=stage), attends) for stage in ("end", "initialisation")
    )
    lead = "the gradient into the encoder changes per timestep of lag by"

    def contrasted(kinds: pl.DataFrame) -> str:
        with_it, without = kinds.iter_rows(named=True)
        return f"{_factors(without)} without attention, by {_factors(with_it)} with it"

    if after.height < 2:
        ends = [end.row(0, named=True), end.row(-1, named=True)][: end.height]
        parts = [f"{_factors(row)} {with_arm(row['arm'], view.grid)}" for row in ends]
        return f"After training {lead} {', by '.join(parts)}"
    if after["apart"].all():
        return f"After training {lead} {contrasted(after)}"
    if before.height == 2 and before["apart"].all():
        return f"At initialisation {lead} {contrasted(before)}; after training no difference is established"
    return "Inconclusive: no difference in the encoder's gradient with and without attention is established"


def _factors(row: Row) -> str:
    """Return «×0.850 [0.830, 0.870]» of a slope in decades."""
    ends = "" if row["low"] is None else f" [{from_log10(row['low']):.3f}, {from_log10(row['high']):.3f}]"
    return f"{_factor(row['mean'])}{ends}"


def _encoder_looks(view: View) -> dict[str, tuple[str, Look]]:
    decay = quantities.encoder_decay_factor
    means = [decay.means(view.grid, stage=stage) for stage in STAGE_TITLES]
    slopes = [dict(rows.select("arm", "mean").iter_rows()) for rows in means]
    factors = {arm: " → ".join(_factor(by_arm.get(arm)) for by_arm in slopes) for arm in view.with_looks}
    return {arm: (f"{name_of(arm)}  {factors[arm]}", view.looks[arm]) for arm in view.with_looks}


def _encoder_fits(view: View) -> str:
    fits = quantities.encoder_decay_factor.of(view.grid).filter(pl.col("r_squared").is_finite(), stage="end")
    means = fits.group_by("arm", maintain_order=True).agg(pl.col("r_squared").mean())
    few, rest = view.listed(means, by="r_squared")
    parts = [f"{name_of(arm)} {r_squared:.2f}" for arm, r_squared in few.iter_rows()]
    explained = "After training a line explains of the variance over lags (R², mean over seeds)"
    return f"{explained}: {'; '.join(parts)}{rest}." if parts else ""


gradient_into_encoder = Lines(
    name="gradient_into_encoder",
    rows=quantities.encoder_gradient_by_lag,
    x=Axis(label="lag k (timesteps before the last token)", column="lag", scale="counts"),
    y=Axis(label="gradient relative to lag 0", scale="decades", lines={0.0: ""}),
    across=("stage", STAGE_TITLES),
    looks=_encoder_looks,
    title=_encoder_finding,
    about="Frobenius norm over the probe batch of ∂L/∂h of the encoder k timesteps before the source's last token, "
    "relative to lag 0, on {dataset}; exact float64 backward pass through the decoder, and attention where there is "
    "any. Sources end together at lag 0; a shorter one has nothing at the longest lags. Lines are means of log10 over "
    "{seeds}, bands the {interval}; factors per timestep are least-squares fits of the log10 norm, seed by seed.",
    values=_encoder_fits,
)


def _far_finding(view: View) -> str:
    """How far the gradient of the farther half of the input lies below the largest, with and without recurrence."""
    lost = quantities.far_input_gradient.of(view.grid).filter(stage="end").drop_nulls("value")
    kinds = contrast(quantities.far_input_gradient, lost, recurring(view.grid))
    if kinds.height < 2:
        return "Inconclusive: no replica of both kinds finished training"
    if not kinds["apart"].all():
        return "Inconclusive: no difference between input gradients with and without recurrence is established"
    recurrent, other = map(interval, kinds.iter_rows(named=True))
    lead = "After training the farther half of the input gets a gradient"
    return f"{lead} {recurrent} decades below the largest with recurrence, {other} without"


def _with_recurrence(view: View) -> str:
    names = [name_of(arm) for arm in recurring(view.grid)]
    others = f" and {len(names) - MAX_LISTED} others" if len(names) > MAX_LISTED else ""
    return f"With recurrence: {'; '.join(names[:MAX_LISTED])}{others}."


input_gradients = Lines(
    name="input_gradients",
    rows=quantities.input_gradient_by_lag,
    applies=lambda grid: 0 < len(recurring(grid)) < grid["traces"].filter(part="input")["arm"].n_unique(),
    needs="recurrent arms beside others without recurrence",
    x=Axis(label="lag k (timesteps before the last one)", column="lag", scale="counts"),
    y=Axis(label="gradient relative to the largest", scale="decades", lines={0.0: ""}),
    across=("stage", STAGE_TITLES),
    looks=lambda view: {
        arm: (name_of(arm) + ("" if arm in recurring(view.grid) else " (no recurrence)"), view.looks[arm])
        for arm in view.with_looks
    },
    title=_far_finding,
    about="Frobenius norm over the probe batch of ∂L/∂x k timesteps before the last one, relative to each replica's "
    "largest, at T = {T} on {dataset}; exact float64 backward pass. Lines are means of log10 over {seeds}, bands the "
    "{interval}.",
    values=_with_recurrence,
)
