from __future__ import annotations

from dataclasses import replace

import polars as pl

from pipeline.claims.effects.decoding import ExposureGap, ExposureGapDifference, ExposureGapGrowth
from pipeline.quantities import GridTables
from tests.claims.effects.conftest import assert_effect, assert_nothing, student
from tests.synthetic_decoding import Arm, decoding_grid

FACTORS = (0.98, 1.0, 1.02)
"""Of every error, by seed."""

ARMS = {"teacher forcing, none": Arm(drift=0.03), "linear, none": Arm(forced=0.05, drift=0.01)}
"""Running free, the share of wrong tokens is `drift` (u - 1) higher at output position u = 1..10."""

TABLES = decoding_grid(ARMS)
GAP = ExposureGap("exposure_gap", "teacher forcing, none")
NARROWER = ExposureGapDifference("exposure_gap_difference", "linear, none", "teacher forcing, none")
GROWTH = ExposureGapGrowth("exposure_gap_growth", "teacher forcing, none")


def diverged(arm: str, seed: int) -> GridTables:
    """Return the tables with one replica that diverged after its best weights."""
    it = (pl.col("arm") == arm) & (pl.col("seed") == seed)
    status = pl.when(it).then(pl.lit("diverged")).otherwise("status").alias("status")
    hurt = {table: getattr(TABLES, table).with_columns(status) for table in ("runs", "curves", "breakdown")}
    return replace(TABLES, **hurt)


def test_exposure_gap_is_running_free_less_teacher_forced() -> None:
    gaps = [4.5 * 0.03 * factor for factor in FACTORS]  # u - 1 is 4.5 on average
    assert_effect(GAP.of(TABLES), student(gaps), 3)
    assert_effect(GAP.of(diverged("teacher forcing, none", 2)), student(gaps[:2]), 2, num_left_out=1)
    assert GAP.said == "«teacher forcing, none»: token error running free less teacher-forced, by seed"
    assert_nothing(ExposureGap("exposure_gap", "linear, dot").of(TABLES))


def test_exposure_gap_difference_is_paired_by_seed() -> None:
    differences = [4.5 * (0.01 - 0.03) * factor for factor in FACTORS]
    assert_effect(NARROWER.of(TABLES), student(differences), 3)
    assert_effect(NARROWER.of(diverged("linear, none", 0)), student(differences[1:]), 2, num_left_out=1)
    told = "gap in token error between running free and teacher-forced, by seed"
    assert NARROWER.said == f"«linear, none» less «teacher forcing, none»: {told}"
    absent = ExposureGapDifference("exposure_gap_difference", "linear, dot", "teacher forcing, none")
    assert_nothing(absent.of(TABLES), num_left_out=3)


def test_exposure_gap_growth_is_from_the_first_half_of_the_output_to_the_second() -> None:
    growths = [(7 - 2) * 0.03 * factor for factor in FACTORS]  # u - 1 is 2 and 7 on average
    assert_effect(GROWTH.of(TABLES), student(growths), 3)
    assert_effect(GROWTH.of(diverged("teacher forcing, none", 2)), student(growths[:2]), 2)
    told = "gap in token error in the second half of the output less the first, by seed"
    assert GROWTH.said == f"«teacher forcing, none»: {told}"
    assert_nothing(ExposureGapGrowth("exposure_gap_growth", "linear, dot").of(TABLES))


def test_exposure_gap_growth_counts_tokens_not_positions() -> None:
    num = pl.when(pl.col("at") == 10).then(900).otherwise("num").alias("num")
    weighted = replace(TABLES, breakdown=TABLES.breakdown.with_columns(num))
    second = (5 + 6 + 7 + 8 + 3 * 9) / 7  # of u - 1, three times as many tokens at u = 10
    assert_effect(GROWTH.of(weighted), student([(second - 2) * 0.03 * factor for factor in FACTORS]), 3)


def test_of_one_output_position_there_is_no_growth() -> None:
    first = replace(TABLES, breakdown=TABLES.breakdown.filter(pl.col("at") == 1))
    assert_nothing(GROWTH.of(first), num_left_out=3)
