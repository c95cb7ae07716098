"""The Lyapunov spectrum: which directions of the state contract, which expand, and whether the estimate converged."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import STAGES, interval, layer_told, ranked, staged, top_forward
from pipeline.figures.style import INK, banded, canvas, handle_of, label_panels, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval

LOWEST = -5.0
"""Exponents below are cut off: what shrinks by e⁵ a timestep is gone after a few."""

_VALUE = "lyapunov_nats_per_timestep"


def applies(tables: GridTables) -> bool:
    """Return whether exponents were measured."""
    return not _rows(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the spectrum: mean exponent over seeds with its interval, by stage, arm and index, from all timesteps.

    `standard_error` is the root mean square over seeds of each estimate's own; `index` counts from 1.
    """
    rows = _rows(tables)
    rows = rows.filter(pl.col("timestep") == pl.col("timestep").max().over("arm", "seed", "stage"))
    keys = ["stage", "arm", "index"]
    errors = rows.group_by(keys).agg(standard_error=(pl.col("standard_error") ** 2).mean().sqrt())
    means = mean_interval(rows, _VALUE, keys).join(errors, on=keys, how="left")
    return means.sort(pl.col("stage") == "end", ranked(tables.arms), "index")


def convergence(tables: GridTables) -> pl.DataFrame:
    """Return the largest exponent as estimated from the first t timesteps: mean over seeds by stage, arm, timestep."""
    first = _rows(tables).filter(pl.col("index") == 1)
    means = mean_interval(first, _VALUE, ["stage", "arm", "timestep"])
    return means.sort(pl.col("stage") == "end", ranked(tables.arms), "timestep")


def title(tables: GridTables) -> str:
    """Return the sign of the largest exponent after training, by arm, where its whole interval has one."""
    largest = table(tables).filter(stage="end", index=1).drop_nulls("mean")
    if largest.is_empty():
        return "Inconclusive: no exponent is known at the end of training"
    signs: dict[str, list[str]] = {"negative": [], "positive": [], "of undecided sign": []}
    for row in largest.iter_rows(named=True):
        known = row["low"] is not None
        sign = "negative" if known and row["high"] < 0 else "positive" if known and row["low"] > 0 else ""
        shown = f"{the(row['arm'])} ({number(row['mean'], 2)})" if largest.height <= 4 else the(row["arm"])
        signs[sign or "of undecided sign"].append(shown)
    parts = [f"{sign} in {few(arms, 3 if largest.height <= 4 else 2)}" for sign, arms in signs.items() if arms]
    return f"After training the largest Lyapunov exponent is {', '.join(parts)}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and how far the estimates moved at the end."""
    drawn = table(tables)
    largest = drawn.filter(stage="end", index=1).drop_nulls("mean").sort("mean", maintain_order=True)
    listed = largest if largest.height <= 4 else pl.concat([largest.head(1), largest.tail(1)])
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in listed.iter_rows(named=True))
    end = f" Largest exponent after training: {told} nats per timestep." if told else ""
    return (
        f"Above: Lyapunov exponents in nats per timestep by falling size, along sequences of {tables.dataset} "
        f"(T = {tables.lengths[-1]}): means over {seeds_of(drawn)}, bands the {INTERVAL}, bars the standard error of "
        f"an estimate. Below: the largest exponent as estimated from the first t timesteps. Zero is the line between "
        f"contraction and expansion; what lies below {LOWEST:g} is cut off.{end}"
        f"{layer_told(tables.at_longest(tables.lyapunov))} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones have no end of training')}"
        f"{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a column for each stage: the spectrum, and below it the convergence of the largest exponent."""
    drawn, traces, looks = table(tables), convergence(tables), looks_of(tables.arms)
    stages = [stage for stage in STAGES if stage in drawn["stage"]]
    figure, axes = canvas(title(tables), 2, len(stages), 4.4, sharey="row")
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    shade = 0.18 if len(arms) <= 4 else 0.07
    for (above, below), stage in zip(axes.T, stages, strict=True):
        for arm in arms:
            spectrum, trace = (frame.filter(stage=stage, arm=arm) for frame in (drawn, traces))
            if spectrum.is_empty():
                continue
            banded(above, "index", spectrum, looks[arm], shade=shade, markersize=3)
            bars = spectrum.select("index", "mean", "standard_error").drop_nulls()
            above.errorbar(
                *bars["index", "mean"].iter_columns(),
                bars["standard_error"],
                color=looks[arm].colour,
                fmt="none",
                elinewidth=0.7,
            )
            banded(below, "timestep", trace, looks[arm], shade=shade, markersize=3)
        above.set_title(STAGES[stage])
        above.set_xlabel("index of the exponent")
        below.set_title("Largest exponent")
        below.set_xlabel("timesteps used t")
        _zero(above)
        _zero(below)
    _limit(axes[0, 0], drawn)
    _limit(axes[1, 0], traces)
    axes[0, 0].set_ylabel("nats per timestep")
    axes[1, 0].set_ylabel("nats per timestep")
    legend_below(figure, [handle_of(looks[arm]) for arm in arms], [name_of(arm) for arm in arms])
    label_panels(list(axes.flat))
    return figure


def _limit(ax: Axes, drawn: pl.DataFrame) -> None:
    """Show the means of exponents that do not lie below `LOWEST`, and zero."""
    means = drawn["mean"].drop_nulls().to_numpy()
    low, high = max(LOWEST, min(means.min(initial=0.0), 0.0)), max(means.max(initial=0.0), 0.0)
    margin = 0.08 * max(high - low, 0.1)
    ax.set_ylim(low - margin, high + margin)


def _zero(ax: Axes) -> None:
    ax.axhline(0, color=INK, linewidth=0.8)


def _rows(tables: GridTables) -> pl.DataFrame:
    rows = staged(top_forward(tables.at_longest(tables.lyapunov)))
    return rows.with_columns(index=pl.col("index") - pl.col("index").min() + 1)
