"""What truncation saves and what it costs: test loss, time of a step and what is kept against the backward length."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.figures.style import Look, canvas, handle_of, label_panels, legend_below, looks_of, styled, with_room
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of
from pipeline.quantities import GridTables, mean_interval, paired_difference
from pipeline.results import FINISHED

LENGTH = "training.truncation.backward_length"
_UNITS = {"loss": "test loss", "step_time_s": "time of a step (ms)", "activation_bytes": "memory kept (MiB)"}
_SCALE = {"step_time_s": 1e3, "activation_bytes": 2.0**-20}


def applies(tables: GridTables) -> bool:
    """Return whether the arms differ in their backward length."""
    return LENGTH in tables.runs.columns and tables.runs[LENGTH].n_unique() > 1


def table(tables: GridTables) -> pl.DataFrame:
    """Return loss, time of a step and memory by series and backward length, at the longest sequence length.

    Full backpropagation stands at the length of the sequence, with `full`. The loss is the mean over seeds with its
    interval, a perplexity where there are classes; replicas that diverged are in no mean. All seeds of a setting share
    one clock and one size, so those are one measurement: `num_seeds` 1, no interval. Columns `quantity` (`loss`,
    `step_time_s` in ms, `activation_bytes` in MiB), `series`, `backward_length`, `full`, `mean`, `low`, `high`,
    `num_seeds`, ….
    """
    keys = ["quantity", "series", "backward_length", "full"]
    long = _rows(tables).unpivot(
        on=list(_UNITS), index=["series", "backward_length", "full", "seed"], variable_name="quantity"
    )
    shared = pl.col("quantity") != "loss"
    one = long.filter(shared).group_by(keys, maintain_order=True).agg(pl.col("seed").min(), pl.col("value").median())
    rows = pl.concat([long.filter(~shared), one.select(long.columns)])
    factor = pl.col("quantity").replace_strict(_SCALE, default=1.0, return_dtype=pl.Float64)
    means = mean_interval(rows.with_columns(pl.col("value") * factor), "value", keys)
    return means.sort("quantity", "series", "backward_length", "full")


def title(tables: GridTables) -> str:
    """Return what the shortest truncation that is not shown to be worse than the full one saves in time."""
    rows = _rows(tables)
    if rows.is_empty():
        return "Inconclusive: no replica finished training"
    said = []
    for series in rows["series"].unique(maintain_order=True):
        mine = rows.filter(pl.col("series") == series)
        said.append((series, _finding(mine, _loss_name(tables), full_was_run=_has_full(tables))))
    if len(said) == 1:
        return f"{said[0][1][0].upper()}{said[0][1][1:]}"
    return "; ".join(f"{name_of(series)}: {finding}" for series, finding in said[:2])


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and how full backpropagation is marked."""
    drawn = table(tables)
    T = tables.lengths[-1]
    has_full = bool(drawn["full"].any())
    full = f" Full backpropagation stands at the sequence length {T}, hollow and marked «full»." if has_full else ""
    return (
        f"Against the backward length in timesteps, at T = {T} on {tables.dataset}: test {_loss_name(tables)} at "
        f"each replica's best validation step, means over {seeds_of(drawn.filter(quantity='loss'))} with {INTERVAL}, "
        f"faint points are seeds; time of a step of the pack, on the machine that ran it, and what one replica keeps "
        f"for the way back, one measurement a setting.{full} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are in no mean')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw three panels over one axis of backward lengths."""
    drawn, rows = table(tables), _rows(tables)
    series = list(rows["series"].unique(maintain_order=True))
    looks = looks_of(series)
    figure, axes = canvas(title(tables), 1, 3, 2.9, sharex=True)
    for ax, (quantity, told) in zip(axes[0], _UNITS.items(), strict=True):
        for name in series:
            mine = drawn.filter(quantity=quantity, series=name)
            if quantity == "loss":
                cloud = rows.filter(pl.col("series") == name)
                style: dict[str, Any] = {"s": 9, "color": looks[name].colour, "alpha": 0.4, "linewidth": 0}
                ax.scatter(cloud["backward_length"], cloud["loss"], **style)
            _line(ax, mine, looks[name])
        ax.set_title(f"Test {_loss_name(tables)}" if quantity == "loss" else told.split(" (")[0].capitalize())
        ax.set_ylabel(_loss_unit(tables) if quantity == "loss" else told.split("(")[1].rstrip(")"))
        ax.set_xlabel("backward length")
        if quantity != "loss":
            ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
        if rows.is_empty():
            ax.text(0.5, 0.5, "no replica finished", transform=ax.transAxes, ha="center")
            ax.set(xticks=[], yticks=[])
    if not rows.is_empty():
        _ticks(axes[0, 0], drawn)
    if len(series) > 1:
        legend_below(figure, [handle_of(looks[name]) for name in series], [name_of(name) for name in series])
    label_panels(axes[0])
    return figure


def _line(ax: Axes, rows: pl.DataFrame, look: Look) -> None:
    known = rows.drop_nulls("mean")
    x, y = known["backward_length"].to_numpy(), known["mean"].to_numpy()
    low, high = (known["mean"] - known["low"]).fill_null(np.nan), (known["high"] - known["mean"]).fill_null(np.nan)
    bars = np.clip(np.array([low.to_numpy(), high.to_numpy()]), 0.0, None)
    ax.errorbar(x, y, bars, **look.line, marker=look.marker, markersize=4.5, capsize=2.5, elinewidth=1.0)
    full = known.filter("full")
    style: dict[str, Any] = {
        "marker": look.marker,
        "markersize": 6.5,
        "markerfacecolor": "white",
        "linestyle": "none",
        "zorder": 5,
    }
    ax.plot(full["backward_length"], full["mean"], color=look.colour, **style)


def _ticks(ax: Axes, drawn: pl.DataFrame) -> None:
    """Label every length that has room on the logarithmic axis; the full one by its name."""
    lengths = drawn["backward_length"].unique().sort().to_list()
    full = set(drawn.filter("full")["backward_length"])
    kept = with_room(lengths, 0.16)
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.set_xticks(kept, [f"full\n({length})" if length in full else str(length) for length in kept])
    ax.set_xlim(min(lengths) / 1.2, max(lengths) * 1.2)


def _rows(tables: GridTables) -> pl.DataFrame:
    """Return the replicas that did not diverge, with their series, `backward_length`, `full` and `loss`."""
    runs = tables.at_longest(tables.runs).filter(pl.col("status").is_in(FINISHED))
    runs = runs.with_columns(
        full=pl.col(LENGTH).is_null(), backward_length=pl.col(LENGTH).fill_null(tables.lengths[-1])
    )
    arms = runs.group_by("model.cell", "backward_length", "full").agg(num_arms=pl.col("arm").n_unique())
    alone = bool((arms["num_arms"] == 1).all())
    loss = pl.col("test_loss").exp() if _is_perplexity(tables) else pl.col("test_loss")
    series = pl.col("model.cell" if alone else "arm")
    return runs.with_columns(series=series, loss=loss, activation_bytes=pl.col("activation_bytes").cast(pl.Float64))


def _has_full(tables: GridTables) -> bool:
    """Return whether full backpropagation was run at the longest length, however it ended."""
    return bool(tables.at_longest(tables.runs)[LENGTH].is_null().any())


def _finding(rows: pl.DataFrame, loss: str, *, full_was_run: bool) -> str:
    full = rows.filter("full")
    lengths = rows.filter(pl.col("full").not_())["backward_length"].unique().sort().to_list()
    if not lengths:
        return "no truncated replica finished: full backpropagation has nothing beside it"
    if full.is_empty():
        means = rows.group_by("backward_length").agg(pl.col("loss").mean()).sort("loss")
        missing = "did not finish" if full_was_run else "was not run"
        best = means["backward_length"][0]
        return f"lowest mean test {loss} at a backward length of {best}; full backpropagation {missing}"
    sides = rows.with_columns(
        side=pl.when("full").then(pl.lit("full")).otherwise(pl.col("backward_length").cast(pl.String))
    )
    worse: list[int] = []
    not_worse: list[int] = []
    for length in lengths:
        difference = paired_difference(sides, "loss", "side", str(length), "full").row(0, named=True)
        if difference["low"] is None:
            return "one pair of seeds, no interval: the cost of truncation is not established"
        (worse if difference["low"] > 0 else not_worse).append(length)
    if not not_worse:
        still = f"a backward length of {lengths[-1]} is still worse than full backpropagation"
        return f"every truncation costs test {loss}: {still}"
    best = not_worse[0]
    times = [_median(rows.filter(pl.col("backward_length") == best, pl.col("full").not_())), _median(full)]
    ratio = f" and takes {100 * times[0] / times[1]:.0f} % of its time a step" if times[0] and times[1] else ""
    shorter = f"; one of {worse[-1]} is worse" if worse and worse[-1] < best else ""
    return f"a backward length of {best} is not shown to be worse than full backpropagation{ratio}{shorter}"


def _median(rows: pl.DataFrame) -> float:
    """Return the median time of a step, 0 where none is known."""
    known = rows["step_time_s"].drop_nulls().to_numpy()
    return float(np.median(known)) if len(known) else 0.0


def _is_perplexity(tables: GridTables) -> bool:
    return bool(tables.runs["test_error"].is_not_null().any())


def _loss_name(tables: GridTables) -> str:
    return "perplexity" if _is_perplexity(tables) else "loss"


def _loss_unit(tables: GridTables) -> str:
    return "perplexity" if _is_perplexity(tables) else "loss"
