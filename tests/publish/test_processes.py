"""What only a process of its own can show: imports, prompts, what is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Paths
from tests.publish.offline_run import offline_folders

REPOSITORY = Path(__file__).parents[2]
PUBLISH = """
import sys
import polars as pl
from pipeline.config import Paths
from pipeline.publish import Publisher
from tests.publish.conftest import make_trial, params_with, write_study
trial = make_trial()
trial.tables["traces"] = trial.tables["traces"].with_columns(part=pl.lit("encoder"))
write_study(Paths.at(), [trial])
publisher = Publisher(Paths.at(), params_with(sys.argv[1]))
publisher.study("cells")
publisher.close()
print(publisher.mode, "wandb" in sys.modules)
"""


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `root` with this test's environment and no standard input."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_disabled_writes_nothing_and_imports_no_wandb(paths: Paths) -> None:
    answer = run(paths.root, "-c", PUBLISH, "disabled")
    assert (answer.stdout, answer.stderr) == ("disabled False\n", "")
    assert [path.name for path in paths.root.iterdir()] == ["results"]


def test_no_key_and_no_terminal_is_offline_and_silent(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_BASE_URL")
    answer = run(paths.root, "-c", PUBLISH, "auto")
    assert (answer.stdout, answer.stderr) == ("offline True\n", "")
    assert len(offline_folders(paths.root)) == 2


def test_without_wandb_one_line_says_so(paths: Paths) -> None:
    (paths.root / "wandb").mkdir()  # run folders of an earlier time: no package, although it can be imported
    answer = run(paths.root, "-c", _HIDE_WANDB + PUBLISH, "auto")
    assert answer.stdout == "disabled False\n"
    assert answer.stderr.startswith("W&B: wandb is not installed, nothing is published")
    assert answer.stderr.count("\n") == 1


def test_a_dead_server_is_one_line(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    answer = run(paths.root, "-c", PUBLISH, "auto")
    assert answer.stdout == "offline True\n"
    assert answer.stderr.startswith("W&B: 127.0.0.1:9 failed: CommError")
    assert answer.stderr.count("\n") == 1
    written = [path for path in paths.root.rglob("*") if path.is_file() and b"a" * 40 in path.read_bytes()]
    assert not written  # the key stays out of every log


_HIDE_WANDB = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    found = find(name, path, target)
    if name == "wandb" and found is not None and found.origin is not None:
        return find(name, [""], target)
    return found
machinery.PathFinder.find_spec = staticmethod(find_spec)
"""
