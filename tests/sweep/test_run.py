from __future__ import annotations

import errno
import io
import logging
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import Params, Paths, Resources
from pipeline.core.training import CheckpointError
from pipeline.data import load_dataset
from pipeline.errors import ConfigError, DatasetError, SweepError, TableError
from pipeline.results import read_table
from pipeline.results.store import StoredTrial, TrialStore
from pipeline.sweep import current_plan, describe_plan, plan_study
from pipeline.sweep.executors import SHORT_S, cluster_address, executor_named
from pipeline.sweep.lease import sweep_lease
from pipeline.sweep.run import git_revision, run_sweep
from pipeline.sweep.trial import Job, train_setting

from .fakes import NUM_STEPS, STUDY, FakeResult, FakeTrain, grid, limit_time, sweep, write_yaml

Project = tuple[Paths, Params]


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def test_a_sweep_trains_everything_once_and_writes_the_tables(project: Project, tmp_path: Path) -> None:
    shown = sweep(*project, FakeTrain(journal=tmp_path / "journal"))
    assert shown.splitlines()[-1].startswith("4 settings: 0 from the store, 4 trained, 0 diverged, 0 failed")
    assert len(lines(tmp_path / "journal")) == 4 * NUM_STEPS
    trials = read_table("trials", project[0].results("cells"))
    assert trials["status"].to_list() == ["ok"] * 8
    assert len(read_table("curves", project[0].results("cells"))) == 4 * 2 * NUM_STEPS


def test_a_gpu_that_is_not_there_is_refused_before_training(project: Project) -> None:
    params = replace(project[1], resources=Resources(1.0, 1.0))
    with pytest.raises(SweepError, match="gpus_per_trial: expected 0, this machine has no GPU that torch can use"):
        executor_named("inline", params)


@pytest.mark.parametrize(
    ("duration_s", "address", "num_gpus", "expected"),
    [
        (0.4 * SHORT_S, None, 0.0, "inline"),
        (0.6 * SHORT_S, None, 0.0, "ray"),  # each of two settings
        (0.4 * SHORT_S, "auto", 0.0, "ray"),
        (0.4 * SHORT_S, None, 0.5, "ray"),
    ],
)
def test_ray_starts_where_it_pays(
    duration_s: float,
    address: str | None,
    num_gpus: float,
    expected: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths, params = project
    params = replace(params, resources=Resources(1.0, num_gpus))
    plan = current_plan(paths, params, "cells", TrialStore(str(paths.default_store)))
    settings = [replace(setting, duration_s=duration_s) for setting in plan.settings[:2]]
    named: list[str] = []

    def recording(name: str, params: Params):
        named.append(name)
        return lambda *arguments: None

    chosen = executor_named("auto", params)
    monkeypatch.setattr("pipeline.sweep.executors.executor_named", recording)
    monkeypatch.setenv("RAY_ADDRESS", address) if address else monkeypatch.delenv("RAY_ADDRESS", raising=False)
    chosen(settings, None, None, None)
    assert named == [expected]


def test_an_unwritable_results_folder_is_refused_before_any_training(project: Project, tmp_path: Path) -> None:
    paths, _ = project
    paths.results("cells").parent.write_text("a file where the folder should be")
    with pytest.raises(TableError, match="results/cells: results cannot be written there: "):
        sweep(*project, FakeTrain(journal=tmp_path / "journal"))
    assert lines(tmp_path / "journal") == []


def test_a_trial_that_ran_out_of_time_is_trained_on_under_a_higher_limit(project: Project, tmp_path: Path) -> None:
    paths, params = project

    def timed_out(*arguments, **options):
        result = FakeTrain()(*arguments, **options)
        return FakeResult([row | {"status": "timed_out"} for row in result.rows], "timed_out")

    def run(train, limit_s: float) -> None:
        limit_time(paths, limit_s)
        run_sweep(paths, params, "cells", executor_named("inline", params), train=train, stream=io.StringIO())

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    run(timed_out, limit_s=10.0)
    assert set(read_table("trials", paths.results("cells"))["status"]) == {"timed_out"}
    run(FakeTrain(fails_on="elman"), limit_s=10.0)  # the same limit: it would end the same, so nothing trains
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, limit_s=20.0)
    run(FakeTrain(journal=tmp_path / "journal"), limit_s=20.0)
    assert set(read_table("trials", paths.results("cells"))["status"]) == {"ok"}
    assert lines(tmp_path / "journal") == []  # every step had been made: they go on from their checkpoints


