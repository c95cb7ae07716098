"""The network as a dynamical system: Jacobians over k timesteps, Lyapunov exponents, smoothness along training."""

from __future__ import annotations

import math

import polars as pl

from pipeline.quantities.grid import Grid, finished, of_every_replica, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import metric, staged, top_forward

MIN_POINTS = 3
"""A seed with fewer measurements of smoothness has no correlation."""


@quantity(words="singular values over k timesteps", scale="log10", facets=("stage", "which", "lag"))
def jacobian_singular_values(grid: Grid) -> pl.DataFrame:
    """log10 of the singular values of ∂s_T/∂s_{T-k} on the probe: `largest`, `median`, `smallest` and `condition`.

    A value of exactly zero is -inf.
    """
    rows = staged(top_forward(grid["jacobians"])).rename({"quantity": "which", "log10_value": "value"})
    order: list[pl.Expr | str] = [pl.col("stage") == "end", grid.rank(), "which", "lag"]
    return rows.sort(*order, maintain_order=True).select("stage", "arm", "which", "lag", "seed", "step", "value")


@quantity(words="bound k log10 σ_max(W_hh)", scale="log10", facets=("stage", "lag"))
def jacobian_bound(grid: Grid) -> pl.DataFrame:
    """K log10 σ_max(W_hh), which no singular value over k timesteps can exceed.

    Where σ_max was measured at the very step; it holds for Elman networks, whose abs φ' is at most 1.
    """
    elman = grid.runs.filter(pl.col("model.cell").str.starts_with("elman"))["arm"].unique().to_list()
    sigma = top_forward(grid["curves"].filter(pl.col("arm").is_in(elman), metric="sigma_max", gate="h"))
    rows = jacobian_singular_values.of(grid).filter(which="largest").drop("value")
    known = rows.join(sigma.select("arm", "seed", "step", sigma="value"), on=["arm", "seed", "step"])
    bound = pl.col("lag") * pl.col("sigma").log10()
    return known.sort("stage", grid.rank(), "lag").select("stage", "arm", "lag", "seed", value=bound)


@quantity(words="Lyapunov exponent in nats per timestep", facets=("stage", "index", "timestep"))
def lyapunov_exponents(grid: Grid) -> pl.DataFrame:
    """Exponents by falling size (`index` from 1), estimated from the first `timestep` timesteps.

    `standard_error` of each estimate stands beside it. The whole spectrum is known at the last timestep, the largest
    exponent at earlier ones.
    """
    rows = staged(top_forward(grid["lyapunov"])).rename({"lyapunov_nats_per_timestep": "value"})
    rows = rows.with_columns(index=pl.col("index") - pl.col("index").min() + 1)
    rows = rows.sort(pl.col("stage") == "end", grid.rank(), "index", "timestep", maintain_order=True)
    return rows.select("stage", "arm", "index", "timestep", "seed", "value", "standard_error")


@quantity(words="local smoothness", scale="log10", facets=("step",))
def local_smoothness(grid: Grid) -> pl.DataFrame:
    """log10 of ‖∇f(x + αd) - ∇f(x)‖ / (α‖d‖) along the update from a measured step to the next."""
    return _log10_curve(grid, "local_smoothness")


@quantity(words="gradient norm on the probe", scale="log10", facets=("step",))
def probe_gradient_norm(grid: Grid) -> pl.DataFrame:
    """log10 of the norm over all parameters at a measured step."""
    return _log10_curve(grid, "probe_grad_norm")


def _log10_curve(grid: Grid, name: str) -> pl.DataFrame:
    return metric(grid["curves"], name).select("arm", "seed", "step", pl.col("value").log10())


@once_per_grid
def smoothness_points(grid: Grid) -> pl.DataFrame:
    """Return a point per arm, seed and measured step: `log10_norm` of the probe's gradient and `log10_smoothness`."""
    smoothness, norm = local_smoothness.of(grid), probe_gradient_norm.of(grid).rename({"value": "log10_norm"})
    both = smoothness.rename({"value": "log10_smoothness"}).join(norm, on=["arm", "seed", "step"]).drop_nulls()
    return both.sort(grid.rank(), "seed", "step")


@quantity(words="correlation of log smoothness and log gradient norm", bounds=(-1.0, 1.0), facets=("kind",))
def smoothness_correlation(grid: Grid) -> pl.DataFrame:
    """Correlation over a seed's measured steps, `pearson` and `spearman`; null below three finite points."""
    names = ("log10_norm", "log10_smoothness")
    finite = pl.all_horizontal(pl.col(name).is_finite() for name in names)
    pair = [pl.col(name).filter(finite) for name in names]
    by_seed = (
        smoothness_points(grid)
        .group_by("arm", "seed", maintain_order=True)
        .agg(
            pl.when(finite.sum() >= MIN_POINTS).then(pl.corr(*pair, method=kind)).alias(kind)
            for kind in ("pearson", "spearman")
        )
    )
    return by_seed.unpivot(on=["pearson", "spearman"], index=["arm", "seed"], variable_name="kind")


def _of_orbits(grid: Grid, name: str) -> pl.DataFrame:
    rows = metric(grid["curves"], name).select("arm", "seed", value=finished("value"))
    return of_every_replica(grid, rows).sort(grid.rank(), "seed")


@quantity(words="divergence of the generated orbits from the series in nats", bounds=(0.0, math.inf), better="lower")
def state_space_divergence(grid: Grid) -> pl.DataFrame:
    """Kullback-Leibler divergence of where freely generated orbits go from where the test series does."""
    return _of_orbits(grid, "state_space_divergence")


@quantity(words="largest Lyapunov exponent of the generated orbits in nats per timestep")
def orbit_exponent(grid: Grid) -> pl.DataFrame:
    """Of the network's own recurrence along the orbits that it generates freely."""
    return _of_orbits(grid, "orbit_exponent")


@quantity(
    words="share of seeds whose orbits diverge least when forced every {at_most} timesteps or more often",
    scale="event",
    facets=("at_most",),
    pools_arms=True,
)
def best_forcing_interval(grid: Grid) -> pl.DataFrame:
    """Whether the interval of a seed's arm with the least state-space divergence is `at_most` so many timesteps.

    Of arms without clipping; one that is never forced counts as forced once a sequence. Null for a seed of which no arm
    has a divergence.
    """
    forced = "training.state_forcing.every"
    every = pl.col(forced) if forced in grid.runs.columns else pl.lit(None, pl.Int64)
    runs = grid.runs.filter(pl.col("clipping.name") == "none")
    intervals = runs.select("arm", "seed", every=pl.coalesce(every, "length"))
    known = state_space_divergence.of(grid).drop_nulls("value").join(intervals, on=["arm", "seed"])
    best = known.sort("value").group_by("seed").agg(best=pl.col("every").first())
    seeds = intervals.select("seed").unique().join(best, on="seed", how="left").sort("seed")
    limits = intervals.select(at_most="every").unique().sort("at_most")
    value = pl.col("best") <= pl.col("at_most")
    return limits.join(seeds, how="cross").select("at_most", arm=pl.lit("all arms"), seed="seed", value=value)
