"""How fast the gradient falls with lag: a least-squares line through log10 ‖∂L/∂h_{T-k}‖ for each seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import stats

from pipeline.quantities.intervals import CONFIDENCE


def decay_rates(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the slope of log10 norm against lag for each group and seed, and what follows from it.

    A norm that is exactly zero (-inf) lies on no line: the fit is over the finite lags, and says how many it left out.

    Args:
        frame: Columns `by`, `seed`, `lag` (timesteps back from the last one) and `log10_norm`.
        by: The columns that tell groups apart, besides the seed.

    Returns:
        Columns `by`, `seed`, `slope` (decades per timestep, negative where the gradient vanishes; null with fewer than
        two finite lags), `r_squared` (share of the variance over lags that the line explains), `decay_factor`
        (10^slope, per timestep), `half_life` (timesteps, null where nothing decays), `num_lags` (in the
        fit), `num_zero` (norms of exactly zero) and `num_nonfinite` (NaN or +inf).
    """
    finite, zero = pl.col("log10_norm").is_finite(), pl.col("log10_norm") == -math.inf
    lag, height = pl.col("lag").filter(finite).cast(pl.Float64), pl.col("log10_norm").filter(finite)
    fits = frame.group_by([*by, "seed"], maintain_order=True).agg(
        slope=pl.when(finite.sum() >= 2).then(pl.cov(lag, height) / lag.var()),
        r_squared=pl.when(finite.sum() >= 2).then(pl.corr(lag, height) ** 2),
        num_lags=finite.sum().cast(pl.Int64),
        num_zero=zero.sum().cast(pl.Int64),
        num_nonfinite=(finite.not_() & zero.not_()).sum().cast(pl.Int64),
    )
    return fits.with_columns(
        decay_factor=10.0 ** pl.col("slope"),
        half_life=pl.when(pl.col("slope") < 0).then(-math.log10(2.0) / pl.col("slope")),
    ).select(*by, "seed", "slope", "r_squared", "decay_factor", "half_life", "num_lags", "num_zero", "num_nonfinite")


def line_interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float] | None:
    """Return the slope of a least-squares line with its 95 % interval (Student's t); None below three points."""
    if len(x) < 3 or not np.isfinite(y).all():
        return None
    line = stats.linregress(x, y)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 2)) * float(line.stderr)
    return float(line.slope), float(line.slope) - half, float(line.slope) + half
