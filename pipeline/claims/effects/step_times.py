"""How long a step takes: of one arm against another, and as sequences grow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import polars as pl
from scipy import stats

from pipeline.claims.effects.effect import NOTHING, SOUND, Effect, named
from pipeline.quantities import CONFIDENCE, GridTables, line_interval

NORMAL_QUANTILE = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class StepTimeRatio:
    """Time of a step of one arm over that of another, at the longest length.

    All seeds of a setting share one clock, so this interval is over the portions of training that were timed apart.
    """

    name: Literal["step_time_ratio"]
    arm: str
    than: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)} over {named(self.than)}: ratio of step times (interval over timed portions)"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        runs = tables.at_longest(tables.runs).filter(SOUND)
        timed = runs.drop_nulls("step_time_error_s").unique("arm", keep="first")
        clocks = {row["arm"]: row for row in timed.iter_rows(named=True)}
        if not {self.arm, self.than} <= clocks.keys():
            return NOTHING
        sides = [clocks[arm] for arm in (self.arm, self.than)]
        log_ratio = math.log(sides[0]["step_time_s"] / sides[1]["step_time_s"])
        error = math.hypot(*(side["step_time_error_s"] / side["step_time_s"] for side in sides))
        low, high = (math.exp(log_ratio + sign * NORMAL_QUANTILE * error) for sign in (-1, 1))
        num_seeds = min(runs.filter(pl.col("arm") == arm)["seed"].n_unique() for arm in (self.arm, self.than))
        return Effect(math.exp(log_ratio), low, high, num_seeds, 0)


@dataclass(frozen=True)
class StepTimeExponent:
    """The power of T with which the time of a step grows: slope of log step time on log T, its interval over lengths.

    All seeds of a setting share one clock, so this interval is the line's, over the lengths that were tried.
    """

    name: Literal["step_time_exponent"]
    arm: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: power of T with which the time of a step grows (interval over lengths)"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        runs = tables.runs.filter(SOUND, pl.col("arm") == self.arm)
        times = runs.group_by("length").agg(pl.col("step_time_s").first()).sort("length")
        line = line_interval(times["length"].log10().to_numpy(), times["step_time_s"].log10().to_numpy())
        return NOTHING if line is None else Effect(*line, num_seeds=runs["seed"].n_unique(), num_left_out=0)
