"""Where attention looks: its entropy, whether that is the known alignment, and whether at what is similar."""

from __future__ import annotations

import math

import polars as pl

from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import metric, staged
from pipeline.quantities.training import scheduled


@once_per_grid
def attending(grid: Grid) -> list[str]:
    """Return the arms whose network attends."""
    return grid.present(grid["curves"].filter(metric="attention_entropy_nats"))


def _at_stages(grid: Grid, name: str) -> pl.DataFrame:
    rows = staged(metric(grid["curves"], name))
    return rows.sort(pl.col("stage") == "end", grid.rank(), "seed").select("stage", "arm", "seed", "value")


@quantity(words="attention entropy in nats", bounds=(0.0, math.inf), facets=("stage",))
def attention_entropy(grid: Grid) -> pl.DataFrame:
    """Entropy of the attention weights, mean over the probe's sequences and output positions."""
    return _at_stages(grid, "attention_entropy_nats")


@quantity(words="alignment error", scale="share", better="lower", facets=("stage",))
def alignment_error(grid: Grid) -> pl.DataFrame:
    """Share of output tokens with a known alignment whose largest weight lies outside it."""
    return _at_stages(grid, "alignment_error")


@quantity(words="share of attention inside the known alignment", scale="share", facets=("stage",))
def alignment_share(grid: Grid) -> pl.DataFrame:
    """Share of the attention weight that lies inside the known alignment."""
    return _at_stages(grid, "alignment_share")


@quantity(words="rank correlation with query-key similarity", bounds=(-1.0, 1.0), facets=("stage",))
def similarity_rank_correlation(grid: Grid) -> pl.DataFrame:
    """Rank correlation of attention weight and cosine similarity of what is compared."""
    return _at_stages(grid, "similarity_rank_correlation")


@quantity(words="weight within the class over chance", scale="log10", facets=("stage",))
def within_class_share(grid: Grid) -> pl.DataFrame:
    """log10 of the attention weight on tokens of the same class, over what even attention would give them."""
    return _at_stages(grid, "within_class_share").with_columns(pl.col("value").log10())


@quantity(words="attention entropy in nats", bounds=(0.0, math.inf), facets=("step",))
def attention_entropy_over_training(grid: Grid) -> pl.DataFrame:
    """Entropy of the attention weights at every scheduled step; a replica that stopped keeps its last measurement."""
    return scheduled(grid, "attention_entropy_nats")


@quantity(words="alignment error", scale="share", better="lower", facets=("step",))
def alignment_error_over_training(grid: Grid) -> pl.DataFrame:
    """Alignment error at every scheduled step; a replica that stopped keeps its last measurement."""
    return scheduled(grid, "alignment_error")
