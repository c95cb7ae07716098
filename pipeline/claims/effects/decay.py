"""How the gradient falls with lag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.claims.effects.effect import WHEN, Effect, Stage, as_effect, as_factor, named
from pipeline.figures.gradient_by_lag import relative_norms
from pipeline.quantities import GridTables, decay_rates, mean_interval, paired_difference


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
        return f"{_state(self.arm, self.quantity)}: factor per timestep of lag, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        slopes = _slopes(tables, self.stage).filter(arm=self.arm, quantity=self.quantity)
        return as_factor(mean_interval(slopes, "slope", ["arm"]))


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
        return f"{_state(self.arm, self.quantity)}: R² of log norm on lag, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        fits = _slopes(tables, self.stage).filter(arm=self.arm, quantity=self.quantity)
        return as_effect(mean_interval(fits, "r_squared", ["arm"], bounds=(0.0, 1.0)))


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
        ours, theirs = _state(self.arm, self.quantity), _state(self.than, "h")
        return f"{ours} over {theirs}: ratio of factors per timestep of lag, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        slopes = _slopes(tables, self.stage)
        ours = (pl.col("arm") == self.arm) & (pl.col("quantity") == self.quantity)
        theirs = (pl.col("arm") == self.than) & (pl.col("quantity") == "h")
        side = pl.when(ours).then(pl.lit("ours")).when(theirs).then(pl.lit("theirs"))
        sides = slopes.with_columns(side=side).drop_nulls("side")
        return as_factor(paired_difference(sides, "slope", "side", "ours", "theirs"))


def _slopes(tables: GridTables, stage: Stage) -> pl.DataFrame:
    norms = relative_norms(tables).filter(pl.col("stage") == stage)
    return decay_rates(norms, ["arm", "quantity"])


def _state(arm: str, quantity: str) -> str:
    return f"{named(arm)} {quantity}"
