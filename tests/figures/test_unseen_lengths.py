from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import unseen_lengths
from pipeline.statistics import GridTables

LOSSES = {"elman": 1.0, "lstm": 0.001, "gru": 0.01}


def with_unseen(tables: GridTables, losses: dict[str, float], tested: int = 200) -> GridTables:
    """The grid with a test loss at an unseen length, the same for all seeds and trained lengths."""
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
    assert title == f"Trained at T = {longest}, the LSTM and the GRU still beat the baseline at T = 200"
    none = unseen_lengths.title(with_unseen(exact[0], dict.fromkeys(LOSSES, 5.0)))
    assert none == f"Trained at T = {longest}, no network still beats the baseline at T = 200"


def test_a_panel_for_each_trained_length(exact: list[GridTables]) -> None:
    figure = unseen_lengths.draw(with_unseen(exact[0], LOSSES))
    assert len(figure.axes) == len(exact[0].lengths)
    assert "lengths never seen" in unseen_lengths.caption(with_unseen(exact[0], LOSSES))
