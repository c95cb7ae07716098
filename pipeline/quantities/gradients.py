"""How much of the gradient arrives where: norms of ∂L/∂h_t by timestep and lag, and how fast they fall with lag."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import polars as pl

from pipeline.quantities.grid import Grid, once_per_grid
from pipeline.quantities.quantity import quantity
from pipeline.quantities.selection import metric, on_schedule, staged, top_forward

_NAN = float("nan")


def decay_rates(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the slope of log10 norm against lag for each group and seed: a least-squares line over the finite lags.

    A norm that is exactly zero (-inf) lies on no line: the fit is over the finite lags, and counts those left out.

    Args:
        frame: Columns `by`, `seed`, `lag` (timesteps back from the last one) and `value` (log10 of the norm).
        by: The columns that tell groups apart, besides the seed.

    Returns:
        Columns `by`, `seed`, `slope` (decades per timestep, negative where the gradient vanishes; null with fewer than
        two finite lags), `r_squared` (share of the variance over lags that the line explains), `num_zero` (norms of
        exactly zero) and `num_nonfinite` (NaN or +inf).
    """
    finite, zero = pl.col("value").is_finite(), pl.col("value") == -math.inf
    lag, height = pl.col("lag").filter(finite).cast(pl.Float64), pl.col("value").filter(finite)
    return frame.group_by([*by, "seed"], maintain_order=True).agg(
        slope=pl.when(finite.sum() >= 2).then(pl.cov(lag, height) / lag.var()),
        r_squared=pl.when(finite.sum() >= 2).then(pl.corr(lag, height) ** 2),
        num_zero=zero.sum().cast(pl.Int64),
        num_nonfinite=(finite.not_() & zero.not_()).sum().cast(pl.Int64),
    )


def _by_lag(traces: pl.DataFrame) -> pl.DataFrame:
    """Return the first and last traces of every replica with their lag, counted from the last timestep."""
    rows = staged(traces.with_columns(lag=pl.col("timestep").max().over("arm") - pl.col("timestep")))
    return rows.rename({"quantity": "state", "log10_norm": "value"})


def _relative_to_lag_0(grid: Grid, traces: pl.DataFrame) -> pl.DataFrame:
    """Return log10 of the norm over that at lag 0; where that is not finite, nothing is relative to it: NaN."""
    rows = _by_lag(traces)
    reference = pl.col("value").filter(pl.col("lag") == 0).first().over("stage", "arm", "state", "seed")
    relative = pl.when(~reference.is_finite()).then(_NAN).otherwise(pl.col("value") - reference)
    order = [pl.col("stage") == "end", grid.rank(), pl.col("state") == "c", pl.col("lag"), pl.col("seed")]
    return rows.with_columns(value=relative).sort(*order).select("stage", "arm", "state", "lag", "seed", "value")


@quantity(words="gradient norm relative to lag 0", scale="log10", facets=("stage", "state", "lag"))
def gradient_by_lag(grid: Grid) -> pl.DataFrame:
    """log10 of ‖∂L/∂h_{T-k}‖ (‖∂L/∂c_{T-k}‖) relative to lag k = 0, of the last layer, forward in time."""
    return _relative_to_lag_0(grid, top_forward(grid["traces"]))


@quantity(words="gradient norm in the encoder", scale="log10", facets=("stage", "lag"))
def encoder_gradient_by_lag(grid: Grid) -> pl.DataFrame:
    """log10 of ‖∂L/∂h_{S-k}‖ of the encoder's last layer, forward in time, relative to lag k = 0."""
    traces = top_forward(grid["traces"].filter(quantity="h"), "encoder")
    return _relative_to_lag_0(grid, traces).drop("state")


