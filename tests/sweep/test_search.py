"""Searches: their points are settings as those of a grid are."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.config import Params, Paths, build
from pipeline.config.search import TpeSearch
from pipeline.core.training import TrialSpec
from pipeline.errors import ConfigError, SweepError
from pipeline.results import HOST_COLUMNS, read_table
from pipeline.results.store import TrialStore
from pipeline.sweep import current_plan, describe_plan, plan_study
from pipeline.sweep.tpe import propose

from .fakes import STUDY, FakeResult, FakeTrain, sweep, trial_row, write_project, write_yaml

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


# Points that are proposed from results


TPE_SPACE = {
    "optimiser.learning_rate": {"name": "log_uniform", "low": 1.0e-4, "high": 1.0},
    "training.explodes_above": {"name": "uniform", "low": 2.0, "high": 100.0},
    "model.hidden_size": {"name": "log_integer", "low": 2, "high": 9},
    "clipping": {"name": "choice", "values": [{"name": "none"}, {"name": "global_norm", "threshold": 1.0}]},
}


def proposed(number: int = 20, generation: int = 5, **grid: Any) -> dict[str, Any]:
    """Return a study whose two cells are searched by TPE."""
    search = {"name": "tpe", "number": number, "seed": 0, "generation": generation, "space": TPE_SPACE}
    grids = {"cells": {"axes": {"model.cell": ["elman", "lstm"]}, "search": search, **grid}}
    return {"grids": grids, "select": {"over": [*TPE_SPACE], "metric": "best_validation_loss"}}


@dataclass(frozen=True)
class Valley:
    """Pretends to train: the loss is lowest at some learning rate, another one for each cell.

    `journal` gets a line for each training; that of the `dies_at`th line is interrupted.
    """

    journal: Path
    dies_at: tuple[int, ...] = ()
    fails_at: int | None = None

    def __call__(self, spec: TrialSpec, dataset, sink, *, checkpoints, **options: Any) -> FakeResult:
        with self.journal.open("a") as file:
            file.write(f"{json.dumps(spec.optimiser.learning_rate)}\n")
        made = len(self.journal.read_text().splitlines())
        if made in self.dies_at:
            raise KeyboardInterrupt
        if made == self.fails_at:
            raise RuntimeError("no kernel")
        best = {"elman": -1.0, "lstm": -3.0}[spec.model.cell]
        loss = 0.01 + (math.log10(spec.optimiser.learning_rate) - best) ** 2 + 0.1 * (spec.clipping.name == "none")
        return FakeResult([trial_row(seed, loss * (1 + 0.01 * seed)) for seed in spec.seeds], "ok")


def rates_of(paths: Paths, cell: str) -> list[float]:
    """The learning rates of a cell's settings, in the order in which they were proposed."""
    settings = read_table("settings", paths.results("cells")).sort("position")
    return settings.filter(pl.col("model.cell") == cell)["optimiser.learning_rate"].to_list()


def test_each_generation_follows_from_the_results_before_it(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path / "project", **proposed())
    assert "10 settings, 10 trials, 10 to train" in dry_run(paths, params)
    shown = sweep(paths, params, Valley(tmp_path / "journal"))
    assert shown.count("tpe: the next generation is proposed") == 3
    assert shown.splitlines()[-1].startswith("40 settings: 30 from the store, 10 trained")
    elman, lstm = (rates_of(paths, cell) for cell in ("elman", "lstm"))
    assert elman[:5] == lstm[:5]  # drawn; the others are each cell's own
    assert elman[5:] != lstm[5:]
    assert statistics.median(elman[10:]) > 3 * statistics.median(lstm[10:])
    settings = read_table("settings", paths.results("cells"))
    assert settings["trial_id"].n_unique() == 40
    assert settings.filter("selected").height == 2


def dry_run(paths: Paths, params: Params) -> str:
    return describe_plan(current_plan(paths, params, "cells", TrialStore(paths.default_store)))


