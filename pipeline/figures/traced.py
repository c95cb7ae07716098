"""The figure of a trace of somebody's own model: norms against lag, and over backward passes as heat maps."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.frame import reach
from pipeline.figures.gradients import LAYERS, MAX_DECADES, draw_heat_map
from pipeline.figures.style import Look, canvas, decades, label_panels, styled
from pipeline.quantities.gradients import decay_rates
from pipeline.quantities.quantity import from_log10
from pipeline.quantities.words import join_first, number

_MOST = 4
"""Calls that are drawn, a row of panels each."""

_DASHES = {
    ("forward", "h"): "solid",
    ("forward", "c"): (0, (1, 1.2)),
    ("backward", "h"): (0, (4, 1.5)),
    ("backward", "c"): (0, (4, 1, 1, 1)),
}
_CALL = ["module", "call"]
_LINE = [*_CALL, "layer", "direction", "state"]


@styled
def draw_traces(table: pl.DataFrame) -> Figure:
    """Return the norms against lag of the newest backward pass, a panel per module and call.

    Where a call is in several passes, a heat map of them stands beside it: of the last layer's state that reaches
    furthest, forward in time.

    Args:
        table: Columns `backward`, `call`, `module`, `layer`, `direction`, `state`, `timestep`, `lag` and `log10_norm`.
    """
    if "example" in table.columns:  # what is drawn is of all examples together
        squares = (10.0 ** (2 * (pl.col("log10_norm") - pl.col("log10_norm").max()))).sum().log10() / 2
        summed = pl.when(pl.col("log10_norm").max().is_finite()).then(squares + pl.col("log10_norm").max())
        own = ["backward", *_LINE, "lag"]
        norms = summed.otherwise(pl.col("log10_norm").max()).alias("log10_norm")
        table = table.group_by(own, maintain_order=True).agg(pl.col("timestep").max(), norms)
    newest = table.filter(pl.col("backward") == pl.col("backward").max()).sort(_LINE)
    fits = decay_rates(newest.with_columns(seed=pl.lit(0), value="log10_norm"), _LINE)
    calls = newest.select(_CALL).unique(maintain_order=True)
    shown = calls.head(_MOST)
    histories = [_history(table.join(shown[row], on=_CALL)) for row in range(len(shown))]
    is_history = any(history["backward"].n_unique() > 1 for history in histories)
    num_rows = len(shown)
    figure, axes = canvas(_finding(fits, len(calls)), num_rows, 2 if is_history else 1, 0.6 + 2.1 * num_rows)
    ends = reach(pl.concat(histories)["log10_norm"], MAX_DECADES)
    for row, (module, call) in enumerate(shown.rows()):
        mine = shown[row]
        _draw_lines(axes[row, 0], newest.join(mine, on=_CALL), fits.join(mine, on=_CALL), beside=not is_history)
        is_one = calls.filter(module=module).height == 1
        axes[row, 0].set_title(module if is_one else f"{module}, call {call}")
        if is_history:
            history = histories[row]
            place = history.row(0, named=True)
            draw_heat_map(axes[row, 1], history.rename({"backward": "step", "log10_norm": "mean"}), ends, num_ticks=4)
            axes[row, 1].set(ylabel="backward pass", title=f"layer {place['layer'] + 1}, {place['state']}")
    if is_history:
        bar = figure.colorbar(axes[0, 1].collections[0], ax=axes[:, 1], aspect=30, pad=0.015, extend="min")
        bar.outline.set_visible(False)
        decades(bar.ax)
    label_panels(list(axes.flat))
    return figure


def _history(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the last layer, forward in time, of the last of its states: the cell state if it has one."""
    rows = rows.filter(pl.col("layer") == pl.col("layer").max(), direction="forward")
    return rows.filter(pl.col("state") == pl.col("state").min()).sort("backward", "timestep")  # c before h


def _draw_lines(ax: Axes, rows: pl.DataFrame, fits: pl.DataFrame, *, beside: bool) -> None:
    for layer, direction, state, slope in fits.select("layer", "direction", "state", "slope").iter_rows():
        line = rows.filter(layer=layer, direction=direction, state=state).sort("lag")
        colour, marker = LAYERS[layer % len(LAYERS)]
        look = Look(colour, _DASHES[direction, state], marker)
        factor = "" if slope is None else f"  ×{from_log10(slope):.3f}"
        label = f"layer {layer + 1}{', backward' if direction == 'backward' else ''}, {state}{factor}"
        known = line.filter(pl.col("log10_norm").is_finite())
        every = max(1, len(known) // 12)
        ax.plot(known["lag"], known["log10_norm"], **look.line, marker=look.marker, markevery=every, label=label)
    decades(ax)
    ax.legend(**({"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if beside else {"loc": "best"}))
    ax.set(xlabel="lag k (timesteps before the last one)", ylabel="gradient norm")


def _finding(fits: pl.DataFrame, num_calls: int) -> str:
    """Return the factor per timestep where the gradient falls fastest and slowest."""
    known = fits.drop_nulls("slope").sort("slope", *_LINE)
    if known.is_empty():
        return "The gradient by timestep"
    is_deep = known["layer"].n_unique() > 1

    def said(row: dict[str, object]) -> str:
        where = f" of layer {int(str(row['layer'])) + 1}" if is_deep else ""
        return f"{number(from_log10(float(str(row['slope']))), 3)} in {row['module']}'s {row['state']}{where}"

    ends = [known.row(0, named=True), known.row(-1, named=True)][: known.height]
    more = f" ({num_calls - _MOST} more calls are in the table)" if num_calls > _MOST else ""
    return f"Per timestep of lag the gradient changes by a factor {join_first([said(row) for row in ends])}{more}"
