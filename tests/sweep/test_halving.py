"""Successive halving: the rule, what becomes of what is stopped, and that nothing depends on who was killed when."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.config import Params, Paths, build, load_params
from pipeline.config.search import Halving
from pipeline.core.training import TrialSpec, run_trial
from pipeline.core.training.rows import FACTS
from pipeline.errors import ConfigError, SweepError
from pipeline.results import HOST_COLUMNS, RESUMABLE, TRIAL_TABLES, read_table
from pipeline.results.store import TrialStore
from pipeline.sweep import current_plan, describe_plan, executor_named, plan_study, train_together
from pipeline.sweep.halving import scores_at, stopped
from pipeline.sweep.upkeep import find_doomed

from .fakes import SCALE, STUDY, FakeResult, sweep, trial_row, write_project, write_yaml

RATES = [0.01, 0.1, 0.2, 0.4]
"""With the fake, the higher the better; its seeds differ by a few per cent, so that all intervals are apart."""

HALVING = {"metric": "best_validation_loss", "first": 3, "factor": 2}
STEPS = {0.01: 3, 0.1: 3, 0.2: 6, 0.4: 12}
"""How far each rate is trained: rungs stand at 3 and 6."""

Project = tuple[Paths, Params]


def study(rates: list[float] | None = None, halving: dict[str, Any] | None = HALVING, **more: Any) -> dict[str, Any]:
    """Return a study that searches a learning rate for each of two cells, in twelve steps."""
    axes = {"model.cell": ["elman", "lstm"], "optimiser.learning_rate": rates or RATES}
    grids = {"cells": {"axes": axes, "halving": halving}}
    return STUDY | {"set": STUDY["set"] | {"training.max_steps": 12}, "grids": grids} | more


def project_of(root: Path, num_seeds: int = 4, **changes: Any) -> Project:
    paths, _ = write_project(root, **changes)
    write_yaml(paths.scale_config("tiny"), SCALE | {"num_seeds": num_seeds})
    return paths, load_params(paths)


@dataclass(frozen=True)
class Learner:
    """Pretends to train: the loss of a setting falls with its learning rate, by seed a little more or less.

    `journal` gets a line for each step made. The first training that comes to a step of `dies_at` is interrupted there.
    """

    journal: Path
    dies_at: tuple[int, ...] = ()
    fails_on: float | None = None
    spread: float = 0.02
    lost: tuple[float, int] = (0.0, 0)

    def __call__(self, spec: TrialSpec, dataset, sink, *, checkpoints, stop_at, **options: Any) -> FakeResult:
        rate, made, last = spec.optimiser.learning_rate, 0, min(stop_at or 12, spec.training.max_steps)
        if rate == self.fails_on:
            raise RuntimeError(f"no kernel for {rate}")
        if (saved := checkpoints.load()) is not None:
            made = json.loads(saved)
        curve = {step: [self.loss(rate, seed, step) for seed in spec.seeds] for step in range(0, last + 1, 3)}
        for at in range(made + 1, last + 1):
            with self.journal.open("a") as file:
                file.write(f"{spec.model.cell} {rate} {at}\n")
            checkpoints.save(json.dumps(at).encode())
            mark = self.journal.parent / f"interrupted-{at}"
            if at in self.dies_at and not mark.exists():
                mark.touch()
                raise KeyboardInterrupt
        for step, losses in curve.items():
            about = {"step": step, "metric": "loss", **FACTS, "split": "validation"}
            sink.write("curves", {"seed": list(spec.seeds), **about, "value": losses})
        status = "ok" if last == spec.training.max_steps else "censored"
        rows = [trial_row(s, min(c[i] for c in curve.values()), status) for i, s in enumerate(spec.seeds)]
        for row in rows:
            row["num_steps"] = last
            if not math.isfinite(curve[last][row["seed"]]):
                row |= {"status": "diverged", "num_steps": 2}
        return FakeResult(rows, max(row["status"] for row in rows))

    def loss(self, rate: float, seed: int, step: int) -> float:
        if step and rate == self.lost[0] and seed < self.lost[1]:
            return math.nan
        return (1 + self.spread * seed) * 0.5 ** (step * rate)

    def steps(self) -> list[str]:
        return self.journal.read_text().splitlines() if self.journal.exists() else []


def rows_of(paths: Paths) -> pl.DataFrame:
    trials = read_table("trials", paths.results("cells"))
    return trials.select(
        "trial_id", "seed", "status", "num_steps", "best_validation_loss", rate="optimiser.learning_rate"
    )


def trained_steps(paths: Paths) -> dict[tuple[float, str], set[int]]:
    """By learning rate and status the steps of the rows."""
    found: dict[tuple[float, str], set[int]] = {}
    for _, _, status, num_steps, _, rate in rows_of(paths).iter_rows():
        found.setdefault((rate, status), set()).add(num_steps)
    return found


EXPECTED = {(rate, "ok" if steps == 12 else "censored"): {steps} for rate, steps in STEPS.items()}


def test_what_is_clearly_worse_is_stopped_at_each_rung_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    project, learner = project_of(tmp_path / "project", **study()), Learner(tmp_path / "journal")
    shown = sweep(*project, learner)
    assert "halving: 8 to step 3\n" in shown
    assert "halving: 4 to step 6\n" in shown
    assert "8 settings: 0 from the store, 0 trained, 0 diverged, 8 at a rung, 0 failed" in shown
    assert "8 settings: 6 from the store, 2 trained" in shown
    assert trained_steps(project[0]) == EXPECTED
    assert sorted(learner.steps()) == sorted(
        f"{cell} {rate} {step}"
        for cell in ("elman", "lstm")
        for rate, last in STEPS.items()
        for step in range(1, last + 1)
    )
    selected = read_table("settings", project[0].results("cells")).filter("selected")
    assert selected["optimiser.learning_rate"].to_list() == [0.4, 0.4]
    before = len(learner.steps())
    assert "8 settings: 8 from the store, 0 trained" in sweep(*project, learner)
    assert len(learner.steps()) == before


def test_tables_are_the_same_however_often_the_sweep_was_interrupted(tmp_path: Path) -> None:
    calm, torn = (project_of(tmp_path / name, **study()) for name in ("calm", "torn"))
    (tmp_path / "a").mkdir()
    sweep(*calm, Learner(tmp_path / "a" / "journal"))
    learner = Learner(tmp_path / "journal", dies_at=(2, 3, 5, 9))
    for _ in learner.dies_at:
        with pytest.raises(KeyboardInterrupt):
            sweep(*torn, learner)
    sweep(*torn, learner)
    assert len(learner.steps()) == len({*learner.steps()}) == 2 * sum(STEPS.values())
    for table in ("trials", "curves", "settings"):
        frames = [read_table(table, paths.results("cells")) for paths, _ in (calm, torn)]
        assert_frame_equal(*(frame.drop(HOST_COLUMNS, strict=False) for frame in frames))


def test_what_was_stopped_goes_on_to_its_full_length_when_the_search_is_over(tmp_path: Path) -> None:
    paths, params = project_of(tmp_path / "project", **study())
    learner = Learner(tmp_path / "journal")
    sweep(paths, params, learner)
    write_yaml(paths.study_config("cells"), study(halving=None))
    plan = current_plan(paths, params, "cells", TrialStore(paths.default_store))
    assert len(plan.missing) == 6
    assert "8 settings: 2 from the store, 6 trained" in sweep(paths, params, learner)
    assert {*rows_of(paths)["status"]} == {"ok"}
    assert len(learner.steps()) == len({*learner.steps()}) == 8 * 12
    write_yaml(paths.study_config("cells"), study())  # judged as of the rungs, though all were trained to their ends
    plan = current_plan(paths, params, "cells", TrialStore(paths.default_store))
    assert not plan.missing
    assert {s.axes["optimiser.learning_rate"]: s.stop_at for s in plan.settings} == {
        rate: None if steps == 12 else steps for rate, steps in STEPS.items()
    }


def test_settings_whose_intervals_touch_train_on(tmp_path: Path) -> None:
    project, learner = project_of(tmp_path / "project", **study()), Learner(tmp_path / "journal", spread=1.0)
    sweep(*project, learner)
    assert trained_steps(project[0]) == {(rate, "ok"): {12} for rate in RATES}


def test_a_failed_setting_does_not_compete_and_the_others_go_on(tmp_path: Path) -> None:
    project, learner = project_of(tmp_path / "project", **study()), Learner(tmp_path / "journal", fails_on=0.4)
    with pytest.raises(SweepError, match=r"2 of 8 settings failed.*\n(.*\n)*.*no kernel for 0\.4"):
        sweep(*project, learner)
    found = trained_steps(project[0])
    assert found.pop((0.4, "error")) == {None}
    assert found == {(0.01, "censored"): {3}, (0.1, "censored"): {6}, (0.2, "ok"): {12}}


def test_what_half_of_the_seeds_lose_is_stopped_and_a_lost_seed_stays_lost(tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", **study())
    learner = Learner(tmp_path / "journal", lost=(0.4, 2))
    sweep(*project, learner)
    assert find_doomed(TrialStore(project[0].default_store), orphans=True) == []  # two seeds of it can go on
    found = trained_steps(project[0])
    assert found[0.4, "censored"] == {3}
    assert found[0.2, "ok"] == {12}


def test_a_trial_that_a_grid_without_halving_asks_for_is_trained_to_its_end(tmp_path: Path) -> None:
    both = study()
    both["grids"]["whole"] = {"axes": {"model.cell": ["elman"], "optimiser.learning_rate": [0.01]}}
    paths, params = project_of(tmp_path / "project", **both)
    sweep(paths, params, Learner(tmp_path / "journal"))
    ended = (
        rows_of(paths).filter(status="ok").join(read_table("trials", paths.results("cells")), on=["trial_id", "seed"])
    )
    assert {*ended.select("rate", "model.cell").iter_rows()} == {(0.01, "elman"), (0.4, "elman"), (0.4, "lstm")}


def test_several_studies_are_halved_as_one_list(tmp_path: Path) -> None:
    paths, params = project_of(tmp_path / "project", **study())
    write_yaml(paths.study_config("others"), study(rates=[0.2, 0.4], halving=None))
    params, learner = replace(params, studies=("cells", "others")), Learner(tmp_path / "journal")
    train_together(paths, params, params.studies, executor_named("inline", params), stream=io.StringIO(), train=learner)
    assert len(learner.steps()) == len({*learner.steps()}) == 2 * (3 + 3 + 12 + 12)
    plans = [current_plan(paths, params, name, TrialStore(paths.default_store)) for name in params.studies]
    assert not any(plan.missing for plan in plans)


def test_a_dry_run_says_what_is_stopped_and_which_rung_is_next(tmp_path: Path) -> None:
    paths, params = project_of(tmp_path / "project", **study())
    store = TrialStore(paths.default_store)
    text = describe_plan(current_plan(paths, params, "cells", store))
    assert "8 settings, 8 trials, 8 to train to the next rung, step 3: 96 replica-steps" in text
    with pytest.raises(KeyboardInterrupt):
        sweep(paths, params, Learner(tmp_path / "journal", dies_at=(5,)))
    text = describe_plan(current_plan(paths, params, "cells", store))
    assert "stopped        3 steps  cells: elman, lr=0.01" in text
    assert "missing        6 steps  cells: elman, lr=0.4" in text
    assert "4 to train to the next rung, step 6" in text


def test_a_plan_without_halving_has_the_digest_that_it_had(tmp_path: Path) -> None:
    plain = plan_study(*project_of(tmp_path / "a", **study(halving=None)), "cells").digest()
    halved = plan_study(*project_of(tmp_path / "b", **study()), "cells").digest()
    assert {*plain["settings"][0]} == {"grid", "axes", "trial_id", "dataset_digest", "spec"}
    assert [setting.pop("halving") for setting in halved["settings"]] == [HALVING] * 8
    assert plain == halved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "test_loss"}, r"grids\.cells\.halving\.metric: unknown value 'test_loss'"),
        ({"factr": 3}, r"grids\.cells\.halving: unknown key 'factr'; did you mean 'factor'\?"),
        ({"factor": 1}, r"halving\.factor: expected an integer of at least 2, got 1"),
        ({"first": 0}, r"halving\.first: expected a number of steps of at least 1, got 0"),
        ({"first": 12}, r"halving\.first: expected fewer steps than training\.max_steps \(12\); got 12"),
        ({"first": 4}, r"halving\.first: expected a multiple of training\.evaluate_every \(3\); got 4"),
        ({"metric": "best_validation_error"}, r"halving\.metric: expected a metric of losses: the targets are real"),
    ],
)
def test_mistakes_in_halving_are_named_before_training(changes: Any, message: str, tmp_path: Path) -> None:
    project = project_of(tmp_path, **study(halving=HALVING | changes))
    with pytest.raises(ConfigError, match=message):
        plan_study(*project, "cells")


def test_halving_needs_seeds_and_something_that_is_selected_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cells\.halving: expected at least 2 seeds.*; got 1"):
        plan_study(*project_of(tmp_path / "a", num_seeds=1, **study()), "cells")
    with pytest.raises(ConfigError, match=r"cells\.halving: expected an axis or a searched key.*under select\.over"):
        plan_study(*project_of(tmp_path / "b", **study(select=None)), "cells")


def test_a_scale_changes_where_rungs_stand(tmp_path: Path) -> None:
    scales = {"tiny": {"halving": {"cells": {"first": 9}}}}
    paths, params = project_of(tmp_path, **study(scales=scales))
    sweep(paths, params, Learner(tmp_path / "journal"))
    assert trained_steps(paths)[0.01, "censored"] == {9}
    write_yaml(paths.study_config("cells"), study(halving=None, scales=scales))
    with pytest.raises(ConfigError, match=r"tiny\.halving\.cells: expected a grid with a halving; got one without"):
        plan_study(paths, params, "cells")


# The rule


def rule(factor: int = 2, metric: str = "best_validation_loss") -> Halving:
    found: Halving = build(Halving, {"metric": metric, "first": 1, "factor": factor}, "f")
    return found


def scores(*means: float, spread: float = 0.01, num_seeds: int = 5) -> dict[str, dict[int, float]]:
    """Return settings a, b, ... whose scores differ between seeds by a factor of a few times the spread."""
    return {
        name: {seed: mean * (1 + spread * seed) for seed in range(num_seeds)}
        for name, mean in zip("abcdefgh", means, strict=False)
    }


@pytest.mark.parametrize(
    ("means", "factor", "gone"),
    [
        ((1.0, 2.0, 3.0, 4.0), 2, "cd"),
        ((4.0, 3.0, 2.0, 1.0), 2, "ab"),
        ((1.0, 2.0, 3.0, 4.0), 4, "bcd"),
        ((1.0, 2.0, 3.0, 4.0), 3, "cd"),  # four thirds, rounded up, are kept
        ((1.0, 2.0, 2.01, 4.0), 2, "d"),  # c touches b, which is kept
        ((1.0, 1.0, 1.0, 1.0), 2, ""),
        ((0.0, 1.0), 2, ""),  # seeds that are all alike have no interval
    ],
)
def test_only_an_interval_above_those_of_all_that_are_kept_stops(means: Any, factor: int, gone: str) -> None:
    assert "".join(sorted(stopped(scores(*means), rule(factor)))) == gone


def test_losses_are_compared_on_a_logarithmic_scale_and_errors_as_shares() -> None:
    skewed = {"a": {0: 1e-6, 1: 1e-5, 2: 1e-4}, "b": {0: 0.1, 1: 0.2, 2: 0.3}}
    assert stopped(skewed, rule()) == {"b"}  # linear, a's mean lies between 0 and 2e-4: no other answer
    wide = {"a": {0: 1e-6, 1: 1e-3, 2: 1.0}, "b": {0: 0.9, 1: 1.0, 2: 1.1}}
    assert stopped(wide, rule()) == frozenset()
    errors = {"a": dict.fromkeys(range(5), 0.0), "b": dict.fromkeys(range(5), 0.5)}
    assert stopped(errors, rule(metric="best_validation_error")) == frozenset()  # of shares that are alike, five seeds
    apart = {"a": {seed: 0.01 * seed for seed in range(5)}, "b": {seed: 0.9 - 0.01 * seed for seed in range(5)}}
    assert stopped(apart, rule(metric="best_validation_error")) == {"b"}


def test_a_setting_is_lost_with_half_of_its_seeds_unless_all_are() -> None:
    found = scores(1.0, 1.01, 1.02, num_seeds=4)
    found["a"] |= {0: math.inf, 1: math.inf}
    assert stopped(found, rule()) == {"a"}
    found["b"] |= {0: math.inf}
    assert stopped(found, rule()) == {"a"}  # b is judged by the seeds that it has
    assert stopped({name: dict.fromkeys(range(4), math.inf) for name in "ab"}, rule()) == frozenset()


# Real trainings


def test_real_trainings_are_stopped_judged_as_of_the_rung_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    rates = [0.001, 0.5]
    halved, whole = (
        project_of(tmp_path / name, num_seeds=3, **study(rates, halving))
        for name, halving in (("halved", HALVING), ("whole", None))
    )
    sweep(*halved, run_trial)
    sweep(*whole, run_trial)
    stores = [TrialStore(paths.default_store) for paths, _ in (halved, whole)]
    settings = current_plan(*halved, "cells", stores[0]).settings
    gone = [setting for setting in settings if setting.stop_at is not None]
    assert gone, "the rates of this test should differ clearly after three steps"
    for setting in settings:
        at_rung = [
            scores_at(store.get(setting.trial_id), setting.spec.training, 3, "best_validation_loss") for store in stores
        ]
        assert at_rung[0] == at_rung[1]
    for setting in gone:
        rows = stores[0].get(setting.trial_id).tables["trials"]
        assert {*rows["status"]} <= {*RESUMABLE, "diverged"}
        assert rows["num_steps"].max() == setting.stop_at
        assert rows["best_validation_loss"].to_list() == [*at_rung_of(stores[1], setting).values()]
    write_yaml(halved[0].study_config("cells"), study(rates, None))
    sweep(*halved, run_trial)
    for table in TRIAL_TABLES:
        frames = [read_table(table, paths.results("cells")) for paths, _ in (halved, whole)]
        assert_frame_equal(*(frame.drop(HOST_COLUMNS, strict=False) for frame in frames))


def at_rung_of(store: TrialStore, setting: Any) -> dict[int, float]:
    found = store.get(setting.trial_id)
    return dict(scores_at(found, setting.spec.training, setting.stop_at, "best_validation_loss"))
