"""After a refactoring: what agrees with what trains again is adopted, and nothing else."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.__main__ import main
from pipeline.config import Params, Paths
from pipeline.errors import SweepError
from pipeline.results import read_table
from pipeline.results.store import TrialStore
from pipeline.sweep import adopt, current_plan, executor_named
from pipeline.sweep.adopt import choose, find_candidates, first_difference, kinds_that_agree

from .fakes import NUM_STEPS, STUDY, FakeTrain, grid, sweep, write_project, write_yaml

Project = tuple[Paths, Params]


@dataclass(frozen=True)
class OtherNumbers(FakeTrain):
    """Trains one cell to another loss."""

    cell: str = ""

    def __call__(self, spec, *arguments, **options):
        result = super().__call__(spec, *arguments, **options)
        if spec.model.cell == self.cell:
            result.rows[-1]["test_loss"] = -0.0
        else:
            result.rows[-1]["test_loss"] = 0.0
        return result


@pytest.fixture
def refactored(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that was swept with older code, of another digest."""
    return with_older(project, monkeypatch)


def with_older(project: Project, monkeypatch: pytest.MonkeyPatch, train: object = None, code: str = "older") -> Project:
    with monkeypatch.context() as earlier:
        for user in ("core.training.spec", "sweep.plan", "sweep.trial"):
            earlier.setattr(f"pipeline.{user}.code_digest", lambda spec: f"{code} {spec.model.cell}")
        sweep(*project, train or OtherNumbers())
    return project


def adopted(project: Project, **options: Any) -> str:
    shown = io.StringIO()
    options = {"train": OtherNumbers()} | options
    adopt(*project, ["cells"], executor_named("inline", project[1]), stream=shown, **options)
    return shown.getvalue()


def missing(project: Project) -> list[str]:
    paths, params = project
    return [s.label for s in current_plan(paths, params, "cells", TrialStore.of(paths, None)).missing]


def test_a_refactoring_that_leaves_every_row_is_adopted(refactored: Project, tmp_path: Path) -> None:
    assert len(missing(refactored)) == 4
    before = read_table("trials", refactored[0].results("cells")).sort("model.cell", "optimiser.learning_rate", "seed")
    shown = adopted(refactored, num_checked=1, train=OtherNumbers(journal=tmp_path / "journal"))
    assert "adopt: 2 to check" in shown  # the cheapest, and the cheapest of the other cell
    assert shown.endswith("adopt: all rows of 2 trials agree; 2 adopted\n")
    assert len((tmp_path / "journal").read_text().splitlines()) == 2 * NUM_STEPS
    assert missing(refactored) == []
    sweep(*refactored, FakeTrain(fails_on="anything would fail"))
    after = read_table("trials", refactored[0].results("cells")).sort("model.cell", "optimiser.learning_rate", "seed")
    assert after["best_validation_loss"].equals(before["best_validation_loss"])
    assert after["code_digest"].str.starts_with("older").sum() == 0
    cells = after.filter(pl.col("adopted_from").is_not_null())
    assert cells.select("model.cell", "adopted_from").unique().sort("model.cell").rows() == [
        ("elman", "older elman"),
        ("lstm", "older lstm"),
    ]
    assert len(cells) == 4  # two trials of two seeds
    curves = read_table("curves", refactored[0].results("cells"))
    assert set(curves["trial_id"]) == set(after["trial_id"])


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_one_row_that_differs_by_the_sign_of_zero_adopts_nothing(refactored: Project, cell: str) -> None:
    message = rf"{cell}, lr=0.\d: trial .* differ, trials.test_loss, row 1: 0.0, then -0.0; nothing was adopted"
    with pytest.raises(SweepError, match=message):
        adopted(refactored, num_checked=0, train=OtherNumbers(cell=cell))
    kept = [TrialStore.of(refactored[0], None).get(identity) for identity in TrialStore.of(refactored[0], None).ids()]
    assert all(trial.tables["trials"]["adopted_from"].null_count() == 2 for trial in kept)


def test_a_trial_that_fails_adopts_nothing(refactored: Project) -> None:
    with pytest.raises(SweepError, match=r"lstm, lr=.*: RuntimeError: no kernel for lstm; nothing was adopted"):
        adopted(refactored, train=FakeTrain(fails_on="lstm"))


