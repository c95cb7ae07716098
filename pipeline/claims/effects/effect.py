"""What an effect is: a number with its 95 % interval over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.figures.words import name_of
from pipeline.results import FINISHED

Stage = Literal["initialisation", "end"]
WHEN = {"initialisation": "at initialisation", "end": "after training"}
SOUND = pl.col("status").is_in(FINISHED)
"""Whether a replica has an end of training: it neither diverged nor failed."""


@dataclass(frozen=True)
class Effect:
    """A number and its interval; None where there is none. `num_left_out` seeds had no finite value."""

    value: float | None
    low: float | None
    high: float | None
    num_seeds: int
    num_left_out: int


NOTHING = Effect(None, None, None, 0, 0)


def named(arm: str) -> str:
    """Return the name of an arm as a sentence has it: of several words in quotation marks, «ReLU, identity»."""
    return f"«{name_of(arm)}»" if " " in arm else name_of(arm)


def as_effect(interval: pl.DataFrame) -> Effect:
    """Return the only row of an interval's frame (columns `mean`, `low`, `high`, …); `NOTHING` of an empty one."""
    if interval.is_empty():
        return NOTHING
    row = interval.row(0, named=True)
    left_out = row["num_nonfinite"] + row["num_missing"]
    return Effect(row["mean"], row["low"], row["high"], row["num_seeds"], left_out)


def as_factor(interval: pl.DataFrame) -> Effect:
    """Return the effect of logarithms to base 10: their mean as a factor."""
    return as_effect(interval.with_columns((10.0 ** pl.col(name)).alias(name) for name in ("mean", "low", "high")))


def as_share(interval: pl.DataFrame) -> Effect:
    """Return the only row of a share's frame (columns `share`, `low`, `high`, `num_seeds`)."""
    if interval.is_empty():
        return NOTHING
    row = interval.row(0, named=True)
    return Effect(row["share"], row["low"], row["high"], row["num_seeds"], 0)
