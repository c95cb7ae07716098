"""The gradient of every timestep over training: where it comes from, where it fades, and when that changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import MAX_PANELS, chosen_told, layer_told, recurrent, spread, top_forward
from pipeline.figures.style import canvas, decades, styled
from pipeline.figures.words import left_out, name_of, number, outcomes, seeds_of, series_name, the
from pipeline.quantities import GridTables, mean_interval, on_schedule

MAX_DECADES = 16
"""Colours span at most as many decades below the largest norm; what is smaller is drawn as the smallest."""

_PANEL = ["arm", "quantity"]


def applies(tables: GridTables) -> bool:
    """Return whether the grid has traces of recurrent networks."""
    return not recurrent(tables.traces).is_empty()


def table(traces: pl.DataFrame) -> pl.DataFrame:
    """Return the mean over seeds of log10 ‖∂L/∂h_t‖ by arm, quantity, training step and timestep.

    Args:
        traces: Rows of the `traces` table with an `arm` beside them, of one length.
    """
    common = on_schedule(top_forward(traces), ["quantity", "timestep"])
    means = mean_interval(common, "log10_norm", [*_PANEL, "step", "timestep"])
    return means.sort("arm", "quantity", "step", "timestep")


def title(tables: GridTables) -> str:
    """Return how much less gradient the first timestep gets than the last, after training, at best and at worst."""
    drawn = table(tables.at_longest(tables.traces))
    losses = _decades_lost(drawn)
    if losses.is_empty():
        return "Inconclusive: the gradient at the first or last timestep is not finite"
    least, most = losses.row(0, named=True), losses.row(-1, named=True)
    said = _lies(least) if losses.height == 1 else f"{_lies(least)} to {_lies(most)}"
    return f"After training the first timestep's gradient lies {said} the last one's"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what became of replicas that stopped."""
    drawn = table(tables.at_longest(tables.traces))
    treatment = "they are part of the means, with their last finite weights"
    return (
        f"log10 of the Frobenius norm over the probe batch of ∂L/∂h and ∂L/∂c at timestep t, against training step, "
        f"at T = {tables.lengths[-1]} on {tables.dataset}; mean over {seeds_of(drawn)}. A replica that stopped keeps "
        f"its last measurement. Colours end {MAX_DECADES} decades below the largest norm."
        f"{chosen_told(_shown(drawn, tables.arms), tables.arms, 'decades lost at the end')}"
        f"{layer_told(tables.at_longest(tables.traces))} "
        f"{outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each arm and state, with one colour bar."""
    drawn = table(tables.at_longest(tables.traces))
    return _draw(drawn, title(tables), _shown(drawn, tables.arms))


@styled
def draw_for_setting(traces: pl.DataFrame) -> Figure:
    """Draw the same for one setting: a panel for each state (h, and c of an LSTM).

    Args:
        traces: The rows of one trial.
    """
    drawn = table(traces.with_columns(arm=pl.lit("")))
    lost = [f"{number(row['lost'], 2)} ({row['quantity']})" for row in _decades_lost(drawn).to_dicts()]
    heading = f"Decades lost from the last timestep to the first, at the end: {', '.join(lost) or 'not finite'}"
    return _draw(drawn, heading, [""])


def _shown(drawn: pl.DataFrame, arms: Sequence[str]) -> list[str]:
    """Return the arms whose panels, one a state, are few enough: of too many, spread by the decades that they lose."""
    lost = dict(_decades_lost(drawn).group_by("arm").agg(pl.col("lost").min()).iter_rows())
    values = {arm: lost.get(arm) for arm in arms if arm in drawn["arm"]}
    most = next(most for most in range(MAX_PANELS, 0, -1) if _panels(drawn, spread(values, most)) <= MAX_PANELS)
    return spread(values, most)


def _panels(drawn: pl.DataFrame, arms: Sequence[str]) -> int:
    return int(drawn.filter(pl.col("arm").is_in(arms)).select(_PANEL).n_unique())


def _draw(drawn: pl.DataFrame, heading: str, arms: Sequence[str]) -> Figure:
    drawn = drawn.filter(pl.col("arm").is_in(arms))
    panels = drawn.select(_PANEL).unique().rows()
    panels.sort(key=lambda panel: (arms.index(panel[0]), panel[1] != "h"))
    num_columns = min(2, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    figure, axes = canvas(heading, num_rows, num_columns, 0.9 + 1.75 * num_rows)
    low, high = _colour_range(drawn)
    for ax, (arm, quantity) in zip(axes.flat, panels, strict=False):
        rows = drawn.filter(pl.col("arm") == arm, pl.col("quantity") == quantity)
        _panel(ax, rows, low, high)
        ax.set_title(series_name(arm, quantity) if arm else f"∂L/∂{quantity}")
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    bar = figure.colorbar(axes[0, 0].collections[0], ax=axes, aspect=30, pad=0.015, extend="min")
    bar.outline.set_visible(False)
    bar.set_label("gradient norm")
    decades(bar.ax)
    return figure


def _panel(ax: Axes, rows: pl.DataFrame, low: float, high: float) -> None:
    wide = rows.pivot(on="timestep", index="step", values="mean", maintain_order=True).sort("step")
    grid = wide.drop("step").to_pandas().set_axis(wide["step"].to_list(), axis="index").astype(float)
    sns.heatmap(
        grid, ax=ax, cbar=False, cmap="cividis", vmin=low, vmax=high, rasterized=True, xticklabels=False, yticklabels=1
    )
    num_timesteps, num_steps = grid.shape[1], grid.shape[0]
    ticks = np.unique(np.linspace(1, num_timesteps, min(5, num_timesteps)).round().astype(int))
    ax.set_xticks(ticks - 0.5, [str(tick) for tick in ticks])
    shown = list(range(num_steps - 1, -1, -max(1, math.ceil(num_steps / 7))))
    ax.set_yticks([step + 0.5 for step in shown], [str(wide["step"][step]) for step in shown])
    ax.tick_params(axis="y", rotation=0)
    ax.invert_yaxis()
    ax.set_xlabel("timestep t")
    ax.set_ylabel("training step")


def _colour_range(drawn: pl.DataFrame) -> tuple[float, float]:
    finite = drawn["mean"].drop_nulls().to_numpy()
    if not len(finite):
        return -1.0, 0.0
    high = float(finite.max())
    return max(float(finite.min()), high - MAX_DECADES), high


def _lies(row: dict[str, Any]) -> str:
    where = "below" if row["lost"] >= 0 else "above"
    arm = the(row["arm"]) if " " in row["arm"] else name_of(row["arm"])
    return f"{number(abs(row['lost']), 2)} decades ({arm}'s {row['quantity']}) {where}"


def _decades_lost(drawn: pl.DataFrame) -> pl.DataFrame:
    """Return by arm and quantity the log10 norm at t = T less that at t = 1, at the last step, smallest first."""
    last = drawn.filter(pl.col("step") == pl.col("step").max().over(_PANEL))
    ends = (
        last.sort("timestep")
        .group_by(_PANEL, maintain_order=True)
        .agg(lost=pl.col("mean").last() - pl.col("mean").first())
    )
    return ends.drop_nulls("lost").sort("lost", "arm", "quantity")
