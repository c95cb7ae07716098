from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures.decoders import attending, errors_by, percent, with_arm
from tests.synthetic_decoding import ATTENTION, LAST, Arm, decoding_grid


def test_arms_that_attend_are_told_from_the_one_that_does_not() -> None:
    tables = decoding_grid(ATTENTION)
    assert attending(tables) == ["dot", "additive"]
    assert [with_arm(arm, tables) for arm in tables.arms] == ["without attention", "with dot", "with additive"]


@pytest.mark.parametrize("others", [{}, {"input feeding": Arm()}])
def test_where_several_or_all_do_not_attend_every_arm_has_its_name(others: dict[str, Arm]) -> None:
    tables = decoding_grid({"none": Arm(), **others})
    assert with_arm("none", tables) == "with none"


def test_errors_are_of_the_last_step_of_replicas_that_did_not_diverge() -> None:
    tables = decoding_grid({"a": Arm(), "b": Arm(diverged=(1,))})
    early = tables.breakdown.with_columns(step=pl.lit(LAST - 1, pl.Int64), error=pl.lit(1.0))
    lost = early.with_columns(step=pl.lit(LAST, pl.Int64), status=pl.lit("diverged"), seed=pl.lit(1, pl.Int64))
    rows = errors_by(
        replace(tables, breakdown=pl.concat([tables.breakdown, early, lost.filter(arm="b")])), "source_length"
    )
    assert rows["step"].unique().to_list() == [LAST]
    assert rows.select("arm", "seed").unique(maintain_order=True).rows() == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 2),
    ]
    assert rows["at"].unique().sort().to_list() == [10, 20, 40]


def test_a_share_in_percent() -> None:
    assert [percent(share) for share in (0.0, 0.0321, 0.8, 1.0)] == ["0 %", "3.2 %", "80 %", "100 %"]
