"""Searches: random points are settings as those of a grid are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from pipeline.results import read_table
from pipeline.results.store import TrialStore
from pipeline.sweep import current_plan, describe_plan, plan_study

from .fakes import STUDY, FakeTrain, sweep, write_project, write_yaml

SPACE = {
    "optimiser.learning_rate": {"name": "log_uniform", "low": 1.0e-3, "high": 1.0},
    "model.hidden_size": {"name": "integer", "low": 2, "high": 9},
}


def searched(number: int, **more: object) -> dict[str, object]:
    """Return a study whose two cells are searched."""
    search = {"name": "random", "number": number, "seed": 0, "space": SPACE}
    grids = {"cells": {"axes": {"model.cell": ["elman", "lstm"]}, "search": search, **more}}
    return {"grids": grids, "select": {"over": [*SPACE], "metric": "best_validation_loss"}}


def test_a_random_search_is_planned_trained_selected_and_grown_as_a_grid(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path, **searched(3))
    store = TrialStore(paths.default_store)
    text = describe_plan(current_plan(paths, params, "cells", store))
    assert "missing        6 steps  cells: elman, lr=0.681, H=6" in text
    assert "6 settings, 6 trials, 6 to train" in text
    assert "6 settings: 0 from the store, 6 trained" in sweep(paths, params, FakeTrain())
    before = read_table("settings", paths.results("cells"))
    assert before.filter("selected").height == 2
    assert {"model.cell", "optimiser.learning_rate", "model.hidden_size"} <= {*before.columns}
    write_yaml(paths.study_config("cells"), STUDY | searched(5))
    assert "10 settings: 6 from the store, 4 trained" in sweep(paths, params, FakeTrain())
    after = read_table("settings", paths.results("cells")).filter(
        pl.col("trial_id").is_in(before["trial_id"].to_list())
    )
    same = ["trial_id", "label", "model.hidden_size", "optimiser.learning_rate"]
    assert_frame_equal(before.select(same), after.select(same))


def test_the_plan_of_a_random_search_is_its_declarations(tmp_path: Path) -> None:
    def digest(name: str, number: int) -> dict:
        paths, params = write_project(tmp_path / name, **searched(number))
        return plan_study(paths, params, "cells").digest()

    assert digest("a", 3) == digest("b", 3)
    assert digest("c", 4) != digest("a", 3)