@quantity(words="input gradient relative to the largest", scale="log10", facets=("stage", "lag"))
def input_gradient_by_lag(grid: Grid) -> pl.DataFrame:
    """log10 of ‖∂L/∂x_{T-k}‖ relative to each replica's largest over lags; NaN where no norm is finite."""
    rows = _by_lag(grid["traces"].filter(part="input", quantity="x"))
    largest = pl.col("value").filter(pl.col("value").is_finite()).max().over("stage", "arm", "seed")
    relative = pl.when(pl.col("value").is_not_null()).then((pl.col("value") - largest).fill_null(_NAN))
    rows = rows.with_columns(value=relative)
    return rows.sort(pl.col("stage") == "end", grid.rank(), "lag", "seed").select(
        "stage", "arm", "lag", "seed", "value"
    )


@quantity(words="decades by which the farther half of the input gets less gradient", facets=("stage",))
def far_input_gradient(grid: Grid) -> pl.DataFrame:
    """Mean over the larger half of lags of how far log10 ‖∂L/∂x‖ lies below the largest; null where none is finite."""
    far = 2 * pl.col("lag") > pl.col("lag").max().over("stage")
    finite = pl.col("value").filter(pl.col("value").is_finite())
    rows = input_gradient_by_lag.of(grid).filter(far)
    return rows.group_by("stage", "arm", "seed", maintain_order=True).agg(value=-finite.mean())


@once_per_grid
def recurring(grid: Grid) -> list[str]:
    """Return the arms that have states: gradients were traced of more than their input."""
    return grid.present(grid["traces"].filter(pl.col("part") != "input"))


@quantity(words="factor of the gradient in {state} per timestep of lag", scale="log10", facets=("stage", "state"))
def decay_factor(grid: Grid) -> pl.DataFrame:
    """Slope in decades per timestep of a line through log10 of the gradient norm against lag, seed by seed."""
    return decay_rates(gradient_by_lag.of(grid), ["stage", "arm", "state"]).rename({"slope": "value"})


@quantity(words="R² of the log gradient norm in {state} on lag", scale="share", facets=("stage", "state"))
def decay_fit(grid: Grid) -> pl.DataFrame:
    """How geometric the decay is: the share of the variance over lags that the line of `decay_factor` explains."""
    return decay_factor.of(grid).rename({"value": "slope", "r_squared": "value"})


@quantity(words="factor of the encoder's gradient per timestep of lag", scale="log10", facets=("stage",))
def encoder_decay_factor(grid: Grid) -> pl.DataFrame:
    """As `decay_factor`, of the encoder; `r_squared` beside it."""
    return decay_rates(encoder_gradient_by_lag.of(grid), ["stage", "arm"]).rename({"slope": "value"})


@quantity(words="gradient norm", scale="log10", facets=("state", "step", "timestep"))
def gradient_over_training(grid: Grid) -> pl.DataFrame:
    """log10 of ‖∂L/∂h_t‖ by training step and timestep; a replica that stopped keeps its last measurement."""
    rows = on_schedule(top_forward(grid["traces"]), ["quantity", "timestep"])
    return rows.rename({"quantity": "state", "log10_norm": "value"}).select(
        "arm", "seed", "state", "step", "timestep", "value"
    )


@quantity(words="gradient norm by layer", scale="log10", facets=("stage", "layer", "direction", "timestep"))
def gradient_by_layer(grid: Grid) -> pl.DataFrame:
    """log10 of ‖∂L/∂h_t‖ of every layer and direction, of arms that have several."""
    rows = grid["traces"].filter(part="recurrent", quantity="h")
    rows = staged(rows.filter(pl.struct("layer", "direction").n_unique().over("arm") > 1))
    rows = rows.rename({"log10_norm": "value"})
    rows = rows.sort(pl.col("stage") == "end", grid.rank(), "layer", pl.col("direction") == "backward", "timestep")
    return rows.select("stage", "arm", "layer", "direction", "timestep", "seed", "value")


