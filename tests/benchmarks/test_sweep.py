"""Both sweeps train the same: the plain one is what a user would write, and is checked as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

from benchmarks import one_sweep, plain_tune, sweep
from pipeline.config import Paths, load_params
from pipeline.sweep.plan import plan_study


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return sweep.lay_out(tmp_path_factory.mktemp("bench"), num_updates=7, num_seeds=3)


def test_the_study_has_a_trial_for_each_cell_and_rate_with_all_seeds(workspace: Paths) -> None:
    plan = plan_study(workspace, load_params(workspace), sweep.STUDY)
    specs = [setting.spec for setting in plan.trials]
    assert len(specs) == len(sweep.CELLS) * len(sweep.LEARNING_RATES)
    assert {(*spec.seeds,) for spec in specs} == {(0, 1, 2)}
    assert {(spec.training.max_steps, spec.training.stop_below) for spec in specs} == {(7, None)}


def test_the_plain_sweep_has_the_same_settings_and_data(workspace: Paths) -> None:
    plain = json.loads((workspace.root / "plain.json").read_text())
    assert plain["grid"] == {"cell": [*sweep.CELLS], "learning_rate": [*sweep.LEARNING_RATES], "seed": [0, 1, 2]}
    spec = plan_study(workspace, load_params(workspace), sweep.STUDY).trials[0].spec
    assert plain["settings"] == {
        "hidden_size": spec.model.hidden_size,
        "clip_norm": spec.clipping.threshold,  # type: ignore[attr-defined]
        "batch_size": spec.training.batch_size,
        "num_updates": 7,
        "evaluate_every": spec.training.evaluate_every,
    }
    splits = torch.load(workspace.root / "splits.pt")
    assert {name: tuple(x.shape) for name, (x, _) in splits.items()} == {
        "train": (10000, 100, 2), "validation": (500, 100, 2), "test": (1000, 100, 2)
    }  # fmt: skip


@pytest.mark.parametrize("cell", sweep.CELLS)
def test_a_plain_trial_learns_and_is_its_seed_s(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[dict[str, float]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(48, 5, 2, generator=draw)
    splits = dict.fromkeys(("train", "validation", "test"), (x, x[:, -1, :1] + 1))
    settings = {"hidden_size": 6, "clip_norm": 1.0, "batch_size": 16, "num_updates": 40, "evaluate_every": 10}
    threads = torch.get_num_threads()
    for seed, num_updates in ((0, 0), (0, 40), (0, 40), (1, 40)):
        config = {"cell": cell, "learning_rate": 0.01, "seed": seed}
        plain_tune.train(config, splits, settings | {"num_updates": num_updates})
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    before, first, again, other = (report["test_loss"] for report in reports)
    assert first < 0.2 * before
    assert first == again != other
    assert all(report["validation_loss"] == report["test_loss"] for report in reports)  # here the splits are the same


RUNS: list[dict[str, Any]] = [
    {"who": who, "total_s": total_s, "startup_s": 10.0, "ray_init_s": 5.0, "num_updates": 1200, "num_replicas": 24}
    for who, total_s in (
        ("ours", 30.0),
        ("plain", 70.0),
        ("ours", 40.0),
        ("plain", 60.0),
        ("ours", 20.0),
        ("plain", 80.0),
    )
]


def test_rates_are_medians_with_start_up_and_without() -> None:
    found = sweep.summarise(RUNS)
    assert found["ours"]["updates_per_minute"] == 60 * 1200 / 30
    assert found["ours"]["updates_per_minute_after_startup"] == 60 * 1200 / 20
    assert found["plain"]["replicas_per_minute"] == 60 * 24 / 70
    assert found["ratio_of_updates_per_minute"] == pytest.approx(70 / 30)
    assert found["ratio_of_updates_per_minute_after_startup"] == pytest.approx(60 / 20)
    said = sweep.describe(found)
    assert "ratio of replica-updates a minute: 2.33 with start-up, 3.00 without" in said


def test_what_is_noted_of_a_function_is_when_it_began_and_ended_even_if_it_fails() -> None:
    class Owner:
        @staticmethod
        def fit(value: int) -> float:
            return 1 / value

    times: dict[str, list[float]] = {}
    one_sweep._note_time(Owner, "fit", times)
    assert Owner.fit(2) == 0.5
    (first, _), _ = times.pop("fit"), times
    with pytest.raises(ZeroDivisionError):
        Owner.fit(0)
    assert first <= times["fit"][0] <= times["fit"][1]


def test_a_sweep_runs_on_this_machine_and_this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    environment = sweep._environment()
    assert "RAY_ADDRESS" not in environment
    assert Path(environment["PYTHONPATH"]) == sweep.ROOT
