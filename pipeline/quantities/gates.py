"""What gates do: their values' densities and means, how often they are shut or open, and what they keep of the past."""

from __future__ import annotations

import polars as pl

from pipeline.quantities.gradients import decay_rates, gradient_by_lag
from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import STAGES, staged, top_forward


@once_per_grid
def _staged(grid: Grid) -> pl.DataFrame:
    rows = staged(top_forward(grid["gates"])).select("stage", "arm", "gate", "quantity", "position", "seed", "value")
    return rows.sort(pl.col("stage") == "end", grid.rank(), "gate", "quantity", "position", maintain_order=True)


def _gates(grid: Grid, *quantities: str) -> pl.DataFrame:
    return _staged(grid).filter(pl.col("quantity").is_in(quantities))


@quantity(words="density of the gate's values", facets=("stage", "gate", "position"))
def gate_density(grid: Grid) -> pl.DataFrame:
    """Density of a gate's values on the probe batch at the middle of each bin of [0, 1] (`position`)."""
    return _gates(grid, "density").select("stage", "arm", "gate", "position", "seed", "value")


@quantity(words="mean of gate {gate}", scale="share", facets=("stage", "gate"))
def gate_mean(grid: Grid) -> pl.DataFrame:
    """Mean value of a gate over the probe's sequences, timesteps and units."""
    return _gates(grid, "mean").select("stage", "arm", "gate", "seed", "value")


@quantity(words="share of gate values near 0 or 1", scale="share", facets=("stage", "gate", "side"))
def gate_saturation(grid: Grid) -> pl.DataFrame:
    """Share of a gate's values on the probe batch near 0 (`left_saturated`) and near 1 (`right_saturated`)."""
    rows = _gates(grid, "left_saturated", "right_saturated").rename({"quantity": "side"})
    return rows.select("stage", "arm", "gate", "side", "seed", "value")


@quantity(words="half-life of the keeping gate in timesteps", scale="log10", facets=("stage", "gate"))
def half_life(grid: Grid) -> pl.DataFrame:
    """log10 of the timesteps ln ½ / ln f in which the keeping gate halves what it keeps, a seed's median over units."""
    rows = _gates(grid, "half_life")
    return rows.select("stage", "arm", "gate", "seed", pl.col("value").log10())


@quantity(words="factor of the keeping gate's half-life by training", scale="log10")
def half_life_change(grid: Grid) -> pl.DataFrame:
    """log10 of the half-life after training over that at initialisation."""
    wide = half_life.of(grid).pivot(on="stage", index=["arm", "seed"], values="value", maintain_order=True)
    known = [pl.col(stage) if stage in wide.columns else pl.lit(None, pl.Float64) for stage in STAGES]
    return wide.select("arm", "seed", value=known[1] - known[0])


@quantity(words="share that gate {gate} keeps per timestep", scale="log10", facets=("stage", "gate"))
def retention_factor(grid: Grid) -> pl.DataFrame:
    """log10 of the keeping gate's product over the whole sequence to the power 1/T."""
    rows = _gates(grid, "retention")
    longest = rows.filter(pl.col("position") == pl.col("position").max())
    return longest.select("stage", "arm", "gate", "seed", value=pl.col("value") / pl.col("position"))


@quantity(words="gradient beside the keeping gate's product", scale="log10", facets=("stage", "source", "lag"))
def retention_by_lag(grid: Grid) -> pl.DataFrame:
    """log10 of what reaches back k timesteps, by `source`.

    `gradient`: the norm relative to lag 0, of c where the cell has it, else of h. `retention`: the product of the
    keeping gate over the last k timesteps. `power`: k log10 of the mean share that it keeps.
    """
    rows = _gates(grid, "retention", "kept")
    keys = ["stage", "arm", "seed"]
    retention = rows.filter(quantity="retention").with_columns(
        source=pl.lit("retention"), lag=pl.col("position").round().cast(pl.Int64)
    )
    means = rows.filter(quantity="kept").group_by(keys).agg(log10_mean=pl.col("value").mean().log10())
    power = retention.join(means, on=keys).with_columns(
        source=pl.lit("power"), value=pl.col("lag") * pl.col("log10_mean")
    )
    gradient = gradient_by_lag.of(grid).join(retention.select(keys).unique(), on=keys)
    state = pl.when((pl.col("state") == "c").any().over("arm")).then(pl.lit("c")).otherwise(pl.lit("h"))
    gradient = gradient.filter(pl.col("state") == state).with_columns(source=pl.lit("gradient"))
    both = pl.concat([part.select(*keys, "source", "lag", "value") for part in (gradient, retention, power)])
    return both.sort(pl.col("stage") == "end", grid.rank(), "source", "lag", "seed")


@quantity(
    words="slope of the gradient minus that of the keeping gate's product, in decades per timestep",
    facets=("stage",),
)
def retention_gap(grid: Grid) -> pl.DataFrame:
    """How much slower (above 0) the gradient falls with lag than the keeping gate's product does."""
    fits = decay_rates(retention_by_lag.of(grid), ["stage", "arm", "source"])
    slopes = [pl.col("slope").filter(pl.col("source") == source).first() for source in ("gradient", "retention")]
    return fits.group_by("stage", "arm", "seed", maintain_order=True).agg(value=slopes[0] - slopes[1])
