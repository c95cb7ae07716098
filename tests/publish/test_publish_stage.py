from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Paths
from stages.publish import main
from tests.publish.conftest import TRIAL_IDS, make_trial, warnings_of, write_study
from tests.publish.offline_run import offline_folders

ROOT = Path(__file__).parents[2]
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


FOLLOWER = """
import os, signal, sys, time
from unittest.mock import Mock
from pipeline import stopping
stopping.watch("publish", "run again")
from stages import publish

def follow(follower, folder, interval_s, is_over, is_swept):
    assert not is_over()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
    while not is_over():
        time.sleep(0.02)
    print("another look")

publish.follow, publish.Publisher = follow, Mock(return_value=Mock(mode="online"))
publish.plan_study, publish.followed, publish.Follower = Mock(), Mock(), Mock()
stopping.run(publish.main, ends_itself=True)
"""


def test_a_signal_ends_a_follower_after_another_look(paths: Paths) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOLLOWER, "--follow"],
        cwd=paths.root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (143, "publish: stopped by SIGTERM; run again\n")
    assert done.stdout.endswith("another look\n")
