"""How much of the gradient at the last timestep arrives k timesteps earlier, at the start and the end of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import STAGES, layer_told, ranked, recurrent, staged, top_forward
from pipeline.figures.style import (
    INK,
    Look,
    banded,
    canvas,
    decades,
    handle_of,
    label_panels,
    legend_below,
    looks_of,
    state_looks,
    styled,
)
from pipeline.figures.words import INTERVAL, few, left_out, number, outcomes, seeds_of, series_name, the
from pipeline.quantities import GridTables, decay_rates, mean_interval

MAX_INSIDE = 4
MAX_LETTERS = 18
"""More series than these, or longer names, have one legend below the panels, for both stages."""

MAX_SERIES = 8
"""Where there would be more, each arm is drawn by one state: c where it has one, else h."""

_SERIES = ["stage", "arm", "quantity"]


def applies(tables: GridTables) -> bool:
    """Return whether the grid has traces of recurrent networks."""
    return not recurrent(tables.traces).is_empty()


def relative_norms(tables: GridTables) -> pl.DataFrame:
    """Return `relative_to_last` of recurrent networks at the longest length.

    Of several layers the last, forward in time, is taken.
    """
    return relative_to_last(top_forward(tables.at_longest(tables.traces)), tables.arms)


def relative_to_last(traces: pl.DataFrame, arms: Sequence[str]) -> pl.DataFrame:
    """Return log10 of ‖∂L/∂h_{T-k}‖ relative to lag 0, by stage, arm, quantity, lag k and seed.

    The end of training is the last traced step of each replica; a replica that diverged has none. Where lag 0 is not
    finite, nothing relative to it is: such values are NaN.

    Args:
        traces: Of one length and place.
        arms: In the order in which they come.
    """
    both = staged(traces.with_columns(lag=pl.col("timestep").max().over("arm") - pl.col("timestep")))
    reference = pl.col("log10_norm").filter(pl.col("lag") == 0).first().over("stage", "arm", "quantity", "seed")
    relative = pl.when(reference.is_finite()).then(pl.col("log10_norm") - reference).otherwise(float("nan"))
    both = both.with_columns(log10_norm=relative)
    order = [pl.col("stage") == "end", ranked(arms), pl.col("quantity") == "c", pl.col("lag"), pl.col("seed")]
    return both.sort(*order).select(*_SERIES, "lag", "seed", "log10_norm")


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: mean over seeds of the relative log10 norm with its interval, by series and lag."""
    return mean_interval(relative_norms(tables), "log10_norm", [*_SERIES, "lag"])


def rates(tables: GridTables) -> pl.DataFrame:
    """Return the mean slope over seeds, in decades per timestep, with its interval, by series."""
    return mean_interval(decay_rates(relative_norms(tables), _SERIES), "slope", _SERIES)


_STEADY = -math.log10(0.99)
"""A slope in decades per timestep below which, with its whole interval, the gradient keeps its size to 1 %."""


