"""The stages that take seconds: what the studies ask for, and what each of them trains."""

from __future__ import annotations

import json

import pytest

from pipeline.config import Params, Paths
from pipeline.data import read_manifest
from stages import plan, request
from tests.sweep.fakes import PARAMS, STUDY, grid, write_project, write_yaml

Project = tuple[Paths, Params]


@pytest.fixture
def paths(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project of one study and one prepared dataset, as the current folder."""
    project, _ = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return project


def test_what_studies_ask_for_is_written(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert request.main([]) == 0
    assert capsys.readouterr().out == "request: 1 studies, 1 datasets at scale tiny\n"
    assert json.loads(paths.request("adding").read_text())["lengths"] == [4]
    assert paths.listed_studies.exists()


def test_a_plan_names_the_data_of_its_study_and_nothing_else(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main([]) == 0
    assert capsys.readouterr().out == "plan: 1 studies, 4 settings, 4 trials\n"
    written = json.loads(paths.plan("cells").read_text())
    digest = read_manifest(paths.dataset("adding")).variant(4).digest
    assert {setting["dataset_digest"] for setting in written["settings"]} == {digest}
    assert [setting["spec"]["seeds"] for setting in written["settings"]] == [[0, 1]] * 4


def test_digests_of_datasets_that_are_not_listed_are_removed(paths: Paths) -> None:
    for name in ("adding", "left_over"):
        paths.dataset_digest(name).parent.mkdir(parents=True, exist_ok=True)
        paths.dataset_digest(name).write_text("{}")
    assert plan.main([]) == 0
    assert [path.stem for path in paths.dataset_digest("any").parent.iterdir()] == ["adding"]


def test_a_mistake_in_any_listed_study_shows_before_any_sweep(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    write_yaml(paths.params, PARAMS | {"studies": ["cells", "broken"]})
    write_yaml(paths.study_config("broken"), {**STUDY, "grids": grid(model__cell=["gruu"]), "select": None})
    assert plan.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("plan: configs/studies/broken.yaml.grids.cells.model.cell: ")
    assert "unknown cell 'gruu'; did you mean 'gru'?" in error
    assert not paths.plan("cells").exists()


def test_a_misspelt_key_is_one_line(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    write_yaml(paths.params, {**PARAMS, "resources": {"cpu_per_trial": 1, "gpus_per_trial": 0}})
    assert request.main([]) == 2
    assert "request: params.yaml.resources: unknown key 'cpu_per_trial'; did you mean" in capsys.readouterr().err