def test_a_search_that_was_interrupted_goes_on_to_the_same_points(tmp_path: Path) -> None:
    calm, torn = (write_project(tmp_path / name, **proposed(10)) for name in ("calm", "torn"))
    (tmp_path / "a").mkdir()
    sweep(*calm, Valley(tmp_path / "a" / "journal"))
    learner = Valley(tmp_path / "journal", dies_at=(4, 12, 18))
    for _ in learner.dies_at:
        with pytest.raises(KeyboardInterrupt):
            sweep(*torn, learner)
    assert "missing" in dry_run(*torn)
    sweep(*torn, learner)
    for table in ("trials", "settings"):
        frames = [read_table(table, paths.results("cells")) for paths, _ in (calm, torn)]
        assert_frame_equal(*(frame.drop(HOST_COLUMNS, strict=False) for frame in frames))
    assert "0 to train" in dry_run(*torn)
    write_yaml(torn[0].study_config("cells"), STUDY | proposed(12))  # two more of each cell, after the others
    before = rates_of(torn[0], "lstm")
    assert "24 settings: 20 from the store, 4 trained" in sweep(*torn, learner)
    assert rates_of(torn[0], "lstm")[:10] == before


def test_what_failed_stops_the_search_of_its_arm_until_it_is_mended(tmp_path: Path) -> None:
    paths, params = write_project(tmp_path / "project", **proposed(10))
    with pytest.raises(SweepError, match="1 of 15 settings failed"):
        sweep(paths, params, Valley(tmp_path / "journal", fails_at=1))
    assert len(rates_of(paths, "elman")) + len(rates_of(paths, "lstm")) == 15
    sweep(paths, params, Valley(tmp_path / "journal"))
    assert len(rates_of(paths, "elman")) == len(rates_of(paths, "lstm")) == 10


@pytest.mark.parametrize("seed", range(3))
def test_proposals_come_nearer_to_the_best_than_draws(seed: int) -> None:
    def loss(point: Any) -> float:
        flaws = 0.1 * (point["clipping"]["name"] == "none") + (point["model.hidden_size"] - 7) ** 2 / 100
        return (math.log10(point["optimiser.learning_rate"]) + 3) ** 2 + flaws

    search: TpeSearch = build(TpeSearch, {"number": 40, "seed": seed, "generation": 8, "space": TPE_SPACE}, "f")
    points = search.points()
    while len(points) < search.number:
        new = propose(search, points, [math.inf, *map(loss, points[1:])])  # one of which half of the seeds diverged
        assert new == propose(search, points, [math.inf, *map(loss, points[1:])])
        points += new
    assert statistics.median(map(loss, points[24:])) < 0.5 * statistics.median(map(loss, search.drawn()))
    assert all(point["optimiser.learning_rate"] == float(f"{point['optimiser.learning_rate']:.3g}") for point in points)


def test_a_small_space_is_searched_whole_and_never_twice() -> None:
    space = {
        "model.cell": {"name": "choice", "values": ["elman", "gru", "lstm"]},
        "a": {"name": "integer", "low": 1, "high": 3},
    }
    search: TpeSearch = build(TpeSearch, {"number": 9, "seed": 0, "generation": 4, "space": space}, "f")
    points = search.points()
    while len(points) < 9:
        points += propose(search, points, [math.inf if point["a"] == 2 else point["a"] for point in points])
    assert len({repr(point) for point in points}) == 9


def test_the_plan_of_a_proposing_search_is_its_declaration(tmp_path: Path) -> None:
    digests = [plan_study(*write_project(tmp_path / str(n), **proposed(n)), "cells").digest() for n in (10, 11)]
    assert digests[0]["searches"]["cells"].pop("number") == 10
    assert digests[1]["searches"]["cells"].pop("number") == 11
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": None}, r"grids\.cells\.search: expected 'optimiser\.learning_rate' under select\.over"),
        (proposed(generation=0), r"search\.generation: expected a number of points of at least 1, got 0"),
        (
            proposed(halving={"metric": "best_validation_loss", "first": 3, "factor": 2}),
            r"halving: expected no halving",
        ),
    ],
)
def test_mistakes_in_a_proposing_search_are_named(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_study(*write_project(tmp_path, **proposed() | changes), "cells")


def test_lengths_are_not_proposed(tmp_path: Path) -> None:
    study = proposed()
    study["grids"]["cells"]["search"]["space"] = {"dataset.length": {"name": "integer", "low": 4, "high": 6}}
    with pytest.raises(ConfigError, match=r"search\.space: expected keys of another part: data are prepared before"):
        plan_study(*write_project(tmp_path, **study), "cells")