def title(tables: GridTables) -> str:
    """Return how fast the gradient falls after training: where fastest, and where slowest or not at all."""
    end = (
        drawn_series(rates(tables))
        .filter(pl.col("stage") == "end")
        .drop_nulls("mean")
        .sort("mean", maintain_order=True)
    )
    if end.is_empty():
        return "No replica finished training: only the initial gradient is known"
    falling, after = end.filter(pl.col("high") < 0), f"After training at T = {tables.lengths[-1]}"
    if falling.is_empty():
        reason = "one seed has no interval" if end["num_seeds"].max() == 1 else "every interval contains zero or growth"
        return f"{after} no gradient is shown to decay with lag ({reason})"
    fast, slow = falling.row(0, named=True), falling.row(-1, named=True)
    said = f"{after} the gradient loses a factor 10 every {_per_decade(fast)} timesteps in {_state(fast)}"
    others = end.filter((pl.col("high") >= 0).fill_null(value=True))
    kept = others.filter(pl.col("low") > -_STEADY, pl.col("high") < _STEADY)
    undecided = others.join(kept, on=_SERIES, how="anti", maintain_order="left")
    if falling.height > 1:
        said = f"{said}, every {_per_decade(slow)} in {_state(slow)}"
    if not kept.is_empty():
        said = f"{said}; it keeps its size in {few([_state(row) for row in kept.iter_rows(named=True)])}"
    if not undecided.is_empty():
        names = few([_state(row) for row in undecided.iter_rows(named=True)])
        said = f"{said}; no decay is established in {names}"
    return said


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    treatment = "diverged and failed replicas are in the first panel only, if at all"
    shown = drawn_series(rates(tables))
    one = " Each arm is drawn by one state." if shown.height < rates(tables).height else ""
    return (
        f"Frobenius norm over the probe batch of ∂L/∂h (and ∂L/∂c of the LSTM) k timesteps before the last one, "
        f"relative to lag 0, at T = {tables.lengths[-1]} on {tables.dataset}; exact float64 backward pass. Lines are "
        f"means of log10 over {seeds_of(drawn)}, bands the {INTERVAL}. Factors per timestep are least-squares fits of "
        f"the log10 norm, seed by seed. Where the study selects between settings, the selected one is shown."
        f"{one}{layer_told(tables.at_longest(tables.traces))} "
        f"{outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


def drawn_series(slopes: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `rates` that are drawn: all, or of too many the cell state of each arm that has one."""
    if slopes.select("arm", "quantity").n_unique() <= MAX_SERIES:
        return slopes
    return slopes.filter((pl.col("quantity") == "c") | (pl.col("quantity") == "c").any().over("arm").not_())


@styled
def draw(tables: GridTables) -> Figure:
    """Draw two panels on one log axis: at initialisation and at the end of training."""
    drawn, slopes = table(tables), drawn_series(rates(tables))
    figure, axes = canvas(title(tables), 1, 2, 3.5, sharey=True)
    inside = _fits_inside(slopes)
    for ax, (stage, heading) in zip(axes[0], STAGES.items(), strict=True):
        mine = slopes.filter(pl.col("stage") == stage)
        _panel(ax, tables, drawn.filter(pl.col("stage") == stage), mine)
        if inside and not mine.is_empty():
            ax.legend(loc="lower left")
        ax.set_title(heading)
        ax.set_xlabel("lag k (timesteps back from the last)")
    axes[0, 0].set_ylabel("gradient norm relative to lag 0")
    if inside:
        bottom, top = axes[0, 0].get_ylim()
        axes[0, 0].set_ylim(bottom - 0.18 * (top - bottom), top)  # room for the legends
    else:
        _legend_of_both(figure, tables, slopes)
    label_panels(axes[0])
    decades(axes[0, 0])
    return figure


def _fits_inside(slopes: pl.DataFrame) -> bool:
    """Return whether each panel has room for a legend: few series of short names, and below a gradient that falls."""
    names = [series_name(arm, quantity) for arm, quantity in slopes.select("arm", "quantity").unique().iter_rows()]
    falls = slopes.group_by("stage").agg((pl.col("mean") < 0).any())["mean"]
    return len(names) <= MAX_INSIDE and max(map(len, names), default=0) <= MAX_LETTERS and bool(falls.all())


def _panel(ax: Axes, tables: GridTables, drawn: pl.DataFrame, slopes: pl.DataFrame) -> None:
    looks, shade = _looks(tables), 0.18 if slopes.height <= MAX_INSIDE else 0.08
    for row in slopes.iter_rows(named=True):
        line = drawn.filter(pl.col("arm") == row["arm"], pl.col("quantity") == row["quantity"])
        label = f"{series_name(row['arm'], row['quantity'])}  {_factor(row['mean'], 4)} per timestep"
        banded(ax, "lag", line, looks[row["arm"], row["quantity"]], shade=shade, label=label)
    ax.axhline(0, color=INK, linewidth=0.6)
    if slopes.is_empty():
        ax.text(0.5, 0.5, "no replica finished", transform=ax.transAxes, ha="center")


def _legend_of_both(figure: Figure, tables: GridTables, slopes: pl.DataFrame) -> None:
    """Name each series with its factors per timestep at initialisation and at the end."""
    looks, handles, labels = _looks(tables), [], []
    for arm, quantity in slopes.select("arm", "quantity").unique(maintain_order=True).iter_rows():
        mine = dict(slopes.filter(arm=arm, quantity=quantity).select("stage", "mean").iter_rows())
        handles.append(handle_of(looks[arm, quantity]))
        both = " → ".join(_factor(mine.get(stage), 3) for stage in STAGES)
        labels.append(f"{series_name(arm, quantity)}  {both}")
    legend_below(figure, handles, labels)


def _looks(tables: GridTables) -> dict[tuple[str, str], Look]:
    """Return the look of each series; where each arm is drawn by one state, that of the arm."""
    slopes = rates(tables)
    if drawn_series(slopes).height == slopes.height:
        return state_looks(tables.arms)
    return {(arm, state): look for arm, look in looks_of(tables.arms).items() for state in "hc"}


def _factor(slope: float | None, places: int) -> str:
    return "no fit" if slope is None else f"×{10**slope:.{places}f}"


def _state(row: dict[str, object]) -> str:
    return f"{the(str(row['arm']))}'s {row['quantity']}"


def _per_decade(row: dict[str, float]) -> str:
    return number(-1 / row["mean"], 2)
