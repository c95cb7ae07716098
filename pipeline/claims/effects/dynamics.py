"""What was measured inside networks: curves, gates, attention, truncation, growth of gradients against σ_max."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.claims.effects.effect import NOTHING, SOUND, WHEN, Effect, Stage, as_effect, as_factor, named
from pipeline.figures.growth_by_singular_value import table as growth_points
from pipeline.figures.stages import staged, top_forward
from pipeline.quantities import GridTables, mean_interval, paired_difference

_ATTENTION = {
    "alignment_error": ("alignment error", (0.0, 1.0)),
    "similarity_rank_correlation": ("rank correlation of weight and similarity", (-1.0, 1.0)),
    "within_class_share": ("weight within the class over chance", (0.0, math.inf)),
}
_UNSEEN = re.compile(r"test_loss\[T=(\d+)\]")


@dataclass(frozen=True)
class CurveMean:
    """A curve of one arm at the longest length: each seed's mean over all its steps, then the mean over seeds."""

    name: Literal["curve_mean"]
    arm: str
    metric: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: {_told(self.metric)}, mean over steps"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        values = by_seed(tables, self.metric).filter(pl.col("arm") == self.arm)
        return as_effect(mean_interval(values, "value", ["arm"]))


@dataclass(frozen=True)
class CurveDifference:
    """A curve of one arm less that of another, each seed's mean over its steps, paired by seed."""

    name: Literal["curve_difference"]
    arm: str
    than: str
    metric: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)} less {named(self.than)}: {_told(self.metric)}, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        values = by_seed(tables, self.metric)
        return as_effect(paired_difference(values, "value", "arm", self.arm, self.than))


@dataclass(frozen=True)
class UnseenOverBaseline:
    """Test loss at a length never trained on over the dataset's baseline: below 1 it beats the best memoryless answer.

    Of the networks trained at the longest length, at the nearest or the farthest of the longer lengths tested.
    """

    name: Literal["unseen_over_baseline"]
    arm: str
    unseen: Literal["nearest", "farthest"]

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: test loss at the {self.unseen} unseen length over the baseline (geometric mean)"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        metrics = tables.at_longest(tables.curves)["metric"].unique().to_list()
        lengths = sorted(int(found[1]) for metric in metrics if (found := _UNSEEN.fullmatch(metric)))
        beyond = [length for length in lengths if length > tables.lengths[-1]]
        if not beyond:
            return NOTHING
        baselines = tables.at_longest(tables.runs).select("trial_id", "seed", "baseline_loss")
        length = beyond[0 if self.unseen == "nearest" else -1]
        values = by_seed(tables, f"test_loss[T={length}]").filter(pl.col("arm") == self.arm)
        logs = values.join(baselines, on=["trial_id", "seed"]).with_columns(
            log10=(pl.col("value") / pl.col("baseline_loss")).log10()
        )
        return as_factor(mean_interval(logs, "log10", ["arm"]))


@dataclass(frozen=True)
class GateMean:
    """The mean value of a gate over the probe's sequences, timesteps and units."""

    name: Literal["gate_mean"]
    arm: str
    gate: str
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: mean of gate {self.gate}, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        rows = _gates(tables, self.arm, self.gate, self.stage).filter(pl.col("quantity") == "mean")
        return as_effect(mean_interval(rows, "value", ["arm"], bounds=(0.0, 1.0)))


@dataclass(frozen=True)
class RetentionFactor:
    """What the keeping gate leaves of the past, per timestep: its product over the whole sequence, to the power 1/T."""

    name: Literal["retention_factor"]
    arm: str
    gate: str
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: share that gate {self.gate} keeps per timestep, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        rows = _gates(tables, self.arm, self.gate, self.stage).filter(pl.col("quantity") == "retention")
        longest = rows.filter(pl.col("position") == pl.col("position").max())
        rates = longest.with_columns(rate=pl.col("value") / pl.col("position"))
        return as_factor(mean_interval(rates, "rate", ["arm"]))


@dataclass(frozen=True)
class AttentionMean:
    """Where the attention of one arm looks, over the probe's sequences and positions, at the longest length."""

    name: Literal["attention_mean"]
    arm: str
    metric: Literal["alignment_error", "similarity_rank_correlation", "within_class_share"]
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: {_ATTENTION[self.metric][0]}, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        rows = tables.at_longest(tables.curves).filter(pl.col("arm") == self.arm, pl.col("metric") == self.metric)
        stage = staged(rows).filter(pl.col("stage") == self.stage)
        return as_effect(mean_interval(stage, "value", ["arm"], bounds=_ATTENTION[self.metric][1]))


@dataclass(frozen=True)
class TruncationBias:
    """How far the gradient that flows back through `backward_length` timesteps only is from the full one."""

    name: Literal["truncation_bias"]
    arm: str
    backward_length: int
    quantity: Literal["cosine", "relative_error"]
    stage: Stage

    @property
    def said(self) -> str:
        """What is measured, in words."""
        told = self.quantity.replace("_", " ")
        return f"{named(self.arm)}: {told} of the {self.backward_length}-timestep gradient, {WHEN[self.stage]}"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        rows = staged(tables.at_longest(tables.truncation)).filter(
            pl.col("arm") == self.arm,
            pl.col("stage") == self.stage,
            pl.col("backward_length") == self.backward_length,
        )
        return as_effect(mean_interval(rows, self.quantity, ["arm"]))


@dataclass(frozen=True)
class ShrinkingShare:
    """Share of gradients that shrink with lag where σ_max(W_hh) is below, or above, 1: each seed's, over all arms."""

    name: Literal["shrinking_share"]
    side: Literal["below", "above"]

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"share of gradients that shrink where σ_max is {self.side} 1"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        points = growth_points(tables).drop_nulls("growth")
        on_side = pl.col("log_sigma") < 0 if self.side == "below" else pl.col("log_sigma") > 0
        shrinks = (pl.col("growth") < 0).cast(pl.Float64).mean()
        shares = points.filter(on_side).group_by("seed", maintain_order=True).agg(share=shrinks)
        return as_effect(mean_interval(shares.with_columns(of=pl.lit("all")), "share", ["of"], bounds=(0.0, 1.0)))


def by_seed(tables: GridTables, metric: str) -> pl.DataFrame:
    """Return each seed's mean over its finite steps; null, and so counted, where it has none or diverged."""
    rows = tables.at_longest(tables.curves).filter(pl.col("metric") == metric)
    known = pl.col("value").filter(SOUND, pl.col("value").is_finite())
    return rows.group_by("trial_id", "arm", "seed", maintain_order=True).agg(known.mean())


def _gates(tables: GridTables, arm: str, gate: str, stage: Stage) -> pl.DataFrame:
    rows = top_forward(tables.at_longest(tables.gates))
    return staged(rows).filter(pl.col("arm") == arm, pl.col("gate") == gate, pl.col("stage") == stage)


def _told(metric: str) -> str:
    """Return «test loss (T=200)» of `test_loss[T=200]`."""
    return metric.replace("_", " ").replace("[", " (").replace("]", ")")
