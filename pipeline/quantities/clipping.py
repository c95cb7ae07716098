"""What clipping did: the gradient norm before and after it, how often it acted, and whether it changed its direction.

A step is clipped where the norm after is smaller than before, as the trial itself decides it for its column
`clipped_share`; an update was not made, and is no step, where its norm or what it made of the parameters is not finite.
"""

from __future__ import annotations

import polars as pl

from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.quantity import quantity

ROUNDING = 1e-6
"""Of a float32 cosine: one nearer to 1 is 1."""

_MEAN_COSINE = pl.col("cosine").filter(pl.col("clipped") > 0, pl.col("cosine").is_finite()).mean()
"""Over clipped steps with a finite cosine."""


@once_per_grid
def updates(grid: Grid) -> pl.DataFrame:
    """Return a row per update: `grad_norm`, `clipped_grad_norm`, `clipped` (0 or 1) and `cosine`.

    Norms and cosines that are not finite stay as they are; `clipped` is null where no update was made, `cosine` where
    none was recorded.
    """
    metrics = ["grad_norm", "clipped_grad_norm", "clip_cosine"]
    curves = grid["curves"].filter(pl.col("metric").is_in(metrics))
    wide = curves.pivot(on="metric", index=["arm", "seed", "step"], values="value", maintain_order=True)
    known = {name: pl.col(name) if name in wide.columns else pl.lit(None, pl.Float64) for name in metrics}
    was_made = known["grad_norm"].is_finite() & known["clipped_grad_norm"].is_finite()
    was_made &= pl.col("step") <= pl.col("num_steps")
    clipped = pl.when(was_made).then((known["clipped_grad_norm"] < known["grad_norm"]).cast(pl.Float64))
    made = wide.join(grid.runs.select("arm", "seed", "num_steps"), on=["arm", "seed"], maintain_order="left")
    return made.with_columns(clipped=clipped, cosine=known["clip_cosine"]).drop("num_steps")


@quantity(words="share of steps clipped", scale="share")
def clipped_share(grid: Grid) -> pl.DataFrame:
    """Share of a seed's steps that were clipped, until it stopped; 0 where it made none."""
    shares = updates(grid).group_by("arm", "seed", maintain_order=True).agg(value=pl.col("clipped").mean())
    return shares.with_columns(pl.col("value").fill_null(0.0))


@quantity(words="cosine of raw and applied gradient over clipped steps", bounds=(-1.0, 1.0))
def clip_cosine(grid: Grid) -> pl.DataFrame:
    """A seed's mean cosine of the gradient before and after clipping, over its clipped steps with a finite cosine.

    A seed none of whose steps was clipped has none. A rule that rescales the whole gradient keeps its direction: where
    every cosine of an arm is 1 to float32's rounding, it is exact.
    """
    is_one = ((pl.col("cosine") - 1).abs() <= ROUNDING).filter(pl.col("clipped") > 0, pl.col("cosine").is_finite())
    means = updates(grid).group_by("arm", "seed", maintain_order=True).agg(value=_MEAN_COSINE, exact=is_one.all())
    exact = pl.col("exact").all().over("arm")
    value = pl.when(exact & pl.col("value").is_not_null()).then(1.0).otherwise("value")
    return means.with_columns(exact=exact, value=value)


def in_bins(grid: Grid, num_bins: int) -> pl.DataFrame:
    """Return the updates of each seed gathered into at most `num_bins` bins of steps.

    Columns `arm`, `seed`, `step` (middle of the bin), `grad_norm` and `clipped_grad_norm` (medians over the finite
    ones), `clipped` (share of steps), `cosine` (mean over clipped steps with a finite one, as `clip_cosine` has it) and
    `num_nonfinite` (updates whose norm before clipping is not finite).
    """
    rows = updates(grid)
    last = int(rows["step"].to_numpy().max())
    num_bins = min(num_bins, last)
    place = (pl.col("step") - 1) * num_bins // last
    binned = rows.with_columns(step=(place + 0.5) * (last / num_bins) + 0.5)
    medians = [pl.col(name).filter(pl.col(name).is_finite()).median() for name in ("grad_norm", "clipped_grad_norm")]
    return binned.group_by("arm", "seed", "step", maintain_order=True).agg(
        *medians,
        clipped=pl.col("clipped").mean(),
        cosine=_MEAN_COSINE,
        num_nonfinite=pl.col("grad_norm").is_finite().not_().sum().cast(pl.Int64),
    )
