"""What k timesteps do to a perturbation: the singular values of ∂s_T/∂s_{T-k} against k, before and after training."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.stages import STAGES, blocks, interval, layer_told, ranked, staged, top_forward
from pipeline.figures.style import (
    FAINT,
    INK,
    Look,
    banded,
    canvas,
    decades,
    handle_of,
    label_panels,
    legend_below,
    looks_of,
    styled,
)
from pipeline.figures.words import INTERVAL, count, few, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval

QUANTITIES = {"largest": "Largest", "median": "Median", "smallest": "Smallest"}
_BOUND = Look(INK, (0, (1, 1.5)), "")


def applies(tables: GridTables) -> bool:
    """Return whether the Jacobians of several timesteps were measured."""
    return not _rows(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds of log10 of each quantity with its interval, by stage, arm, quantity and lag.

    A value of exactly zero (-inf) or NaN is in no mean and counted in `num_nonfinite`.
    """
    keys = ["stage", "arm", "quantity", "lag"]
    return mean_interval(_rows(tables), "log10_value", keys).sort(
        pl.col("stage") == "end", ranked(tables.arms), "quantity", "lag"
    )


def bounds(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds of k log10 σ_max(W_hh) by stage, arm and lag: no singular value can lie above it.

    It is known where σ_max was measured at the very step, and holds for cells with one block, gate h, and abs φ' ≤ 1.
    """
    sigma = top_forward(blocks(tables.at_longest(tables.curves), ["sigma_max"])).filter(gate="h")
    rows = _rows(tables).filter(quantity="largest")
    known = rows.join(sigma.select("arm", "seed", "step", sigma="value"), on=["arm", "seed", "step"])
    known = known.with_columns(log10_bound=pl.col("lag") * pl.col("sigma").log10())
    return mean_interval(known, "log10_bound", ["stage", "arm", "lag"]).sort("stage", ranked(tables.arms), "lag")


def conditions(tables: GridTables) -> pl.DataFrame:
    """Return log10 of the condition number at the longest lag at the end: mean over seeds with its interval, by arm."""
    last = table(tables).filter(pl.col("stage") == "end", pl.col("quantity") == "condition")
    return last.filter(pl.col("lag") == pl.col("lag").max().over("arm"))


def title(tables: GridTables) -> str:
    """Return what the largest singular value does with lag after training: shrinks, grows, or is undecided, by arm."""
    end = table(tables).filter(pl.col("stage") == "end", pl.col("quantity") == "largest")
    last = end.filter(pl.col("lag") == pl.col("lag").max().over("arm")).drop_nulls("mean")
    if last.is_empty():
        return "Inconclusive: no finite Jacobian at the end of training"
    lag = int(last["lag"].to_numpy().max())
    verdicts: dict[str, list[str]] = {"shrinks": [], "grows": [], "is not shown to shrink or grow": []}
    for row in last.iter_rows(named=True):
        verdicts[_verdict(row)].append(the(row["arm"]))
    parts = [f"{verdict} in {few(arms, 3 if last.height <= 4 else 2)}" for verdict, arms in verdicts.items() if arms]
    return f"Over {count(lag, 'timestep')} after training the largest singular value {', '.join(parts)}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, the condition numbers, and what is left out."""
    drawn = table(tables).filter(pl.col("quantity") != "condition")
    rows = _rows(tables).filter(pl.col("quantity") != "condition")
    zeros = rows.filter(pl.col("log10_value") == float("-inf")).height
    others = rows.filter(pl.col("log10_value").is_finite().not_()).height - zeros
    zero = f" {count(zeros, 'singular value')} of exactly zero left out of means." if zeros else ""
    zero += f" {count(others, 'value')} that are NaN or infinite left out." if others else ""
    known = conditions(tables).drop_nulls("mean").sort("mean", maintain_order=True)
    ends = known.iter_rows(named=True) if known.height <= 4 else (known.row(i, named=True) for i in (0, -1))
    worst = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in ends)
    condition = f" log10 of the condition number at the longest lag, after training: {worst}." if worst else ""
    bound = " Dotted: k log10 σ_max(W_hh), which the largest cannot exceed." if not bounds(tables).is_empty() else ""
    return (
        f"Singular values of the Jacobian of the whole state over k timesteps, on the probe batch, "
        f"at T = {tables.lengths[-1]} on {tables.dataset}: mean over {seeds_of(drawn)} with {INTERVAL}.{bound}"
        f"{condition}{zero}{layer_told(tables.at_longest(tables.jacobians))} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed replicas have no end of training')}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a row for each stage, and the largest, median and smallest singular value beside one another."""
    drawn, limits, looks = table(tables), bounds(tables), looks_of(tables.arms)
    stages = [stage for stage in STAGES if stage in drawn["stage"]]
    figure, axes = canvas(title(tables), len(stages), 3, 0.7 + 2.0 * len(stages), sharex=True, sharey="col")
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    shade = 0.18 if len(arms) <= 4 else 0.07
    for row, stage in zip(axes, stages, strict=True):
        for ax, (quantity, told) in zip(row, QUANTITIES.items(), strict=True):
            for arm in arms:
                line = drawn.filter(stage=stage, quantity=quantity, arm=arm)
                if not line.is_empty():
                    banded(ax, "lag", line, looks[arm], shade=shade, markersize=3)
                bound = limits.filter(stage=stage, arm=arm)
                if quantity == "largest" and not bound.is_empty():
                    ax.plot(bound["lag"], bound["mean"], **_BOUND.line | {"color": looks[arm].colour}, linewidth=1.0)
            ax.axhline(0, color=INK, linewidth=0.6)
            ax.set_title(f"{told}, {'start' if stage == 'initialisation' else 'end'}")
        row[0].set_ylabel("singular value")
    for ax in axes[-1]:
        ax.set_xlabel("lag k (timesteps)")
    for ax, quantity in zip(axes[0], QUANTITIES, strict=True):
        of_largest = limits if quantity == "largest" else limits.clear()
        ax.set_ylim(*_reach(drawn.filter(pl.col("quantity") == quantity), of_largest))
        decades(ax)
    handles, names = [handle_of(looks[arm]) for arm in arms], [name_of(arm) for arm in arms]
    if not limits.is_empty():
        handles.append(handle_of(Look(FAINT, _BOUND.dashes, "")))
        names.append("bound k log σ_max(W_hh)")
    legend_below(figure, handles, names)
    label_panels(list(axes.flat))
    return figure


def _rows(tables: GridTables) -> pl.DataFrame:
    return staged(top_forward(tables.at_longest(tables.jacobians)))


def _reach(drawn: pl.DataFrame, limits: pl.DataFrame) -> tuple[float, float]:
    """Return the limits of a vertical axis: all means, and of the bounds no more than a fifth of their range above."""
    means = drawn["mean"].drop_nulls().to_numpy()
    low, high = (float(means.min()), float(means.max())) if len(means) else (-1.0, 1.0)
    bound = max((value for value in limits["mean"].drop_nulls()), default=0.0)
    margin = 0.08 * max(1.0, high - low)
    return low - margin, max(0.0, high, min(bound, max(0.0, high) + 0.2 * (high - low))) + margin


def _verdict(row: dict[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    if high is not None and high < 0:
        return "shrinks"
    return "grows" if low is not None and low > 0 else "is not shown to shrink or grow"