def test_a_damaged_checkpoint_starts_the_trial_anew(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    paths, params = project
    store = TrialStore(paths.default_store)
    plan = current_plan(paths, params, "cells", store)
    store.checkpoint(plan.trials[0].trial_id).save(b"damaged")

    def train(spec, dataset, sink, *, checkpoints, **options):
        if checkpoints.load() == b"damaged":
            raise CheckpointError("not a readable checkpoint")
        return FakeTrain()(spec, dataset, sink, checkpoints=checkpoints, **options)

    run_sweep(paths, params, "cells", executor_named("inline", params), train=train, stream=io.StringIO())
    assert set(read_table("trials", paths.results("cells"))["status"]) == {"ok"}
    assert "not a readable checkpoint; it starts anew" in caplog.text


def test_a_second_sweep_trains_nothing_and_writes_the_same_bytes(project: Project) -> None:
    sweep(*project, FakeTrain())
    results = project[0].results("cells")
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    shown = sweep(*project, FakeTrain(fails_on="elman"))
    assert shown.startswith("4 settings: 4 from the store, 0 trained")
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_one_more_value_trains_only_what_is_new(project: Project, tmp_path: Path) -> None:
    sweep(*project, FakeTrain())
    paths, params = project
    wider = grid(model__cell=["elman", "gru", "lstm"], optimiser__learning_rate=[0.1, 0.2])
    write_yaml(paths.study_config("cells"), {**STUDY, "grids": wider})
    sweep(paths, params, FakeTrain(journal=tmp_path / "journal"))
    assert {line.split()[0] for line in lines(tmp_path / "journal")} == {"gru"}
    assert read_table("settings", paths.results("cells"))["model.cell"].to_list() == 2 * ["elman"] + 2 * ["gru"] + 2 * [
        "lstm"
    ]


def test_a_failing_setting_is_told_and_the_others_are_kept(project: Project, tmp_path: Path) -> None:
    message = (
        r"2 of 4 settings failed, the others are kept; first cells: lstm, lr=0.1 .*\n(.*\n)+RuntimeError: no kernel"
    )
    with pytest.raises(SweepError, match=message):
        sweep(*project, FakeTrain(fails_on="lstm"))
    trials = read_table("trials", project[0].results("cells"))
    assert trials["status"].to_list() == ["ok"] * 4 + ["error"] * 4
    assert trials["status_message"][-1] == "RuntimeError: no kernel for lstm"
    sweep(*project, FakeTrain(journal=tmp_path / "journal"))
    assert {line.split()[0] for line in lines(tmp_path / "journal")} == {"lstm"}


def test_divergence_is_data(project: Project) -> None:
    assert "2 trained, 2 diverged, 0 failed" in sweep(*project, FakeTrain(diverges_on="lstm"))


def test_an_interrupt_keeps_what_is_finished(project: Project, tmp_path: Path) -> None:
    class Impatient(FakeTrain):
        def __call__(self, spec, *arguments, **options):
            if spec.model.cell == "elman":
                raise KeyboardInterrupt
            return super().__call__(spec, *arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        sweep(*project, Impatient())
    assert list(project[0].results("cells").iterdir()) == []
    assert "2 from the store, 2 trained" in sweep(*project, FakeTrain())


def test_an_executor_that_ends_early_is_an_error(project: Project) -> None:
    """As Ray Tune does after SIGUSR1."""
    inline = executor_named("inline", project[1])
    message = "interrupted: 2 of 4 settings are missing, cells: elman, lr=0.1 among them; run again, finished ones are"
    with pytest.raises(SweepError, match=message):
        run_sweep(
            *project,
            "cells",
            lambda settings, *more: inline(settings[:2], *more),
            train=FakeTrain(),
            stream=io.StringIO(),
        )


def test_a_damaged_trial_trains_again(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    sweep(*project, FakeTrain())
    victim = next(project[0].default_store.glob("*.zip"))
    victim.write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        assert "3 from the store, 1 trained" in sweep(*project, FakeTrain())
    assert f"{victim.name}.damaged" in caplog.text


def test_a_full_disk_is_the_trials_error_and_costs_no_training(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = TrialStore.put

    def full(store: TrialStore, stored: StoredTrial) -> None:
        with monkeypatch.context() as broken:
            if stored.spec["model"]["cell"] == "lstm":
                broken.setattr(
                    os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
                )
            put(store, stored)

    monkeypatch.setattr(TrialStore, "put", full)
    with pytest.raises(
        SweepError, match=r"2 of 4 settings failed.*\): StoreError: .*\.zip: cannot be written: No space left$"
    ):
        sweep(*project, FakeTrain(journal=tmp_path / "journal"))
    assert len(list(project[0].default_store.glob("*.zip"))) == 2
    assert not list(project[0].default_store.glob(".*.tmp"))
    monkeypatch.undo()
    assert "2 from the store, 2 trained" in sweep(*project, FakeTrain(journal=tmp_path / "journal"))
    assert len(lines(tmp_path / "journal")) == 4 * NUM_STEPS  # none of them twice


def test_a_study_that_is_being_swept_is_refused(project: Project) -> None:
    store = TrialStore(project[0].default_store)
    with sweep_lease(store, "cells"), pytest.raises(SweepError, match="'cells' is being swept already by pid"):
        sweep(*project, FakeTrain())


def test_data_that_changed_after_the_plan_are_refused(project: Project, tmp_path: Path) -> None:
    paths, params = project
    setting = current_plan(paths, params, "cells", TrialStore(tmp_path)).settings[0]
    other = load_dataset(paths.dataset("adding"), 6)
    outcome = train_setting(Job(str(tmp_path), None, "cpu", 1, 60.0, FakeTrain()), setting, other)
    assert outcome.status == "error"
    assert outcome.message.startswith(f"{DatasetError.__name__}: dataset 'adding' changed after the sweep was planned")


def test_the_plan_can_be_read_without_training(project: Project) -> None:
    paths, params = project
    text = describe_plan(current_plan(paths, params, "cells", TrialStore(paths.default_store)))
    assert "missing        6 steps  cells: elman, lr=0.1" in text
    assert "4 settings, 4 trials, 4 to train: 48 replica-steps, very roughly" in text
    assert not paths.default_store.exists()


def test_resources_reach_the_training_function(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # the fake trains on anything
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    seen = []

    class Curious(FakeTrain):
        def __call__(self, *arguments, **options):
            seen.append((options["device"], options["num_threads"], options["max_wall_time_s"]))
            return super().__call__(*arguments, **options)

    paths, params = project
    resources = replace(params.resources, cpus_per_trial=2.5, gpus_per_trial=0.25)
    sweep(paths, replace(params, resources=resources), Curious())
    assert set(seen) == {("cuda", 2, 60.0)}


def repository(folder: Path, *names: str) -> None:
    """Write files and commit them."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("one")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)


HELD = ("pipeline/__init__.py", "params.yaml", "configs/studies/cells.yaml", "README.md", ".gitignore")


@pytest.mark.parametrize(
    ("name", "content", "dirty"),
    [
        ("pipeline/__init__.py", "two", True),
        ("pipeline/core/cells/mine.py", "new", True),
        ("configs/studies/mine.yaml", "new", True),
        ("params.yaml", "two", True),
        ("pipeline/__pycache__/mine.pyc", "compiled", False),
        ("configs/.DS_Store", "", False),
        ("README.md", "two", False),
        ("data/adding/inputs.npy", "prepared", False),
    ],
)
def test_the_revision_is_dirty_where_what_can_change_a_result_differs(
    tmp_path: Path, name: str, content: str, dirty: bool
) -> None:
    repository(tmp_path, *HELD)
    revision = git_revision(Paths.at(tmp_path), tmp_path)
    assert revision is not None
    assert len(revision) == 40
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    assert git_revision(Paths.at(tmp_path), tmp_path) == (f"{revision}-dirty" if dirty else revision)


def test_an_ignored_module_makes_the_revision_dirty(tmp_path: Path) -> None:
    repository(tmp_path, *HELD)
    (tmp_path / ".git" / "info" / "exclude").write_text("mine.py\nprivate/\n")
    assert not str(git_revision(Paths.at(tmp_path), tmp_path)).endswith("-dirty")
    (tmp_path / "pipeline" / "private").mkdir()
    (tmp_path / "pipeline" / "private" / "mine.py").write_text("new")
    assert str(git_revision(Paths.at(tmp_path), tmp_path)).endswith("-dirty")


def test_a_workspace_whose_configuration_no_commit_has_is_dirty(tmp_path: Path) -> None:
    repository(tmp_path, *HELD)
    (tmp_path / ".git" / "info" / "exclude").write_text(".try\n")
    (tmp_path / ".try").mkdir()
    (tmp_path / ".try" / "params.yaml").write_text("other")
    assert str(git_revision(Paths.at(tmp_path / ".try"), tmp_path)).endswith("-dirty")


def test_a_repository_that_does_not_hold_the_code_has_no_say(tmp_path: Path) -> None:
    tree = tmp_path / "unpacked"
    (tree / "pipeline").mkdir(parents=True)
    (tree / "pipeline" / "__init__.py").write_text("one")
    assert git_revision(Paths.at(tree), tree) is None
    repository(tmp_path, "README.md")
    subprocess.run(["git", "-C", str(tmp_path), "rm", "-rq", "--cached", "unpacked"], check=True)
    assert git_revision(Paths.at(tree), tree) is None


def test_tables_name_host_and_revision(project: Project) -> None:
    sweep(*project, FakeTrain())
    trials = read_table("trials", project[0].results("cells"))
    assert trials["hostname"].null_count() == 0
    assert trials.schema["git_revision"] == pl.String


def test_more_cpus_than_the_machine_has_are_refused_inline(project: tuple[Paths, Params]) -> None:
    params = replace(project[1], resources=Resources(4096.0, 0.0))
    for name in ("inline", "auto"):
        with pytest.raises(
            SweepError, match=r"resources\.cpus_per_trial: expected at most \d+, the CPUs of this machine"
        ):
            sweep(project[0], params, FakeTrain(), name)


@pytest.mark.parametrize(("address", "cluster"), [(None, None), ("", None), ("local", None), ("auto", "auto")])
def test_local_is_this_machine(address: str | None, cluster: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address) if address is not None else monkeypatch.delenv(
        "RAY_ADDRESS", raising=False
    )
    assert cluster_address() == cluster


def test_what_another_study_has_trained_further_meanwhile_is_kept(project: Project, tmp_path: Path) -> None:
    """Two studies with the same settings share a store; each has a lease of its own."""
    paths, params = project
    write_yaml(paths.study_config("full"), STUDY)
    params = replace(params, studies=("cells", "full"))

    def executor(settings, job, load, watch) -> None:  # type: ignore[no-untyped-def]
        run_sweep(paths, params, "full", executor_named("inline", params), train=FakeTrain(), stream=io.StringIO())
        again = FakeTrain(journal=tmp_path / "journal")
        executor_named("inline", params)(settings, replace(job, train=again), load, watch)

    run_sweep(paths, params, "cells", executor, train=FakeTrain(), stream=io.StringIO())
    assert lines(tmp_path / "journal") == []
    assert read_table("trials", paths.results("cells"))["status"].to_list() == ["ok"] * 8


def test_a_study_that_is_not_listed_leaves_nothing_behind(project: Project) -> None:
    paths, params = project
    with pytest.raises(ConfigError, match="unknown study 'cell'"):
        run_sweep(paths, params, "cell", executor_named("inline", params), train=FakeTrain(), stream=io.StringIO())
    assert not paths.results("cell").exists()


def test_what_is_stored_needs_no_memory(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(*project, FakeTrain())
    monkeypatch.setattr("pipeline.sweep.run.available_memory_bytes", lambda: 1)
    assert current_plan(*project, "cells", TrialStore.of(project[0], None)).missing == ()
    with pytest.raises(ConfigError, match="fits into"):
        plan_study(*project, "cells", 1)
