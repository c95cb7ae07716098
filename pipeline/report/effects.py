"""The effects that claims are judged by: each a number with its 95 % interval over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.config import require
from pipeline.figures.gradient_by_lag import relative_norms
from pipeline.figures.words import listed, name_of, series_name
from pipeline.statistics import GridTables, decay_rates, mean_interval, paired_difference
from pipeline.statistics.solved import solved_share

Stage = Literal["initialisation", "end"]
_WHEN = {"initialisation": "at initialisation", "end": "after training"}


@dataclass(frozen=True)
class Effect:
    """A number and its interval; None where there is none. `num_left_out` seeds had no finite value."""

    value: float | None
    low: float | None
    high: float | None
    num_seeds: int
    num_left_out: int


@dataclass(frozen=True)
class DecayFactor:
    """Factor of the gradient norm per timestep of lag, at the longest length: 10^(mean slope over seeds)."""

    name: Literal["decay_factor"]
    arm: str
    quantity: Literal["h", "c"]
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{series_name(self.arm, self.quantity)}: factor per timestep of lag, {_WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        slopes = _slopes(tables, self.stage).filter(arm=self.arm, quantity=self.quantity)
        return _as_factor(mean_interval(slopes, "slope", ["arm"]))


@dataclass(frozen=True)
class DecayFit:
    """How geometric the decay is: R² of a straight line through log10 norm against lag, mean over seeds."""

    name: Literal["decay_fit"]
    arm: str
    quantity: Literal["h", "c"]
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{series_name(self.arm, self.quantity)}: R² of log norm on lag, {_WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        fits = _slopes(tables, self.stage).filter(arm=self.arm, quantity=self.quantity)
        interval = mean_interval(fits, "r_squared", ["arm"])
        return _as_effect(interval.with_columns(pl.col("high").clip(upper_bound=1.0)))  # no R² is above 1


@dataclass(frozen=True)
class DecayRatio:
    """Factor per timestep of one arm's state over that of another arm's h, paired by seed: above 1 decays slower."""

    name: Literal["decay_ratio"]
    arm: str
    quantity: Literal["h", "c"]
    than: str
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        ours, theirs = series_name(self.arm, self.quantity), series_name(self.than, "h")
        return f"{ours} over {theirs}: ratio of factors per timestep of lag, {_WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        slopes = _slopes(tables, self.stage)
        ours = (pl.col("arm") == self.arm) & (pl.col("quantity") == self.quantity)
        theirs = (pl.col("arm") == self.than) & (pl.col("quantity") == "h")
        side = pl.when(ours).then(pl.lit("ours")).when(theirs).then(pl.lit("theirs"))
        sides = slopes.with_columns(side=side).drop_nulls("side")
        return _as_factor(paired_difference(sides, "slope", "side", "ours", "theirs"))


@dataclass(frozen=True)
class SolvedShare:
    """Share of seeds that reached the criterion at the shortest or longest length; of several arms, the best."""

    name: Literal["solved_share"]
    arms: tuple[str, ...]
    length: Literal["shortest", "longest"]

    def __post_init__(self) -> None:
        require(len(self.arms) > 0, "arms", "at least one arm", list(self.arms))

    @property
    def said(self) -> str:
        """What is measured, in words."""
        best = "best of " if len(self.arms) > 1 else ""
        arms = listed([name_of(arm) for arm in self.arms])
        return f"{best}{arms}: share of seeds that reach the criterion at the {self.length} length"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        length = tables.lengths[0 if self.length == "shortest" else -1]
        shares = solved_share(tables.runs).filter(pl.col("length") == length, pl.col("arm").is_in(self.arms))
        if shares.is_empty():
            return Effect(None, None, None, 0, 0)
        best = shares.sort("share", descending=True, maintain_order=True).row(0, named=True)
        return Effect(best["share"], best["low"], best["high"], best["num_seeds"], 0)


AnyEffect = DecayFactor | DecayFit | DecayRatio | SolvedShare
"""What a check in configs/claims.yaml may measure."""


def _slopes(tables: GridTables, stage: Stage) -> pl.DataFrame:
    norms = relative_norms(tables).filter(pl.col("stage") == stage)
    return decay_rates(norms, ["arm", "quantity"])


def _as_factor(interval: pl.DataFrame) -> Effect:
    """Return the effect of slopes: a mean of logarithms as a factor per timestep."""
    return _as_effect(interval.with_columns((10.0 ** pl.col(name)).alias(name) for name in ("mean", "low", "high")))


def _as_effect(interval: pl.DataFrame) -> Effect:
    if interval.is_empty():
        return Effect(None, None, None, 0, 0)
    row = interval.row(0, named=True)
    left_out = row["num_nonfinite"] + row["num_missing"]
    return Effect(row["mean"], row["low"], row["high"], row["num_seeds"], left_out)