def test_older_trials_that_disagree_are_left(refactored: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with_older(refactored, monkeypatch, OtherNumbers(cell="lstm"), "oldest")
    paths, params = refactored
    store = TrialStore.of(paths, None)
    found = find_candidates(store, current_plan(paths, params, "cells", store).missing)
    assert {candidate.setting.spec.model.cell for candidate in found} == {"elman"}
    assert "2 of 4 missing trials have no older one" in adopted(refactored)
    assert len(missing(refactored)) == 2


def test_what_was_adopted_twice_names_the_code_that_ran(refactored: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted(refactored, num_checked=0)
    for user in ("core.training.spec", "sweep.plan", "sweep.trial"):
        monkeypatch.setattr(f"pipeline.{user}.code_digest", lambda spec: f"newest {spec.model.cell}")
    adopted(refactored, num_checked=0)
    store = TrialStore.of(refactored[0], None)
    trials = [
        store.get(setting.trial_id).tables["trials"] for setting in current_plan(*refactored, "cells", store).trials
    ]
    ran = {name for frame in trials for name in frame["adopted_from"].to_list() if name is not None}
    assert all(name.startswith("older") or len(name) == 16 for name in ran)


def test_a_trial_that_ran_out_of_time_is_no_witness(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeTrain):
        def __call__(self, *arguments, **options):
            result = super().__call__(*arguments, **options)
            for row in result.rows:
                row["status"] = "timed_out"
            return result

    with_older(project, monkeypatch, Slow())
    assert "4 of 4 missing trials have no older one" in adopted(project)


def test_every_cell_rule_and_forcing_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {
        "model__cell": ["elman", "lstm", "gru"],
        "clipping": [{"name": "none"}, {"name": "value", "threshold": 1.0}, {"name": "global_norm", "threshold": 1.0}],
    }
    project = with_older(write_project(tmp_path, grids=grid(**axes), select=None), monkeypatch)
    paths, params = project
    store = TrialStore.of(paths, None)
    found = find_candidates(store, current_plan(paths, params, "cells", store).missing)
    assert len(found) == 9
    chosen = choose(found, 0)
    assert {candidate.setting.spec.model.cell for candidate in chosen} == set(axes["model__cell"])
    assert {candidate.setting.spec.clipping.name for candidate in chosen} == {"none", "value", "global_norm"}
    assert len(chosen) < 9
    assert len(choose(found, 9)) == 9
    assert all(store.get(candidate.older_id) is not None for candidate in found)


def test_rows_in_another_order_are_the_same_rows(refactored: Project) -> None:
    """Which table is written first depends on when a checkpoint was due."""
    store = TrialStore.of(refactored[0], None)
    found = find_candidates(store, current_plan(*refactored, "cells", store).missing)
    older = store.read(found[0].older_id)
    turned = replace(older, tables={name: frame.reverse() for name, frame in older.tables.items()})
    assert first_difference(older, turned) is None
    other = older.tables["curves"].with_columns(value=pl.col("value") + 1e-9)
    assert first_difference(older, replace(turned, tables=turned.tables | {"curves": other})) is not None


def test_what_was_checked_before_is_not_checked_again_and_what_was_adopted_proves_nothing(refactored: Project) -> None:
    paths, params = refactored
    store = TrialStore.of(paths, None)
    everything = current_plan(paths, params, "cells", store).missing
    assert kinds_that_agree(store, everything) == frozenset()  # none is trained
    shown = adopted(refactored, num_checked=0)
    ran = {setting.trial_id: store.get(setting.trial_id).tables["trials"]["adopted_from"] for setting in everything}
    checked = [setting for setting in everything if ran[setting.trial_id].is_null().all()]
    assert f"{len(checked)} to check" in shown
    assert 0 < len(checked) < len(everything)
    known = kinds_that_agree(store, everything)
    assert known == kinds_that_agree(store, checked) != frozenset()
    others = [setting for setting in everything if setting not in checked]
    assert kinds_that_agree(store, others) == frozenset()
    assert choose(find_candidates(store, everything), 0, known) == []


def test_a_dry_run_trains_nothing(refactored: Project, tmp_path: Path) -> None:
    shown = adopted(refactored, dry_run=True, train=FakeTrain(journal=tmp_path / "journal"))
    assert shown.count("  check  ") == 3
    assert not (tmp_path / "journal").exists()
    assert len(missing(refactored)) == 4


def test_a_mistake_on_the_command_line_is_a_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project[0].root)
    assert main(["adopt", "cell"]) == 2
    assert "adopt: params.yaml: studies: unknown study 'cell'; did you mean 'cells'?" in capsys.readouterr().err
    write_yaml(project[0].study_config("cells"), {**STUDY, "grids": {}})
    with pytest.raises(SystemExit):
        main(["adopt", "--check", "-1"])
    assert "expected an integer of at least 0, got '-1'" in capsys.readouterr().err
