from __future__ import annotations

import polars as pl
import pytest

from pipeline.quantities.decoding import (
    MAX_BINS,
    distinct_runs,
    error_by_position,
    error_by_source_length,
    exposed,
    exposure_gap,
    sequence_error_by_bin,
)
from pipeline.quantities.quantity import Quantity
from pipeline.quantities.training import final_free_running_error
from tests.quantities.conftest import value
from tests.synthetic_attention import grid, writing
from tests.synthetic_decoding import ATTENTION, LAST, SCHEDULES, Arm, Setting, decoding_grid, token_error, with_tables

BIN = ["source_length", "shortest", "longest"]


def test_errors_are_of_the_last_step_and_null_of_replicas_that_did_not_finish() -> None:
    tables = decoding_grid({"a": Arm(), "b": Arm(diverged=(1,))})
    early = tables["breakdown"].with_columns(step=pl.lit(LAST - 1, pl.Int64), error=pl.lit(1.0))
    lost = early.with_columns(step=pl.lit(LAST, pl.Int64), status=pl.lit("diverged"), seed=pl.lit(1, pl.Int64))
    breakdown = pl.concat([tables["breakdown"], early, lost.filter(arm="b")])
    rows = error_by_source_length.of(with_tables(tables, breakdown=breakdown))
    assert rows["value"].max() < 0.6
    assert rows.filter(pl.col("value").is_null()).select("arm", "seed").unique().rows() == [("b", 1)]
    assert rows["at"].unique().sort().to_list() == [10, 20, 40]


@pytest.mark.parametrize("quantity", [error_by_position, error_by_source_length, sequence_error_by_bin, exposure_gap])
@pytest.mark.parametrize("leaves_rows", [True, False])
def test_a_replica_that_did_not_finish_is_counted_whether_it_left_errors_or_not(
    quantity: Quantity, leaves_rows: bool
) -> None:
    whole, hurt = decoding_grid({"b": Arm()}), decoding_grid({"b": Arm(diverged=(1,))})
    is_lost = pl.col("seed") == 1
    status = pl.when(is_lost).then(pl.lit("diverged")).otherwise("status").alias("status")
    left = {name: whole[name].with_columns(status) for name in ("breakdown", "curves")}
    found = with_tables(hurt, **left) if leaves_rows else hurt
    means = quantity.summary(quantity.of(found), ["arm", *quantity.facets])
    assert means.select("num_seeds", "num_missing").unique().rows() == [(2, 1)]
    expected = quantity.of(whole).filter(~is_lost)
    assert quantity.of(found).drop_nulls("value")["value"].to_list() == pytest.approx(expected["value"].to_list())


def test_the_exposure_gap_is_paired_by_seed_and_null_of_what_diverged() -> None:
    tables = decoding_grid(SCHEDULES | {"lost": Arm(diverged=(2,))}, Setting(spread=0.1))
    gaps = exposure_gap.summary(exposure_gap.of(tables))
    row = gaps.filter(arm="linear").row(0, named=True)
    half = 4.302653 * 0.0045 / 3**0.5  # t(0.975, 2) s/√n, the gap being 0.045 · (0.9, 1, 1.1)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.045, 0.045 - half, 0.045 + half))
    assert gaps.filter(arm="lost")["num_seeds"].to_list() == [2]


def test_few_source_lengths_stand_alone() -> None:
    rows = sequence_error_by_bin.of(decoding_grid(ATTENTION)).filter(arm="none")
    drawn = sequence_error_by_bin.summary(rows, ["arm", *BIN])
    assert drawn["source_length"].to_list() == [10, 20, 40]
    assert drawn["mean"].to_list() == pytest.approx([0.03, 0.03 + 0.77 / 3, 0.80])
    assert drawn["num_seeds"].to_list() == [3] * 3
    assert drawn["low"][2] < 0.8 < drawn["high"][2]


