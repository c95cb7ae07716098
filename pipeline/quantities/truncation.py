"""What truncated backpropagation gets wrong: the K-step gradient against the full one, and the theory of its bias."""

from __future__ import annotations

import math

import polars as pl

from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import staged

SMALL_ERROR = 0.1
"""A relative error below which a truncated gradient passes for the full one."""

_FACETS = ("stage", "backward_length")


@once_per_grid
def truncated_gradients(grid: Grid) -> pl.DataFrame:
    """Return a row per stage, arm, seed and backward length K, with the logarithms that figures draw.

    Columns `cosine`, `relative_error`, `log10_error`, `log10_phi` (φ_K = ‖∂L/∂h_{T-K}‖), `relative_bias_bound` and
    `log10_bound` (Aicher's δ(K); null where it says nothing), `log10_fit` (a line of slope log10 β through the middle
    of log10 φ_K).
    """
    rows = staged(grid["truncation"]).sort("backward_length")
    bound, K = pl.col("relative_bias_bound"), pl.col("backward_length")
    rows = rows.with_columns(
        log10_error=pl.col("relative_error").log10(),
        log10_bound=pl.when(bound.is_finite() & (bound > 0)).then(bound.log10()),
    )
    finite, keys = pl.col("log10_phi").is_finite(), ["stage", "arm", "seed"]
    middle = pl.col("log10_phi").filter(finite).mean().over(keys)
    fit = middle + pl.col("decay_factor").log10() * (K - K.filter(finite).mean().over(keys))
    return rows.with_columns(log10_fit=pl.when(fit.is_finite()).then(fit))


def _column(grid: Grid, name: str) -> pl.DataFrame:
    return truncated_gradients(grid).select("stage", "arm", "backward_length", "seed", value=name)


@quantity(
    words="relative error of the {backward_length}-timestep gradient", scale="log10", better="lower", facets=_FACETS
)
def truncation_error(grid: Grid) -> pl.DataFrame:
    """log10 of ‖ĝ_K - g‖ / ‖g‖ of the gradient that flows back through K timesteps only."""
    return _column(grid, "log10_error")


@quantity(
    words="cosine of the {backward_length}-timestep and the full gradient",
    bounds=(-1.0, 1.0),
    better="higher",
    facets=_FACETS,
)
def truncation_cosine(grid: Grid) -> pl.DataFrame:
    """Cosine of the K-step gradient and the full one."""
    return _column(grid, "cosine")


@quantity(words="gradient norm {backward_length} timesteps back", scale="log10", facets=_FACETS)
def far_gradient_norm(grid: Grid) -> pl.DataFrame:
    """log10 of φ_K = ‖∂L/∂h_{T-K}‖, the gradient that a truncation to K timesteps leaves out."""
    return _column(grid, "log10_phi")


def needed_backward_length(grid: Grid) -> pl.DataFrame:
    """Return by stage and arm the smallest K from which on no seed's relative error is above `SMALL_ERROR`.

    Columns `stage`, `arm`, `backward_length` (null where even the longest is not enough), `longest`, `num_seeds`.
    """
    wrong = (pl.col("value") < math.log10(SMALL_ERROR)).fill_null(value=False).not_()
    keys = ["stage", "arm", "backward_length"]
    worst = truncation_error.of(grid).group_by(keys).agg(wrong.any().alias("wrong"), num_seeds=pl.len())
    worst = worst.sort("backward_length", descending=True)
    enough = worst.with_columns(enough=pl.col("wrong").cum_sum().over("stage", "arm") == 0)
    length = pl.col("backward_length")
    found = enough.group_by("stage", "arm").agg(
        backward_length=length.filter("enough").min(), longest=length.max(), num_seeds=pl.col("num_seeds").max()
    )
    return found.sort(pl.col("stage") == "end", grid.rank())
