from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from pipeline.figures import reconstructions
from pipeline.quantities import GridTables
from tests.synthetic_attention import autoencoding, captioning, grid

LOSSES = {"lstm": 0.02, "gru": 0.04}


def losses(arm: str, seed: int) -> dict[str, object]:
    return {"test_loss": LOSSES[arm] + 0.01 * seed, "baseline_loss": 0.1}


@pytest.fixture(scope="module")
def tables() -> GridTables:
    return grid(list(LOSSES), autoencoding, num_seeds=3, broken={"lstm#0": "diverged", "gru#2": "error"}, trial=losses)


def test_it_applies_where_reconstructions_were_kept(tables: GridTables) -> None:
    assert reconstructions.applies(tables)
    assert not reconstructions.applies(grid(["plain"], captioning({"plain": 0.9})))


def test_the_table_has_two_examples_of_the_first_seed_and_eight_frames(tables: GridTables) -> None:
    drawn = reconstructions.table(tables)
    assert drawn.select("arm", "seed").unique(maintain_order=True).rows() == [("lstm", 1), ("gru", 0)]
    assert drawn["example"].unique().sort().to_list() == [0, 1]
    assert drawn["frame"].unique().sort().to_list() == [1, 2, 4, 5, 6, 7, 9, 10]
    assert drawn.height == 2 * 2 * 2 * 8 * 36


def test_the_title_states_the_error_relative_to_the_baseline(tables: GridTables) -> None:
    assert reconstructions.title(tables) == (
        "Reconstructions by the LSTM leave 35 % of the baseline's error, by the GRU 45 %"
    )
    one = grid(["gru"], autoencoding, num_seeds=1, trial=losses)
    assert reconstructions.title(one) == "Reconstructions by the GRU leave 40 % of the baseline's error"
    assert "mean over 1 seed" in reconstructions.caption(one)
    runs = tables.runs.with_columns(baseline_loss=pl.lit(None, pl.Float64))
    unknown = replace(tables, runs=runs)
    assert reconstructions.title(unknown) == "Reconstructions of the LSTM and the GRU; no baseline is known"
    assert "baseline" not in reconstructions.caption(unknown)


def test_the_input_lies_above_what_each_arm_makes_of_it(tables: GridTables) -> None:
    axes = reconstructions.draw(tables).axes
    assert [ax.get_ylabel() for ax in axes[::8]] == ["input", "LSTM", "GRU"] * 2
    assert [ax.get_title(loc="left") for ax in axes[:3]] == ["frame 1", "frame 2", "frame 4"]
    shown = np.array([np.asarray(ax.images[0].get_array()) for ax in axes]).reshape(2, 3, 8, 6, 6)
    assert shown[0, 0, 2, 1, 3] == 1.0  # the dot of the first example is in row 1, and in column 3 of frame 4
    assert shown[:, 1:] == pytest.approx(shown[:, :1].repeat(2, 1) / 2)
    assert {ax.images[0].get_clim() for ax in axes} == {(0.0, 1.0)}


def test_the_caption_says_what_is_left_out(tables: GridTables) -> None:
    caption = reconstructions.caption(tables)
    assert "8 of 10 frames are shown, evenly spaced." in caption
    assert "mean over 2 seeds with 95 % Student-t interval: LSTM 0.35" in caption
    assert "1 diverged and 1 failed with an error: diverged and failed ones are not shown" in caption


def test_of_many_arms_three_have_a_strip() -> None:
    tables = grid([f"arm {i}" for i in range(5)], autoencoding, num_seeds=1)
    assert reconstructions.table(tables)["arm"].n_unique() == 3
    assert "3 of 5 arms are shown" in reconstructions.caption(tables)