def test_many_source_lengths_are_put_into_bins_weighted_by_sequences() -> None:
    tables = decoding_grid({"none": Arm(errors=(0.0, 0.32))}, Setting(source_lengths=range(1, 34), spread=0.0))
    one, two = pl.col("at") == 1, pl.col("at") == 2
    error = pl.when(one).then(0.8).when(two).then(0.2).otherwise("error")  # 300 and 100 of the first bin's sequences
    by_length = pl.col("by") == "source_length"
    breakdown = tables["breakdown"].with_columns(
        error=pl.when(by_length).then(error).otherwise("error"),
        num=pl.when(by_length & one).then(300).otherwise("num"),
    )
    rows = sequence_error_by_bin.of(with_tables(tables, breakdown=breakdown))
    drawn = sequence_error_by_bin.summary(rows, ["arm", *BIN])
    assert drawn.height == MAX_BINS
    first, last = drawn.row(0, named=True), drawn.row(-1, named=True)
    assert (first["shortest"], first["longest"], last["longest"]) == (1, 2, 33)
    assert first["mean"] == pytest.approx((300 * 0.8 + 100 * 0.2) / 400)
    assert first["source_length"] == pytest.approx((300 * 1 + 100 * 2) / 400)


def test_networks_trained_at_several_lengths_are_each_tested_at_their_own() -> None:
    arms = ATTENTION | {"lost": Arm(diverged=(0, 1, 2))}
    tables = decoding_grid(arms, Setting(trained_lengths=(10, 20, 40)))
    tables = with_tables(tables, breakdown=tables["breakdown"].with_columns(error=pl.lit(1.0)))
    drawn = sequence_error_by_bin.summary(sequence_error_by_bin.of(tables), ["arm", *BIN])
    assert drawn.filter(arm="additive")["mean"].to_list() == pytest.approx([0.02, 0.03, 0.05])
    assert drawn.filter(arm="lost")["num_seeds"].to_list() == [0] * 3


def test_the_final_error_is_that_of_the_last_step() -> None:
    tables = decoding_grid({"linear": SCHEDULES["linear"], "lost": Arm(diverged=(2,))}, Setting(spread=0.0))
    rows = final_free_running_error.of(tables)
    expected = token_error(SCHEDULES["linear"], Setting(), "free_running")
    assert rows.filter(arm="linear")["value"].to_list() == pytest.approx([expected] * 3)
    assert rows.filter(arm="lost")["value"].is_null().to_list() == [False, False, True]


def test_distinct_runs_are_counted_within_a_text() -> None:
    rows = distinct_runs.of(grid(["lstm"], writing, num_seeds=3, broken={"lstm#1": "diverged"}))
    means = distinct_runs.summary(rows, ["sequence"])
    shares = {row["sequence"]: (row["mean"], row["num_seeds"], row["num_missing"]) for row in means.to_dicts()}
    assert shares == {"greedy": (pytest.approx(4 / 297), 2, 1), "sample (temperature 1.0)": (1.0, 2, 1)}


def test_a_seed_is_exposed_whose_gap_exceeds_a_token_in_a_hundred() -> None:
    found = decoding_grid({"drifting": Arm(drift=0.03), "true": Arm(drift=0.0)}, Setting(spread=0.0))
    gaps, marked = (
        {(arm, seed): value for arm, seed, value in quantity.of(found).select("arm", "seed", "value").iter_rows()}
        for quantity in (exposure_gap, exposed)
    )
    assert marked == {key: gap > 0.01 for key, gap in gaps.items()}
    assert set(marked.values()) == {True, False}


def test_a_seed_that_did_not_finish_is_neither_exposed_nor_not_and_is_counted() -> None:
    found = decoding_grid({"drifting": Arm(drift=0.03, diverged=(0,))}, Setting(num_seeds=5))
    assert value(found, quantity="exposed", arm="drifting")[3:] == (4, 1)
    assert value(found, quantity="exposed", arm="drifting").value == 1.0
