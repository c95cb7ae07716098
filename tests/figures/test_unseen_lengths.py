from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import unseen_lengths
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables

LOSSES = {"elman": 1.0, "lstm": 0.001, "gru": 0.01}


def with_unseen(tables: GridTables, losses: dict[str, float], tested: int = 200) -> GridTables:
    """The grid with a test loss at a length, the same for all seeds and trained lengths."""
    runs = tables.runs.select("trial_id", "seed", "arm", "length", "status")
    parts = [
        runs.filter(arm=arm).with_columns(
            step=pl.lit(40, pl.Int64), metric=pl.lit(f"test_loss[T={tested}]"), value=pl.lit(loss)
        )
        for arm, loss in losses.items()
    ]
    return replace(tables, curves=pl.concat([tables.curves, pl.concat(parts).select(tables.curves.columns)]))


def test_it_applies_where_unseen_lengths_were_tested(exact: list[GridTables]) -> None:
    assert not unseen_lengths.applies(exact[0])
    assert unseen_lengths.applies(with_unseen(exact[0], LOSSES))


def test_the_table_has_the_trained_and_the_unseen_lengths(exact: list[GridTables]) -> None:
    drawn = unseen_lengths.table(with_unseen(exact[0], LOSSES))
    trained = exact[0].lengths
    assert sorted(drawn["tested_length"].unique()) == [*trained, 200]
    far = drawn.filter(tested_length=200, length=trained[-1])
    assert dict(far.select("arm", "loss").iter_rows()) == {arm: pytest.approx(loss) for arm, loss in LOSSES.items()}
    near = drawn.filter(tested_length=trained[0], length=trained[0], arm="gru")
    runs = exact[0].runs.filter(arm="gru", length=trained[0])
    assert near["loss"][0] == pytest.approx(10 ** runs["test_loss"].log10().mean())  # type: ignore[operator]


def test_the_title_names_who_beats_the_baseline(exact: list[GridTables]) -> None:
    longest = exact[0].lengths[-1]
    title = unseen_lengths.title(with_unseen(exact[0], LOSSES))
    assert title == f"Trained at T = {longest}, the LSTM and the GRU still beat that length's baseline at T = 200"
    none = unseen_lengths.title(with_unseen(exact[0], dict.fromkeys(LOSSES, 5.0)))
    assert none == f"Trained at T = {longest}, no network still beats that length's baseline at T = 200"


def test_a_panel_for_each_trained_length(exact: list[GridTables]) -> None:
    figure = unseen_lengths.draw(with_unseen(exact[0], LOSSES))
    assert len(figure.axes) == len(exact[0].lengths)
    assert "lengths never seen" in unseen_lengths.caption(with_unseen(exact[0], LOSSES))


def test_shorter_unseen_lengths_have_a_title_and_leave_the_trained_one_hollow(exact: list[GridTables]) -> None:
    tables = with_unseen(with_unseen(exact[0], LOSSES, 4), LOSSES, 5)
    tables = replace(tables, runs=tables.runs.with_columns(test_loss=pl.lit(0.5)))
    assert (
        unseen_lengths.title(tables) == "Trained at T = 20, the LSTM and the GRU beat that length's baseline at T = 4"
    )
    for ax, length in zip(unseen_lengths.draw(tables).axes, tables.lengths, strict=True):
        hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
        assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in hollow] == [  # type: ignore[union-attr]
            ([length], [pytest.approx(0.5)])
        ] * len(LOSSES)


def test_a_trained_length_among_anothers_unseen_ones_counts_each_seed_once(exact: list[GridTables]) -> None:
    plain = exact[0]
    longest = plain.lengths[-1]
    only_itself = with_unseen(replace(plain, curves=plain.curves.filter(length=longest)), LOSSES, longest)
    only_itself = replace(only_itself, curves=only_itself.curves.filter(length=longest))
    assert not unseen_lengths.applies(only_itself)
    drawn = unseen_lengths.table(with_unseen(plain, LOSSES, longest))
    row = drawn.filter(length=longest, tested_length=longest, arm="gru").row(0, named=True)
    runs = plain.runs.filter(arm="gru", length=longest)
    assert (row["num_seeds"], row["loss"]) == (3, pytest.approx(10 ** runs["test_loss"].log10().mean()))  # type: ignore[operator]
    assert drawn.filter(length=plain.lengths[0], tested_length=longest, arm="gru")["loss"][0] == pytest.approx(0.01)


def _dashed(tables: GridTables) -> list[list[float]]:
    """The heights of the horizontal lines of every panel."""
    axes = unseen_lengths.draw(tables).axes
    return [[float(y[0]) for line in ax.lines if len(y := line.get_ydata()) == 2 and y[0] == y[1]] for ax in axes]  # type: ignore[arg-type,index]


def test_a_baseline_is_that_of_the_panels_trained_length(exact: list[GridTables]) -> None:
    tables = with_unseen(with_unseen(exact[0], LOSSES), LOSSES, 400)  # three tested lengths: no line of two points
    own = replace(tables, runs=tables.runs.with_columns(baseline_loss=pl.col("length") / 100))
    assert _dashed(own) == [[length / 100] for length in tables.lengths]
    assert "Dashed: the analytic baseline of the panel's trained length." in unseen_lengths.caption(own)
    none = replace(tables, runs=tables.runs.with_columns(baseline_loss=pl.lit(0.5) + pl.col("seed")))
    assert _dashed(none) == [[], []]
    assert "Dashed" not in unseen_lengths.caption(none)
    assert unseen_lengths.title(none) == "Test loss of networks trained at T = 20, tested at T = 400"


def test_a_study_that_diverged_has_a_figure(exact: list[GridTables]) -> None:
    tables = with_unseen(exact[0], LOSSES)
    lost = pl.lit("diverged").alias("status")
    tables = replace(tables, runs=tables.runs.with_columns(lost), curves=tables.curves.with_columns(lost))
    assert unseen_lengths.title(tables) == "Inconclusive: no replica finished training"
    figure = unseen_lengths.draw(tables)
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["no replica finished"] * 2
    to_svg(figure)
