"""The stage prepares what studies ask for, from any folder, and ends with a sentence and status 2 where it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.data import load_dataset, read_manifest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path):
    """Return a copy of the project's stage and configuration, at the smoke scale."""
    root = tmp_path / "project"
    shutil.copytree(PROJECT / "configs", root / "configs")
    (root / "stages").mkdir()
    shutil.copy(PROJECT / "stages" / "prepare.py", root / "stages")
    shutil.copytree(PROJECT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"scale": "smoke", "studies": ["cells"]}))
    return root


def prepare(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the stage from another folder than the project's."""
    return subprocess.run(
        [sys.executable, str(root / "stages" / "prepare.py"), *arguments],
        cwd=root.parent,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_lengths_of_the_studies_and_of_the_file_are_prepared(project):
    ran = prepare(project, "adding")
    assert (ran.returncode, ran.stderr) == (0, "")
    folder = project / "data" / "adding"
    assert read_manifest(folder).lengths == (10, 20, 30, 50)
    digest = json.loads((project / "digests" / "data" / "adding.json").read_text())
    assert digest == json.loads((folder / "manifest.json").read_text())
    assert load_dataset(folder, 10).splits["train"].inputs.shape == (64, 10, 2)
    lines = ran.stdout.splitlines()
    assert lines[0] == "adding, length 10: 64 train, 32 validation, 32 test sequences of 10 timesteps"
    titles = [line.split(":")[0] for line in lines if not line.startswith("    ")]
    assert titles == [*(f"adding, length {n}" for n in (10, 20, 30, 50)), "adding, length 10", "adding"]
    assert lines[1].startswith("    inputs from 0 to 1 in train, mean 0.")
    assert lines.count("    leak check: no sequences of validation or test are in training, too") == 4
    at = lines.index("adding, length 10: the first training sequences")
    assert [line.removeprefix("    ") for line in lines[at + 1 : at + 9]] == list(read_manifest(folder).examples[:8])
    assert lines[-1].startswith("adding: 0.1 MB in ")


def test_a_dataset_that_no_study_uses_is_prepared_too(project):
    ran = prepare(project, "copy_memory")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "length 100: 64 train, 32 validation, 32 test sequences of 120 timesteps" in ran.stdout
    assert load_dataset(project / "data" / "copy_memory", 100).num_timesteps == 120


def test_an_unknown_dataset(project):
    ran = prepare(project, "ading")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "ading.yaml: no such file; unknown name 'ading'; did you mean 'adding'?" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (project / "data").exists()


def test_a_length_that_is_impossible(project):
    config = project / "configs" / "datasets" / "temporal_order.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("[50]", "[5]"), encoding="utf-8")
    ran = prepare(project, "temporal_order")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("dataset 'temporal_order': length 5 is impossible; ")
    assert ran.stderr.count("\n") == 1


def test_the_package_of_another_tree_is_refused_by_name(project):
    shutil.rmtree(project / "pipeline")
    ran = prepare(project, "adding")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        f"expected the package `pipeline` of its own tree, {project}; got {PROJECT}, whose code would run" in ran.stderr
    )
