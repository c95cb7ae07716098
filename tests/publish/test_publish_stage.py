from __future__ import annotations

import signal
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from pipeline import stopping
from pipeline.config import Paths
from stages import publish
from stages.publish import main
from tests.publish.conftest import TRIAL_IDS, make_trial, warnings_of, write_study
from tests.publish.offline_run import offline_folders

PARAMS = """
scale: smoke
seeds: {start: 0, count: null}
datasets: [adding]
studies: [cells]
trial_store: null
resources: {cpus_per_trial: 1, gpus_per_trial: 0}
tracking: {mode: disabled, project: gradients, entity: null}
"""


@pytest.fixture(autouse=True)
def _project(paths: Paths, heatmap: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    paths.params.write_text(PARAMS)
    for path in (paths.study_config("cells"), paths.dataset_config("adding"), paths.scale_config("smoke")):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.chdir(paths.root)


def test_finished_studies_are_published_once(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(paths, [make_trial(), make_trial(TRIAL_IDS[1])])
    assert main(["cells", "--mode", "offline"]) == 0
    folders = offline_folders(paths.root)
    assert len(folders) == 3
    assert main(["--mode", "offline"]) == 0
    assert offline_folders(paths.root) == folders
    assert capsys.readouterr().out == "cells: offline, 0 failed\n" * 2


def test_the_mode_of_the_command_line_is_over_the_environment(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    write_study(paths, [make_trial()])
    assert main([]) == 0
    assert not offline_folders(paths.root)
    assert main(["--mode", "offline"]) == 0
    assert len(offline_folders(paths.root)) == 2


def test_online_that_could_not_be_ends_with_1(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    write_study(paths, [make_trial()])
    assert main(["--mode", "online"]) == 1
    assert "no API key" in warnings_of(caplog)[0]
    assert len(offline_folders(paths.root)) == 2


def test_a_study_without_results_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "results/cells/settings.parquet: no such table" in capsys.readouterr().err


def test_an_unknown_study_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cell"]) == 2
    expected = "publish: params.yaml: studies: unknown study 'cell'; did you mean 'cells'? known: cells\n"
    assert capsys.readouterr().err == expected


def test_a_signal_ends_a_follower_after_another_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow(follower: object, folder: object, interval_s: float, is_over: Callable[[], bool], _: object) -> None:
        assert not is_over()
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert is_over()

    monkeypatch.setattr(stopping, "HANDLER", stopping.Handler())
    monkeypatch.setattr(publish, "follow", follow)
    monkeypatch.setattr(publish, "Publisher", Mock(return_value=Mock(mode="online")))
    monkeypatch.setattr(publish, "plan_study", Mock(return_value=Mock()))
    monkeypatch.setattr(publish, "followed", Mock())
    monkeypatch.setattr(publish, "Follower", Mock())
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    try:
        stopping.HANDLER.install("publish", "run again")
        assert main(["--follow"]) == 143
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "publish: stopped by SIGTERM; run again\n"
