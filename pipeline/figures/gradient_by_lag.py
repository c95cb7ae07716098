"""How much of the gradient at the last timestep arrives k timesteps earlier, at the start and the end of training."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.style import INK, canvas, decades, label_panels, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, listed, number, outcomes, seeds_of, series_name, the
from pipeline.statistics import GridTables, decay_rates, mean_interval

STAGES = {"initialisation": "At initialisation", "end": "At the end of training"}
_SERIES = ["stage", "arm", "quantity"]


def applies(tables: GridTables) -> bool:
    """Return whether the grid has traces."""
    return not tables.traces.is_empty()


def relative_norms(tables: GridTables) -> pl.DataFrame:
    """Return log10 of ‖∂L/∂h_{T-k}‖ relative to lag 0, by stage, arm, quantity, lag and seed, at the longest length.

    The end of training is the last traced step of each replica; a replica that diverged has none. Where lag 0 is not
    finite, nothing relative to it is: such values are NaN. Of several layers the first, forward, is taken.
    """
    traces = tables.at_longest(tables.traces).filter(pl.col("layer") == 0, pl.col("direction") == "forward")
    traces = traces.with_columns(lag=pl.col("timestep").max().over("arm") - pl.col("timestep"))
    last = pl.col("step").max().over("arm", "seed")
    end = traces.filter(pl.col("step") == last, pl.col("status").is_in(["ok", "timed_out"]))
    stages = [
        traces.filter(pl.col("step") == 0).with_columns(stage=pl.lit("initialisation")),
        end.with_columns(stage=pl.lit("end")),
    ]
    reference = pl.col("log10_norm").filter(pl.col("lag") == 0).first().over("stage", "arm", "quantity", "seed")
    relative = pl.when(reference.is_finite()).then(pl.col("log10_norm") - reference).otherwise(float("nan"))
    both = pl.concat(stages).with_columns(log10_norm=relative)
    both = both.with_columns(
        rank=pl.col("arm").replace_strict(tables.arms, list(range(len(tables.arms))), return_dtype=pl.Int64),
        later=pl.col("stage") == "end",
        cell_state=pl.col("quantity") == "c",
    )
    return both.sort("later", "rank", "cell_state", "lag", "seed").select(*_SERIES, "lag", "seed", "log10_norm")


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
    end = rates(tables).filter(pl.col("stage") == "end").drop_nulls("mean").sort("mean", maintain_order=True)
    if end.is_empty():
        return "No replica finished training: only the initial gradient is known"
    falling, after = end.filter(pl.col("high") < 0), f"After training at T = {tables.lengths[-1]}"
    if falling.is_empty():
        reason = "one seed has no interval" if end["num_seeds"].max() == 1 else "every interval contains zero or growth"
        return f"{after} no cell's gradient is shown to decay with lag ({reason})"
    fast, slow = falling.row(0, named=True), falling.row(-1, named=True)
    said = f"{after} the gradient loses a factor 10 every {_per_decade(fast)} timesteps in {_state(fast)}"
    others = end.filter((pl.col("high") >= 0).fill_null(value=True))
    kept = others.filter(pl.col("low") > -_STEADY, pl.col("high") < _STEADY)
    undecided = others.join(kept, on=_SERIES, how="anti", maintain_order="left")
    if falling.height > 1:
        said = f"{said}, every {_per_decade(slow)} in {_state(slow)}"
    if not kept.is_empty():
        said = f"{said}; it keeps its size in {listed([_state(row) for row in kept.iter_rows(named=True)])}"
    if not undecided.is_empty():
        names = listed([_state(row) for row in undecided.iter_rows(named=True)])
        said = f"{said}; no decay is established in {names}"
    return said


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    treatment = "diverged and failed replicas are in the first panel only, if at all"
    return (
        f"Frobenius norm over the probe batch of ∂L/∂h (and ∂L/∂c of the LSTM) k timesteps before the last one, "
        f"relative to lag 0, at T = {tables.lengths[-1]} on {tables.dataset}; exact float64 backward pass. Lines are "
        f"means of log10 over {seeds_of(drawn)}, bands the {INTERVAL}. Factors per timestep are least-squares fits of "
        f"the log10 norm, seed by seed. Where the study selects between settings, the selected one is shown. "
        f"{outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw two panels on one log axis: at initialisation and at the end of training."""
    drawn, slopes = table(tables), rates(tables)
    figure, axes = canvas(title(tables), 1, 2, 3.5, sharey=True)
    for ax, (stage, heading) in zip(axes[0], STAGES.items(), strict=True):
        _panel(ax, drawn.filter(pl.col("stage") == stage), slopes.filter(pl.col("stage") == stage))
        ax.set_title(heading)
        ax.set_xlabel("lag k (timesteps back from the last)")
    axes[0, 0].set_ylabel("gradient norm relative to lag 0")
    bottom, top = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(bottom - 0.18 * (top - bottom), top)  # room for the legends
    label_panels(axes[0])
    decades(axes[0, 0])
    return figure


def _panel(ax: Axes, drawn: pl.DataFrame, slopes: pl.DataFrame) -> None:
    names = [_look_name(arm, quantity) for arm, quantity in slopes.select("arm", "quantity").iter_rows()]
    looks = looks_of(list(dict.fromkeys(names)))
    for row in slopes.iter_rows(named=True):
        line = drawn.filter(pl.col("arm") == row["arm"], pl.col("quantity") == row["quantity"])
        look, lags = looks[_look_name(row["arm"], row["quantity"])], line["lag"].to_numpy()
        factor = "no fit" if row["mean"] is None else f"×{10 ** row['mean']:.4f} per timestep"
        spacing = max(1, len(lags) // 6)
        ax.plot(
            lags,
            line["mean"].to_numpy(),
            **look.line,
            marker=look.marker,
            markevery=spacing,
            label=f"{series_name(row['arm'], row['quantity'])}  {factor}",
        )
        low, high = (line[side].fill_null(float("nan")).to_numpy() for side in ("low", "high"))
        ax.fill_between(lags, low, high, color=look.colour, alpha=0.18, linewidth=0)
    ax.axhline(0, color=INK, linewidth=0.6)
    if slopes.is_empty():
        ax.text(0.5, 0.5, "no replica finished", transform=ax.transAxes, ha="center")
    else:
        falls = any(slope < 0 for slope in slopes["mean"].drop_nulls())
        ax.legend(loc="lower left" if falls else "upper left")


def _look_name(arm: str, quantity: str) -> str:
    return arm if quantity == "h" else f"{arm} {quantity}"


def _state(row: dict[str, object]) -> str:
    return f"{the(str(row['arm']))}'s {row['quantity']}"


def _per_decade(row: dict[str, float]) -> str:
    return number(-1 / row["mean"], 2)
