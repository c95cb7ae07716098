"""How trainings ended: what their columns say, of one arm, of two compared seed by seed, over lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.claims.effects.effect import SOUND, Effect, as_effect, as_factor, as_share, named
from pipeline.config import require
from pipeline.errors import unknown_name
from pipeline.figures.words import listed
from pipeline.quantities import GridTables, mean_interval, paired_difference, share_interval
from pipeline.quantities.solved import solved_share
from pipeline.results import SCHEMAS

Length = Literal["shortest", "longest"]
_NUMBERS = [name for name, dtype in SCHEMAS["trials"].items() if dtype.is_numeric()]
_SHARES = {"best_validation_error", "test_error", "clipped_share"}
_ENDED = {"ok": "ended ok", "diverged": "diverged", "timed_out": "ran out of time"}


@dataclass(frozen=True)
class SolvedShare:
    """Share of seeds that reached the criterion at the shortest or longest length; of several arms, the best."""

    name: Literal["solved_share"]
    arms: tuple[str, ...]
    length: Length

    def __post_init__(self) -> None:
        require(len(self.arms) > 0, "arms", "at least one arm", list(self.arms))

    @property
    def said(self) -> str:
        """What is measured, in words."""
        best = "best of " if len(self.arms) > 1 else ""
        arms = listed([named(arm) for arm in self.arms])
        return f"{best}{arms}: share of seeds that reach the criterion at the {self.length} length"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        shares = _at(solved_share(tables.runs), tables, self.length).filter(pl.col("arm").is_in(self.arms))
        return as_share(shares.sort("share", descending=True, maintain_order=True).head(1))


@dataclass(frozen=True)
class OutcomeShare:
    """Share of seeds that ended so at the longest length."""

    name: Literal["outcome_share"]
    arm: str
    status: Literal["ok", "diverged", "timed_out"]

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: share of seeds that {_ENDED[self.status]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        runs = tables.at_longest(tables.runs).filter(pl.col("arm") == self.arm, pl.col("status") != "error")
        events = runs.with_columns(event=pl.col("status") == self.status)
        return as_share(share_interval(events, "event", ["arm"]))


@dataclass(frozen=True)
class OutcomeDifference:
    """Share of an arm's settings that ended so, less that of another arm: all of them, not the selected one alone.

    Of each seed, at the longest length: of an arm that was tried at several learning rates, at how many it diverged.
    """

    name: Literal["outcome_difference"]
    arm: str
    than: str
    status: Literal["ok", "diverged", "timed_out"]

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)} less {named(self.than)}: share of all settings that {_ENDED[self.status]}, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        runs = tables.at_longest(tables.all_runs).filter(pl.col("status") != "error")
        shares = runs.group_by("arm", "seed", maintain_order=True).agg(
            share=(pl.col("status") == self.status).cast(pl.Float64).mean()
        )
        return as_effect(paired_difference(shares, "share", "arm", self.arm, self.than))


@dataclass(frozen=True)
class Metric:
    """A column of the results of one arm: its mean over the seeds that did not diverge; those that did are left out."""

    name: Literal["metric"]
    arm: str
    column: str
    length: Length

    def __post_init__(self) -> None:
        _require_column(self.column)

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: {_told(self.column)} at the {self.length} length"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        runs = _at(tables.runs, tables, self.length).filter(pl.col("arm") == self.arm)
        values = runs.with_columns(value=_of_sound(self.column))
        bounds = (0.0, 1.0) if self.column in _SHARES else None
        return as_effect(mean_interval(values, "value", ["arm"], bounds=bounds))


@dataclass(frozen=True)
class MetricRatio:
    """A column of one arm over the same of another, paired by seed: the geometric mean of the ratios."""

    name: Literal["metric_ratio"]
    arm: str
    than: str
    column: str
    length: Length

    def __post_init__(self) -> None:
        _require_column(self.column)

    @property
    def said(self) -> str:
        """What is measured, in words."""
        pair = f"{named(self.arm)} over {named(self.than)}"
        return f"{pair}: ratio of {_told(self.column)} at the {self.length} length, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        logs = _at(tables.runs, tables, self.length).with_columns(log10=_of_sound(self.column).log10())
        return as_factor(paired_difference(logs, "log10", "arm", self.arm, self.than))


@dataclass(frozen=True)
class MetricDifference:
    """A column of one arm less the same of another, paired by seed."""

    name: Literal["metric_difference"]
    arm: str
    than: str
    column: str
    length: Length

    def __post_init__(self) -> None:
        _require_column(self.column)

    @property
    def said(self) -> str:
        """What is measured, in words."""
        pair = f"{named(self.arm)} less {named(self.than)}"
        return f"{pair}: {_told(self.column)} at the {self.length} length, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        values = _at(tables.runs, tables, self.length).with_columns(value=_of_sound(self.column))
        return as_effect(paired_difference(values, "value", "arm", self.arm, self.than))


@dataclass(frozen=True)
class LengthRatio:
    """A column of one arm at the longest length over the same at the shortest, paired by seed."""

    name: Literal["length_ratio"]
    arm: str
    column: str

    def __post_init__(self) -> None:
        _require_column(self.column)

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: ratio of {_told(self.column)}, longest over shortest length, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        return as_factor(_longest_less_shortest(tables, self.arm, _of_sound(self.column).log10()))


@dataclass(frozen=True)
class LengthDifference:
    """A column of one arm at the longest length less the same at the shortest, paired by seed."""

    name: Literal["length_difference"]
    arm: str
    column: str

    def __post_init__(self) -> None:
        _require_column(self.column)

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: {_told(self.column)} at the longest length less that at the shortest, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        return as_effect(_longest_less_shortest(tables, self.arm, _of_sound(self.column)))


def _at(frame: pl.DataFrame, tables: GridTables, length: Length) -> pl.DataFrame:
    return frame.filter(pl.col("length") == tables.lengths[0 if length == "shortest" else -1])


def _longest_less_shortest(tables: GridTables, arm: str, value: pl.Expr) -> pl.DataFrame:
    """Return the mean difference of an arm's values, paired by seed; no row of a single length."""
    runs = tables.runs.filter(pl.col("arm") == arm).with_columns(value=value, length=pl.col("length").cast(pl.String))
    ends = str(tables.lengths[-1]), str(tables.lengths[0])
    known = runs if len(tables.lengths) > 1 else runs.clear()  # a length less itself would be 0 by construction
    return paired_difference(known, "value", "length", *ends)


def _require_column(column: str) -> None:
    told = f"a number of the trials table ({unknown_name('column', column, _NUMBERS)})"
    require(column in _NUMBERS, "column", told, column)


def _of_sound(column: str) -> pl.Expr:
    """Return the values of a column, null where a replica diverged or failed: its seed is left out, and counted."""
    return pl.when(SOUND).then(pl.col(column).cast(pl.Float64))


def _told(column: str) -> str:
    name = column.removesuffix("_s").replace("_", " ")
    return f"number of {name.removeprefix('num ')}" if name.startswith("num ") else name
