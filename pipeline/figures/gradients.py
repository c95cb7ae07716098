"""Figures of the gradient itself: how much of it arrives at earlier timesteps, layers, inputs and encoders."""

from __future__ import annotations

import math

import polars as pl

from pipeline.figures.findings import Row, by_sign
from pipeline.figures.frame import STAGE_TITLES, Axis, HeatMaps, Lines, View
from pipeline.quantities import Grid
from pipeline.quantities import gradients as quantities
from pipeline.quantities.words import name_of, number, with_article

_STEADY = -math.log10(0.99)
"""A slope in decades per timestep below which, with its whole interval, the gradient keeps its size to 1 %."""

_EXACT = "exact float64 backward pass"


def _per_decade(row: Row) -> str:
    return number(-1 / row["mean"], 2)


def _state(row: Row) -> str:
    return f"{with_article(row['arm'])}'s {row['state']}"


def _factor(slope: float | None, places: int = 3) -> str:
    return "no fit" if slope is None else f"×{10**slope:.{places}f}"


def _one_state(grid: Grid) -> pl.DataFrame:
    """Return the gradient by lag; where it has more than eight lines, of each arm the cell state if it has one."""
    rows = quantities.gradient_by_lag.of(grid)
    if rows.select("arm", "state").n_unique() <= 8:
        return rows
    return rows.filter((pl.col("state") == "c") | (pl.col("state") == "c").any().over("arm").not_())


def _decay(view: View) -> pl.DataFrame:
    drawn = view.rows.select("arm", "state").unique()
    rows = quantities.decay_factor.of(view.grid).join(drawn, on=["arm", "state"], maintain_order="left")
    return quantities.decay_factor.summary(rows, ["stage", "arm", "state"])


def _decay_finding(view: View) -> str:
    """Where the gradient falls fastest after training, where slowest, and where not at all."""
    end = _decay(view).filter(stage="end").drop_nulls("mean").sort("mean", maintain_order=True)
    if end.is_empty():
        return "No replica finished training: only the initial gradient is known"
    falling, after = end.filter(pl.col("high") < 0), f"After training at T = {view.T}"
    if falling.is_empty():
        reason = "one seed has no interval" if end["num_seeds"].max() == 1 else "every interval contains zero or growth"
        return f"{after} no gradient is shown to decay with lag ({reason})"
    fast, slow = falling.row(0, named=True), falling.row(-1, named=True)
    finding = f"{after} the gradient decays tenfold every {_per_decade(fast)} timesteps in {_state(fast)}"
    if falling.height > 1:
        finding += f", every {_per_decade(slow)} in {_state(slow)}"
    others = end.filter((pl.col("high") >= 0).fill_null(value=True))
    words = {"within": "it keeps its size in {arms}", "unsure": "no decay is established in {arms}"}
    rest = by_sign(others, words, name=_state, bounds=(-_STEADY, _STEADY))
    return f"{finding}; {rest}" if rest else finding


def _decay_labels(view: View) -> dict[tuple[str, str], str]:
    slopes = _decay(view)
    labels = {}
    for arm, state in slopes.select("arm", "state").unique(maintain_order=True).iter_rows():
        own = dict(slopes.filter(arm=arm, state=state).select("stage", "mean").iter_rows())
        factors = " → ".join(_factor(own.get(stage)) for stage in STAGE_TITLES)
        labels[arm, state] = f"{name_of(arm)} {state}  {factors}"
    return labels


gradient_by_lag = Lines(
    name="gradient_by_lag",
    rows=_one_state,
    x=Axis(label="lag k (timesteps back from the last)", column="lag"),
    y=Axis(label="gradient norm relative to lag 0", scale="decades", lines={0.0: ""}),
    across=("stage", STAGE_TITLES),
    series=("arm", "state"),
    label=_decay_labels,
    title=_decay_finding,
    about="Frobenius norm over the probe batch of ∂L/∂h (and ∂L/∂c of a cell state) k timesteps before the last one, "
    f"relative to lag 0, at T = {{T}} on {{dataset}}; {_EXACT}. Lines are means of log10 over {{seeds}}, bands the "
    "{interval}. In the legend: factors per timestep at initialisation and after training, least-squares fits of the "
    "log10 norm, seed by seed. Where the study selects between settings, the selected one is shown.",
    not_ok=quantities.gradient_by_lag.not_ok,
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
        arm = with_article(row["arm"]) if " " in row["arm"] else name_of(row["arm"])
        parts.append(f"{number(abs(row['lost']), 2)} decades ({arm}'s {row['state']}) {side}")
    return f"After training the first timestep's gradient lies {' to '.join(parts)} the last one's"


gradient_heatmap = HeatMaps(
    name="gradient_heatmap",
    rows=quantities.gradient_over_training,
    x=Axis(label="timestep t", column="timestep"),
    y=Axis(label="training step", column="step"),
    colour=Axis(label="gradient norm", scale="decades", max_decades=16),
    title=_fading,
    about="log10 of the Frobenius norm over the probe batch of ∂L/∂h and ∂L/∂c at timestep t, against training step, "
    "at T = {T} on {dataset}; mean over {seeds}. A replica that stopped keeps its last measurement. Colours end 16 "
    "decades below the largest norm.",
    most=3,
    rank=(lambda view: dict(_decades_lost(view).group_by("arm").agg(pl.col("lost").min()).iter_rows()), "decades lost"),
    top_layer="traces",
)
