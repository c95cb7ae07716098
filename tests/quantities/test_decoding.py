from __future__ import annotations

from dataclasses import replace

import polars as pl

from pipeline.quantities import Effect, Grid
from tests.quantities.conftest import assert_effect, assert_nothing, difference, student, value, within_one
from tests.synthetic_decoding import Arm, decoding_grid

FACTORS = (0.98, 1.0, 1.02)
"""Of every error, by seed."""

ARMS = {"teacher forcing, none": Arm(drift=0.03), "linear, none": Arm(forced=0.05, drift=0.01)}
"""Free-running, the share of wrong tokens is `drift` (u - 1) higher at output position u = 1..10."""

TABLES = decoding_grid(ARMS)
FORCED = "teacher forcing, none"


def hurt(arm: str, seed: int) -> Grid:
    """Return the tables with one replica that diverged after its best weights."""
    it = (pl.col("arm") == arm) & (pl.col("seed") == seed)
    status = pl.when(it).then(pl.lit("diverged")).otherwise("status").alias("status")
    long = {name: TABLES[name].with_columns(status) for name in ("curves", "breakdown")}
    return replace(TABLES, runs=TABLES.runs.with_columns(status), long={**TABLES.long, **long}, _memo={})


def gap(found: Grid, arm: str = FORCED) -> Effect:
    return value(found, quantity="exposure_gap", arm=arm)


def test_exposure_gap_is_free_running_minus_teacher_forced() -> None:
    gaps = [4.5 * 0.03 * factor for factor in FACTORS]  # u - 1 is 4.5 on average
    assert_effect(gap(TABLES), student(gaps), 3)
    assert_effect(gap(hurt(FORCED, 2)), student(gaps[:2]), 2, num_left_out=1)
    assert_nothing(gap(TABLES, "linear, dot"))


def test_no_gap_of_two_shares_exceeds_one() -> None:
    errors = pl.col("seed").replace_strict({0: 0.1, 1: 0.9, 2: 1.0}, return_dtype=pl.Float64)
    value = pl.when(pl.col("mode") == "free_running").then(errors).otherwise(0.0)
    curves = TABLES["curves"].with_columns(value=value)
    found = gap(replace(TABLES, long={**TABLES.long, "curves": curves}, _memo={}))
    assert_effect(found, within_one(student([0.1, 0.9, 1.0])), 3)
    assert found.high == 1.0


def test_the_difference_of_exposure_gaps_is_paired_by_seed() -> None:
    differences = [4.5 * (0.01 - 0.03) * factor for factor in FACTORS]
    of = {"quantity": "exposure_gap", "arm": "linear, none"}
    assert_effect(difference(TABLES, {"arm": FORCED}, **of), student(differences), 3)
    partial = difference(hurt("linear, none", 0), {"arm": FORCED}, **of)
    assert_effect(partial, student(differences[1:]), 2, num_left_out=1)
    assert_nothing(difference(TABLES, {"arm": FORCED}, **of | {"arm": "linear, dot"}), num_left_out=3)
