"""A stage trains with the code of the tree that it stands in, wherever the environment points, and keeps its trials."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Paths, build
from pipeline.core.identity import Code
from pipeline.core.training import TrialSpec
from pipeline.results import read_table
from pipeline.results.store import TrialStore
from tests.sweep.fakes import write_project
from tests.test_architecture import ROOT

NO_CACHES = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A project with its own copy of the code, and an experiment's copy of both where DVC makes it."""
    root = tmp_path / "project"
    write_project(root)
    for part in ("pipeline", "stages"):
        shutil.copytree(ROOT / part, root / part, ignore=NO_CACHES)
    queued = root / ".dvc" / "tmp" / "exps" / "tmp1"
    for part in ("pipeline", "stages", "configs", "data"):
        shutil.copytree(root / part, queued / part)
    shutil.copy(root / "params.yaml", queued)
    (queued / ".dvc").mkdir()
    return root


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_queued_experiment_trains_with_its_own_code_and_keeps_its_trials(workspace: Path, executor: str) -> None:
    pytest.importorskip(executor if executor == "ray" else "torch")
    queued = workspace / ".dvc" / "tmp" / "exps" / "tmp1"
    loop = workspace / "pipeline" / "core" / "training" / "step.py"
    loop.write_text(loop.read_text().replace("PIECE = 100", "PIECE = 50\nPRINTED = print('edited meanwhile')"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DVC_"))}
    ran = subprocess.run(
        [sys.executable, "stages/sweep.py", "cells", "--executor", executor],
        cwd=queued,
        env=kept | {"PYTHONPATH": str(workspace)},  # as an editable install of the workspace
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "edited meanwhile" not in ran.stdout + ran.stderr
    stored = TrialStore(workspace / ".trials").summaries()
    specs = [build(TrialSpec, json.loads(trial.spec), "stored") for trial in stored.values()]
    assert len(specs) == 4
    digests = {Code(queued / "pipeline").digest(spec) for spec in specs}
    assert digests.isdisjoint(Code(workspace / "pipeline").digest(spec) for spec in specs)
    assert set(read_table("trials", queued / "results" / "cells")["code_digest"]) == digests
    assert not list((queued / ".trials").glob("*.zip"))


def test_only_the_copy_of_an_experiment_has_another_home(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    assert Paths.at(copy).home == tmp_path
    assert Paths.at(copy / ".try").home == tmp_path / ".try"
    assert Paths.at(tmp_path / "anything").home == tmp_path / "anything"
    assert TrialStore.of(Paths.at(copy), "store").url == str(tmp_path / "store")
    assert TrialStore.of(Paths.at(copy), "/shared").url == "/shared"