@quantity(
    words="decades by which the first layer's gradient lies below the last one's",
    facets=("stage",),
)
def layer_gap(grid: Grid) -> pl.DataFrame:
    """Mean over timesteps of the last layer's log10 norm minus the first one's, forward in time.

    Timesteps at which either is not finite are left out, null where all are; arms with one layer have no row.
    """
    forward = gradient_by_layer.of(grid).filter(direction="forward")
    first, last = (
        forward.filter(pl.col("layer") == end.over("arm")) for end in (pl.col("layer").min(), pl.col("layer").max())
    )
    keys = ["stage", "arm", "seed", "timestep"]
    pairs = first.join(last, on=keys, suffix="_last").filter(pl.col("layer") < pl.col("layer_last"))
    gap = pl.col("value_last") - pl.col("value")
    means = pairs.group_by("stage", "arm", "seed", maintain_order=True).agg(value=gap.filter(gap.is_finite()).mean())
    return means.sort(pl.col("stage") == "end", grid.rank())


@quantity(words="mean log10 gradient norm of the forward minus the backward states", facets=("stage",))
def direction_gap(grid: Grid) -> pl.DataFrame:
    """Mean over timesteps and layers of the log10 norm, forward minus backward; null where one has no finite norm."""
    rows = gradient_by_layer.of(grid).filter((pl.col("direction") == "backward").any().over("arm"))
    keys = ["stage", "arm", "seed"]
    forward = pl.col("direction") == "forward"
    finite = pl.col("value").is_finite()
    sides = [pl.col("value").filter(finite & side).mean() for side in (forward, ~forward)]
    return rows.group_by(keys, maintain_order=True).agg(value=sides[0] - sides[1])


@once_per_grid
def growth_by_singular_value(grid: Grid) -> pl.DataFrame:
    """Return a point per arm, seed and stage: how fast the gradient grows with lag, beside ln σ_max(W_hh).

    Of the first layer, forward in time. Columns `stage`, `arm`, `seed`, `log_sigma` (ln σ_max), `growth` (slope of
    ln ‖∂L/∂h_{T-k}‖ against k, in nats per timestep; null where no line fits), `num_left_out` (lags of a norm that is
    zero or not finite).
    """
    first = [pl.col("layer") == 0, pl.col("direction") == "forward"]
    rows = _by_lag(grid["traces"].filter(*first, part="recurrent", quantity="h"))
    fits = decay_rates(rows, ["stage", "arm", "step"])
    sigma = metric(grid["curves"], "sigma_max", part="recurrent", layer=0, direction="forward", gate="h")
    both = fits.join(sigma.select("arm", "seed", "step", sigma="value"), on=["arm", "seed", "step"])
    both = both.sort(pl.col("stage") == "end", grid.rank(), "seed")
    return both.select(
        "stage",
        "arm",
        "seed",
        log_sigma=pl.col("sigma").log(),
        growth=pl.col("slope") * math.log(10),
        num_left_out=pl.col("num_zero") + pl.col("num_nonfinite"),
    )


@quantity(
    words="share of gradients that shrink with lag where σ_max is {sigma_max}",
    scale="share",
    facets=("sigma_max",),
    pools_arms=True,
)
def shrinking_share(grid: Grid) -> pl.DataFrame:
    """Share of a seed's gradients, over all arms and stages, that shrink where σ_max is `below_1` or `above_1`."""
    return _by_side(grid, lambda growth: (growth < 0).cast(pl.Float64).mean())


@quantity(
    words="factor of the slowest fall, or fastest growth, of a gradient per timestep of lag where σ_max is {sigma_max}",
    scale="log10",
    facets=("sigma_max",),
    pools_arms=True,
)
def largest_growth(grid: Grid) -> pl.DataFrame:
    """log10 of the largest factor per timestep of lag among a seed's gradients, over all arms and stages.

    Of those where σ_max is `below_1`, or `above_1`. Below 1, all of them vanish.
    """
    return _by_side(grid, lambda growth: growth.max() / math.log(10))


def _by_side(grid: Grid, of_seed: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
    by_seed = growth_by_singular_value(grid).group_by("seed", maintain_order=True)
    sides = {"below_1": pl.col("log_sigma") < 0, "above_1": pl.col("log_sigma") > 0}
    values = [
        by_seed.agg(pl.lit(side).alias("sigma_max"), value=of_seed(pl.col("growth").filter(on_side).drop_nulls()))
        for side, on_side in sides.items()
    ]
    return pl.concat(values).with_columns(arm=pl.lit("all arms"))
