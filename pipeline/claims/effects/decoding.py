"""How much worse a decoder is that is given its own tokens than one that is given the true ones: exposure bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from pipeline.claims.effects.dynamics import by_seed
from pipeline.claims.effects.effect import Effect, as_effect, named
from pipeline.figures.decoders import errors_by
from pipeline.quantities import GridTables, mean_interval, paired_difference


@dataclass(frozen=True)
class ExposureGap:
    """Share of wrong tokens on the test sequences, running free less teacher-forced: each seed's, then the mean."""

    name: Literal["exposure_gap"]
    arm: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: token error running free less teacher-forced, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        return as_effect(mean_interval(_gaps(tables).filter(pl.col("arm") == self.arm), "gap", ["arm"]))


@dataclass(frozen=True)
class ExposureGapDifference:
    """The exposure gap of one arm less that of another, paired by seed: below 0 is narrower."""

    name: Literal["exposure_gap_difference"]
    arm: str
    than: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        pair = f"{named(self.arm)} less {named(self.than)}"
        return f"{pair}: gap in token error between running free and teacher-forced, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        return as_effect(paired_difference(_gaps(tables), "gap", "arm", self.arm, self.than))


@dataclass(frozen=True)
class ExposureGapGrowth:
    """The exposure gap in the second half of the output positions less that in the first, paired by seed.

    Neither the first position nor the last can tell: before the first token both decoders have read the same, and the
    last may be the end sign, which is easy. What is hard by its place is so in both modes, and drops out.
    """

    name: Literal["exposure_gap_growth"]
    arm: str

    @property
    def said(self) -> str:
        """What is measured, in words."""
        return f"{named(self.arm)}: gap in token error in the second half of the output less the first, by seed"

    def of(self, tables: GridTables) -> Effect:
        """Return the effect in one grid."""
        rows = errors_by(tables, "output_position").filter(pl.col("arm") == self.arm)
        second = pl.col("at") > pl.col("at").max() / 2
        free = pl.col("mode") == "free_running"
        num_wrong = pl.col("error") * pl.col("num")
        gap = (num_wrong.filter(free).sum() - num_wrong.filter(~free).sum()) / pl.col("num").filter(free).sum()
        halves = rows.with_columns(half=pl.when(second).then(pl.lit("second")).otherwise(pl.lit("first")))
        gaps = halves.group_by("half", "seed", maintain_order=True).agg(gap=gap)
        return as_effect(paired_difference(gaps, "gap", "half", "second", "first"))


def _gaps(tables: GridTables) -> pl.DataFrame:
    """Return the gap of every replica: columns `arm`, `seed`, `gap`; null where it diverged."""
    free, forced = (by_seed(tables, f"test_token_error[{mode}]") for mode in ("free_running", "teacher_forced"))
    pairs = free.join(forced, on=["arm", "seed"], suffix="_forced", maintain_order="left")
    return pairs.select("arm", "seed", gap=pl.col("value") - pl.col("value_forced"))
