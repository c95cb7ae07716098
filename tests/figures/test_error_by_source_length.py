from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import error_by_source_length as figure
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_decoding import ATTENTION, Arm, Setting, decoding_grid


def test_it_applies_where_a_decoder_met_several_source_lengths(exact: list[GridTables]) -> None:
    assert figure.applies(decoding_grid(ATTENTION))
    assert not figure.applies(decoding_grid(ATTENTION, Setting(source_lengths=(10,))))
    assert figure.applies(decoding_grid(ATTENTION, Setting(source_lengths=(10,), trained_lengths=(10, 20))))
    assert not figure.applies(exact[0])  # several lengths, but no decoder


def test_few_lengths_stand_alone() -> None:
    drawn = figure.table(decoding_grid(ATTENTION)).filter(arm="none")
    assert drawn["source_length"].to_list() == [10, 20, 40]
    assert drawn["mean"].to_list() == pytest.approx([0.03, 0.03 + 0.77 / 3, 0.80])
    assert drawn["num_seeds"].to_list() == [3] * 3
    assert drawn["low"][2] < 0.8 < drawn["high"][2]


def test_many_lengths_are_put_into_bins_weighted_by_sequences() -> None:
    tables = decoding_grid({"none": Arm(errors=(0.0, 0.32))}, Setting(source_lengths=range(1, 34), spread=0.0))
    one, half = pl.col("at") == 1, pl.col("at") == 2
    error = pl.when(one).then(0.8).when(half).then(0.2).otherwise("error")  # 300 and 100 of the first bin's sequences
    num = pl.when(one).then(300).otherwise("num")
    by_length = pl.col("by") == "source_length"
    rows = tables.breakdown.with_columns(
        error=pl.when(by_length).then(error).otherwise("error"), num=pl.when(by_length).then(num).otherwise("num")
    )
    drawn = figure.table(replace(tables, breakdown=rows))
    assert drawn.height == figure.MAX_BINS
    first, last = drawn.row(0, named=True), drawn.row(-1, named=True)
    assert (first["shortest"], first["longest"], last["longest"]) == (1, 2, 33)
    assert first["mean"] == pytest.approx((300 * 0.8 + 100 * 0.2) / 400)
    assert first["source_length"] == pytest.approx((300 * 1 + 100 * 2) / 400)
    assert "in 8 bins" in figure.caption(replace(tables, breakdown=rows))


def test_networks_trained_at_several_lengths_are_each_tested_at_their_own() -> None:
    arms = ATTENTION | {"lost": Arm(diverged=(0, 1, 2))}
    tables = decoding_grid(arms, Setting(trained_lengths=(10, 20, 40)))
    tables = replace(tables, breakdown=tables.breakdown.with_columns(error=pl.lit(1.0)))
    drawn = figure.table(tables)
    assert drawn.filter(arm="additive")["mean"].to_list() == pytest.approx([0.02, 0.03, 0.05])
    assert "lost" not in drawn["arm"]
    assert "trained at that length" in figure.caption(tables)
    assert "9 diverged: diverged and failed ones are not shown" in figure.caption(tables)


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        (
            {"none": ATTENTION["none"], "dot": ATTENTION["dot"]},
            "Without attention the error grows from 3.0 % at 10 source tokens to 80 % at 40; "
            "with dot it is 1.0 % at most",
        ),
        (
            {"none": ATTENTION["none"], "additive": ATTENTION["additive"]},
            "Without attention the error grows from 3.0 % at 10 source tokens to 80 % at 40; "
            "with additive from 2.0 % to 5.0 %",
        ),
        ({"none": Arm(), "dot": Arm(attends=True, errors=(0.0, 0.0))}, "with dot it stays at 0"),
        ({"GRU": Arm()}, "With GRU the error grows from 10 % at 10 source tokens to 50 % at 40"),
        (
            {"none": Arm(errors=(0.5, 0.5)), "dot": Arm(attends=True, errors=(0.4, 0.3))},
            "No growth of the error from 10 to 40 source tokens is established; with dot 30 % of the longest are wrong",
        ),
    ],
)
def test_title_tells_the_most_growth_and_the_best_arm(arms: dict[str, Arm], title: str) -> None:
    assert figure.title(decoding_grid(arms)).endswith(title)


def test_one_seed_establishes_nothing() -> None:
    tables = decoding_grid(ATTENTION, Setting(num_seeds=1))
    assert "is established (one seed has no interval)" in figure.title(tables)
    assert b"<svg" in to_svg(figure.draw(tables))


def test_where_every_replica_diverged_the_figure_says_so() -> None:
    tables = decoding_grid(ATTENTION)
    lost = pl.lit("diverged").alias("status")
    tables = replace(tables, runs=tables.runs.with_columns(lost), breakdown=tables.breakdown.with_columns(lost))
    assert figure.title(tables) == "Inconclusive: no replica finished training"
    (ax,) = figure.draw(tables).axes
    assert [text.get_text() for text in ax.texts] == ["no replica finished"]
    assert "no seeds" in figure.caption(tables)


def test_arms_stand_side_by_side_about_their_length() -> None:
    (ax,) = figure.draw(decoding_grid(ATTENTION)).axes
    places = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 3][::3]  # type: ignore[index,arg-type]
    assert places[1] == pytest.approx(10)
    assert 0 < places[1] - places[0] == pytest.approx(places[2] - places[1])
    assert ax.get_ylabel() == "sequences not exactly right (%)"
