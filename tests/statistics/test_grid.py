from __future__ import annotations

import polars as pl

from pipeline.statistics import grids_of
from tests.synthetic_results import Shape, study_tables

OVER = ("optimiser.learning_rate",)


def test_grids_hold_the_selected_settings_by_arm_and_length() -> None:
    adding, digits = grids_of("cells", study_tables(Shape(cells=("gru", "elman"))), OVER)
    assert (adding.arms, adding.lengths, adding.dataset) == (["gru", "elman"], [10, 20], "adding")
    assert (digits.arms, digits.lengths) == (["gru", "elman"], [16])
    assert (adding.runs.height, adding.all_runs.height) == (2 * 2 * 3, 2 * 2 * 2 * 3)
    assert adding.curves["trial_id"].n_unique() == adding.runs["trial_id"].n_unique() == 4
    assert adding.at_longest(adding.traces)["timestep"].max() == 20


def test_an_axis_that_is_not_selected_over_tells_arms_apart() -> None:
    tables = study_tables(Shape(cells=("gru",), lengths=(10,), digits_length=None))
    tables["settings"] = tables["settings"].with_columns(selected=pl.lit(value=True))
    (grid,) = grids_of("cells", tables, ())
    assert grid.arms == ["gru, learning_rate=0.003", "gru, learning_rate=0.01"]


def test_a_failed_setting_has_the_length_of_its_dataset() -> None:
    shape = Shape(cells=("gru", "elman"), broken={"elman, lr=0.01": "error"})
    _, digits = grids_of("cells", study_tables(shape), OVER)
    assert digits.lengths == [16]
    assert digits.runs.filter(arm="elman")["status"].to_list() == ["error"] * 3
