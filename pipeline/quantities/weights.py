"""The recurrent weights: largest singular value, spectral radius and eigenvalues of the blocks of W_hh."""

from __future__ import annotations

import polars as pl

from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import on_schedule, staged, top_forward

TANH_GATES = ("h", "n", "g")
"""Names of the block whose output goes through tanh: of the Elman network, the GRU and the LSTM."""


@quantity(words="largest singular value and spectral radius of W_hh", scale="log10", facets=("metric", "gate", "step"))
def weight_spectrum(grid: Grid) -> pl.DataFrame:
    """log10 of `sigma_max` and `spectral_radius` of every block of W_hh over training.

    Of several layers the last, forward in time.
    """
    rows = top_forward(grid["curves"].filter(pl.col("metric").is_in(["sigma_max", "spectral_radius"])))
    scheduled = on_schedule(rows, ["metric", "gate"])
    return scheduled.select("metric", "arm", "gate", "seed", "step", pl.col("value").log10())


def eigenvalues(grid: Grid) -> pl.DataFrame:
    """Return every eigenvalue of one block by arm, stage and seed; `outside` where its modulus exceeds 1.

    The block is W_hh of the Elman networks if the grid has any, else the candidate's block of the first gated cell; of
    several layers the last, forward in time. Columns `stage`, `arm`, `gate`, `seed`, `index`, `real`, `imag`,
    `modulus`, `outside`; a replica that diverged or failed has no end.
    """
    return _eigenvalues(grid).drop_nulls("modulus")


@once_per_grid
def _eigenvalues(grid: Grid) -> pl.DataFrame:
    """Return what `eigenvalues` does, with a null for each that a replica without an end does not have there."""
    rows = top_forward(grid["eigenvalues"])
    gate = next((gate for gate in TANH_GATES if gate in rows["gate"]), "")
    rows = rows.filter(gate=gate)
    modulus = (pl.col("real") ** 2 + pl.col("imag") ** 2).sqrt()
    both = staged(rows).with_columns(modulus=modulus, outside=modulus > 1)
    order: list[pl.Expr | str] = [pl.col("stage") == "end", grid.rank(), "seed", "index"]
    return both.sort(*order).select("stage", "arm", "gate", "seed", "index", "real", "imag", "modulus", "outside")


@quantity(words="share of eigenvalues outside the unit circle", scale="share", facets=("stage",))
def share_outside_circle(grid: Grid) -> pl.DataFrame:
    """Share of the eigenvalues of `eigenvalues` whose modulus exceeds 1."""
    return _eigenvalues(grid).group_by("stage", "arm", "seed", maintain_order=True).agg(value=pl.col("outside").mean())
