"""What clipping did: the gradient norm before and after it, how often it acted, whether it changed the direction."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes

from pipeline.figures.findings import by_sign, ranked
from pipeline.figures.frame import Axis, Lines, Panel, View, listed
from pipeline.figures.style import FAINT, INK, Look
from pipeline.quantities import Grid
from pipeline.quantities.clipping import clip_cosine, clipped_share, in_bins, updates
from pipeline.quantities.words import count, interval, join, with_article

MAX_BINS = 75
"""Steps are gathered into at most as many bins per seed."""

_CHANGED = 1e-6
"""A mean cosine further below 1 counts as another direction; that of a shortened gradient is 1 but for rounding."""

_BY_TOTAL_NORM = ("global_norm", "global_norm_max")
"""Rules whose threshold is a norm over all parameters, the quantity of the first row of panels."""


def _rows(grid: Grid) -> pl.DataFrame:
    """Return by arm, seed and bin of steps log10 of the norms, the share clipped, and the cosine over clipped steps."""
    if updates(grid).is_empty():
        return updates(grid)
    bins = in_bins(grid, MAX_BINS)
    values = {
        ("norm", "before"): pl.col("grad_norm").log10(),
        ("norm", "after"): pl.col("clipped_grad_norm").log10(),
        ("share", "before"): pl.col("clipped"),
        ("cosine", "before"): pl.col("cosine"),
    }
    keys = ["arm", "seed", "step"]
    parts = [
        bins.select(*keys, pl.lit(row).alias("row"), pl.lit(side).alias("side"), value=value)
        for (row, side), value in values.items()
    ]
    known = pl.concat(parts)
    return known if _changes_direction(grid) else known.filter(pl.col("row") != "cosine")


def _means(view: View) -> pl.DataFrame:
    """Return means over seeds with intervals, as the quantities take them; of norms medians with quartiles."""
    keys, value = view.frame.keys, pl.col("value").filter(pl.col("value").is_finite())
    kinds = {"share": clipped_share, "cosine": clip_cosine}
    means = pl.concat(quantity.summary(view.rows.filter(row=row), keys) for row, quantity in kinds.items())
    norms = view.rows.filter(row="norm").group_by(keys, maintain_order=True)
    medians = norms.agg(
        mean=value.median(),
        low=value.quantile(0.25),
        high=value.quantile(0.75),
        num_seeds=value.len().cast(pl.Int64),
        num_nonfinite=pl.col("value").is_finite().not_().sum().cast(pl.Int64),
        num_missing=pl.col("value").null_count().cast(pl.Int64),
    )
    return pl.concat([medians.select(means.columns), means])


def _changes_direction(grid: Grid) -> bool:
    ends = clip_cosine.means(grid)
    return bool((ends["mean"] < 1 - _CHANGED).any())


def _finding(view: View) -> str:
    """In which arms clipping changes the gradient's direction; where in none, which share of steps it shortens."""
    shares = clipped_share.means(view.grid).drop_nulls("mean")
    if shares["mean"].sum() == 0:
        return "No step was clipped"
    if _changes_direction(view.grid):
        words = {
            "below": "changes the gradient's direction in {arms}",
            "above": "changes only its length in {arms}",
            "unsure": "is not shown to change the direction in {arms}",
        }
        sides = by_sign(
            ranked(clip_cosine.means(view.grid)),
            words,
            name=lambda row: (
                f"{with_article(row['arm'])} (mean cosine {interval(row)})"
                if row["mean"] < 1 - _CHANGED
                else with_article(row["arm"])
            ),
            bounds=(1 - _CHANGED, 1 - _CHANGED),
            most=2,
        )
        return f"Clipping {sides}"
    found = shares.sort("mean", descending=True, maintain_order=True)
    parts = [f"{100 * row['mean']:.0f} % of {with_article(row['arm'])}'s" for row in found.iter_rows(named=True)]
    return f"Clipping shortens {join(parts) if len(parts) <= 3 else f'from {parts[-1]} to {parts[0]}'} steps"


def _threshold(view: View, ax: Axes, panel: Panel) -> None:
    """Draw the threshold where it is a norm over all parameters, as the axis is."""
    runs = view.grid.runs.filter(arm=panel["arm"])
    if panel["row"] != "norm" or "clipping.threshold" not in runs.columns:
        return
    total = runs.filter(pl.col("clipping.name").is_in(_BY_TOTAL_NORM))
    for value in total["clipping.threshold"].drop_nulls().unique().log10():
        ax.axhline(value, color=INK, linestyle=":", linewidth=1.0)


def _values(view: View) -> str:
    text = f"Share of steps clipped: {listed(view, clipped_share.means(view.grid))}."
    if _changes_direction(view.grid):
        text += f" Mean cosine over clipped steps: {listed(view, clip_cosine.means(view.grid))}."
    num_lost = updates(view.grid)["clipped"].null_count()
    return f"{text} {count(num_lost, 'update')} without a finite norm in no median." if num_lost else text


clipping_ledger = Lines(
    name="clipping_ledger",
    rows=_rows,
    means=_means,
    x=Axis(label="training step", column="step"),
    y={
        "norm": Axis(label="gradient norm", scale="decades"),
        "share": Axis(label="share of steps\nclipped", limits=(-0.03, 1.03)),
        "cosine": Axis(label="cosine of\nclipped steps", limits=(None, 1.03), empty="no step was clipped"),
    },
    across=("arm", None),
    down=("row", {"norm": "", "share": "", "cosine": ""}),
    series=("arm", "side"),
    looks=lambda view: {
        (arm, side): (f"{side} clipping", look if side == "before" else Look(FAINT, "--", ""))
        for arm, look in view.looks.items()
        for side in ("before", "after")
    },
    add=_threshold,
    more=lambda view: {"threshold of the norm over all parameters": Look(INK, ":", "")},
    height=1.7,
    title=_finding,
    about="Norm of the gradient over all parameters of a replica before and after clipping (dashed), at T = {T} on "
    "{dataset}; steps are gathered into bins, lines are medians and bands quartiles over {seeds}, a seed counting "
    "until it stops. Below: share of steps that were clipped, and the cosine of the raw and the applied gradient over "
    "those steps (1 where it is only shortened), means with {interval}.",
    values=_values,
    not_ok="they count until they stopped",
    most=4,
    rank=(
        lambda view: (clip_cosine if _changes_direction(view.grid) else clipped_share).by_arm(view.grid),
        "mean cosine of clipped steps, or share of clipped steps where none changes direction",
    ),
)
