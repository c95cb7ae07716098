"""Arms side by side: how far the gradient reaches before and after training, what came of it, what a step costs."""

from __future__ import annotations

import polars as pl

from pipeline.figures.findings import STEADY, by_sign
from pipeline.figures.frame import Axis, Dots, View
from pipeline.figures.gradients import ONLY_INITIAL
from pipeline.figures.outcomes import baseline_line
from pipeline.figures.style import FAINT, Look
from pipeline.quantities import Grid
from pipeline.quantities.gradients import decay_factor
from pipeline.quantities.outcomes import solved, step_times, test_loss
from pipeline.quantities.quantity import from_log10
from pipeline.quantities.words import count, name_of

_STAGES = {
    "initialisation": ("at initialisation", Look(FAINT, "none", "o")),
    "end": ("at the end of training", Look("#12416e", "none", "D")),
}


def _rows(grid: Grid) -> pl.DataFrame:
    """Return log10 of the factor of ∂L/∂h per timestep of lag, by stage, and log10 of the test loss."""
    factors = decay_factor.of(grid).filter(state="h").with_columns(panel=pl.lit("factor"))
    losses = test_loss.of(grid).with_columns(panel=pl.lit("loss"), stage=pl.lit(""))
    columns = ["panel", "stage", "arm", "seed", "value"]
    return pl.concat([factors.select(columns), losses.select(columns)])


def _means(view: View) -> pl.DataFrame:
    """Return those, the share of seeds that reached the criterion, and log10 of the milliseconds of a step."""
    quantities = {"factor": decay_factor, "loss": test_loss}
    means = pl.concat(
        quantity.summary(view.rows.filter(panel=panel), view.frame.keys) for panel, quantity in quantities.items()
    )
    steps = step_times(view.grid).with_columns(pl.col("mean", "low", "high").log10() + 3.0, panel=pl.lit("time"))
    parts = [steps, solved.means(view.grid).with_columns(panel=pl.lit("solved"))]
    return pl.concat([means, *(part.with_columns(stage=pl.lit("")).select(means.columns) for part in parts)])


def _factors(view: View) -> str:
    ends = view.means.filter(panel="factor", stage="end").drop_nulls("mean").sort("mean", descending=True)
    few, rest = view.listed(ends)
    parts = (f"{name_of(arm)} {from_log10(mean):.4f}" for arm, mean in few.select("arm", "mean").iter_rows())
    return "; ".join(parts) + rest


def _finding(view: View) -> str:
    """In which arms the gradient keeps its size after training, and in which it decays; who reaches the criterion."""
    ends = view.means.filter(panel="factor", stage="end").sort("mean", descending=True, nulls_last=True)
    is_falling = (pl.col("high") < -STEADY).fill_null(value=False)
    ends = pl.concat([ends.filter(~is_falling), ends.filter(is_falling).reverse()])  # the strongest first
    words = {"within": "keeps its size in {arms}", "below": "decays in {arms}"}
    words |= {"above": "grows in {arms}", "unsure": "is not shown to do either in {arms}"}
    sides = by_sign(ends, words, bounds=(-STEADY, STEADY))
    parts = [f"After training at T = {view.T} the gradient {sides}" if sides else ONLY_INITIAL]
    shares = view.means.filter(panel="solved").drop_nulls("mean")
    if not shares.is_empty():
        solving = shares.filter(pl.col("mean") > 0.5).height
        parts.append(f"{solving} of {count(shares.height, 'arm')} reach the criterion with most seeds")
    return "; ".join(parts)


gradient_and_cost = Dots(
    name="gradient_and_cost",
    applies=lambda grid: len(grid.arms) > 3,
    needs="more than three arms",
    rows=_rows,
    means=_means,
    x={
        "factor": Axis(label="factor per timestep", scale="log10", lines={0.0: ""}),
        "loss": Axis(label="test loss", scale="log10", lines=baseline_line),
        "solved": Axis(label="share of seeds", limits=(-0.04, 1.04)),
        "time": Axis(label="ms per step", scale="log10"),
    },
    across=("panel", {"factor": "Gradient", "loss": "Loss", "solved": "Solved", "time": "Cost"}),
    series=("stage", _STAGES),
    title=_finding,
    about="Left: the factor by which the Frobenius norm over the probe batch of ∂L/∂h changes per timestep of lag, a "
    "least-squares fit of its log10 at T = {T} on {dataset}, seed by seed; one within 1 % of 1 keeps its size. Then "
    "the test loss at each replica's best validation step, the share of seeds that reached the criterion, and the time "
    "of a training step of all seeds together. Points are seeds, markers geometric means over {seeds}, or shares, with "
    "{interval}; that of the time is over timed portions of training.",
    values=lambda view: f"Mean factors at the end of training: {_factors(view) or 'none'}.",
    most=24,
    rank=(
        lambda view: decay_factor.by_arm(view.grid, stage="initialisation", state="h"),
        "the factor at initialisation",
    ),
    by_rank=True,
)
