from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import exposure_bias as figure
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_decoding import SCHEDULES, Arm, Setting, decoding_grid


def test_it_applies_where_a_decoder_was_tested_both_ways(exact: list[GridTables]) -> None:
    tables = decoding_grid(SCHEDULES)
    assert figure.applies(tables)
    assert not figure.applies(exact[0])
    one_way = tables.curves.filter(pl.col("metric") != "test_token_error[teacher_forced]")
    assert not figure.applies(replace(tables, curves=one_way))


def test_errors_are_by_position_and_mode() -> None:
    drawn = figure.table(decoding_grid(SCHEDULES)).filter(arm="linear")
    free, forced = (drawn.filter(mode=mode)["mean"].to_list() for mode in ("free_running", "teacher_forced"))
    assert free == pytest.approx([0.02 + 0.01 * position for position in range(10)])
    assert forced == pytest.approx([0.02] * 10)


def test_the_gap_is_paired_by_seed() -> None:
    row = figure.gaps(decoding_grid(SCHEDULES, Setting(spread=0.1))).filter(arm="linear").row(0, named=True)
    half = 4.302653 * 0.0045 / 3**0.5  # t(0.975, 2) s/√n, the gap being 0.045 · (0.9, 1, 1.1)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.045, 0.045 - half, 0.045 + half))


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ({"always": Arm(drift=0.03), "never": Arm(drift=0.0)}, ": 14 [13, 14] with always, 0 [0, 0] with never"),
        ({"always": Arm(drift=0.03)}, "by percentage points: 14 [13, 14]"),
        ({"always": Arm(drift=0.0)}, "Inconclusive: no gap between free running and teacher forcing is established"),
        ({"a": Arm(), "b": Arm()}, "Inconclusive: no difference between arms in the gap of free running to teacher "),
    ],
)
def test_title_tells_the_gaps_that_differ(arms: dict[str, Arm], told: str) -> None:
    assert told in figure.title(decoding_grid(arms))


def test_diverged_replicas_are_in_no_gap() -> None:
    tables = decoding_grid(SCHEDULES | {"lost": Arm(diverged=(2,))})
    assert dict(figure.gaps(tables).select("arm", "num_seeds").iter_rows())["lost"] == 2
    assert "1 diverged: diverged and failed ones are not shown" in figure.caption(tables)
    assert "means over 2 to 3 seeds" in figure.caption(tables)


def test_of_many_arms_four_are_drawn_along_the_output_and_every_gap() -> None:
    tables = decoding_grid({f"schedule {i}": Arm(drift=0.01 * i) for i in range(9)})
    drawn = figure.draw(tables)
    along, gaps = drawn.axes
    assert len(along.lines) == 2 * 4
    assert [label.get_text() for label in gaps.get_yticklabels()] == [f"schedule {i}" for i in range(9)]
    assert "4 of 9 arms are shown: the extremes by the gap" in figure.caption(tables)
    assert "bands" not in figure.caption(tables)


def test_teacher_forcing_is_dashed_and_hollow() -> None:
    along = figure.draw(decoding_grid({"always": Arm()})).axes[0]
    free, forced = along.lines
    assert (free.get_linestyle(), forced.get_linestyle()) == ("-", "--")
    assert forced.get_markerfacecolor() == "white" != free.get_markerfacecolor()


def test_one_seed_is_drawn_without_intervals() -> None:
    tables = decoding_grid(SCHEDULES, Setting(num_seeds=1))
    assert figure.title(tables).startswith("Inconclusive")
    assert b"<svg" in to_svg(figure.draw(tables))
