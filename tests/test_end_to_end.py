"""A newcomer's first half hour, at smoke scale, in a clone: repro, repro again, one more length, and what DVC shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.test_architecture import ROOT

LIMIT_S = 540
pytestmark = pytest.mark.timeout(600)


def run(*command: str, clone: Path, env: dict[str, str], check: bool = True) -> str:
    told = subprocess.run(
        command, cwd=clone, env=env, timeout=LIMIT_S, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert not check or told.returncode == 0, told.stdout
    return told.stdout


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "RAY_", "DVC_"))}
    return kept | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Iterator[Path]:
    """What a user gets who clones the project as it lies here, with the scale turned down to smoke."""
    folder = tmp_path_factory.mktemp("clone")
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in run(*listing, clone=ROOT, env=env).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(re.sub(r"^scale: \w+", "scale: smoke", params, flags=re.MULTILINE))
    (folder / "dvc.lock").unlink(missing_ok=True)
    run("git", "init", "-q", clone=folder, env=env)
    run("git", "config", "user.email", "somebody@example.org", clone=folder, env=env)
    run("git", "config", "user.name", "Somebody", clone=folder, env=env)
    run("git", "add", ".", clone=folder, env=env)
    run("git", "commit", "-qm", "A clone", clone=folder, env=env)
    env["PYTHONPATH"] = str(folder)  # the code of the clone, not of the installed project
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def first_run(clone: Path, env: dict[str, str]) -> str:
    return run("dvc", "repro", clone=clone, env=env)


def test_one_command_ends_with_a_report(first_run: str, clone: Path) -> None:
    page = (clone / "reports" / "index.html").read_text()
    assert len(page) > 10_000
    trials = pl.read_parquet(clone / "results" / "cells" / "trials.parquet")
    settings = pl.read_parquet(clone / "results" / "cells" / "settings.parquet")
    assert set(trials["trial_id"]) == set(settings["trial_id"])
    assert trials.height == 2 * settings["trial_id"].n_unique()  # two seeds
    assert set(trials["status"]) <= {"ok", "diverged"}
    assert trials["gradient_check_error"].max() < 1e-3
    assert f"{settings.height} trained" in first_run


def test_wandb_runs_are_offline_folders_one_a_setting(first_run: str, clone: Path) -> None:
    settings = pl.read_parquet(clone / "results" / "cells" / "settings.parquet")
    folders = [path.name for path in (clone / "wandb").glob("offline-run-*")]
    for grid, trial_id in settings.select("grid", "trial_id").iter_rows():
        assert sum(f"cells-{grid}-{trial_id}" in name for name in folders) == 1


def test_a_second_run_trains_nothing_within_10_seconds(first_run: str, clone: Path, env: dict[str, str]) -> None:
    started = time.monotonic()
    told = run("dvc", "repro", clone=clone, env=env)
    assert time.monotonic() - started < 10
    assert "up to date" in told
    assert "trained" not in told


def test_metrics_dag_and_plots_are_what_a_dvc_user_expects(first_run: str, clone: Path, env: dict[str, str]) -> None:
    metrics = json.loads(run("dvc", "metrics", "show", "--json", clone=clone, env=env))
    assert metrics[""]["data"]["reports/metrics.json"]["data"]
    assert "sweep@cells" in run("dvc", "dag", clone=clone, env=env)
    assert "reports/plots" in run("dvc", "plots", "diff", "--json", clone=clone, env=env)


def test_one_more_length_trains_only_its_settings(first_run: str, clone: Path, env: dict[str, str]) -> None:
    path = clone / "configs" / "studies" / "cells.yaml"
    before = pl.read_parquet(clone / "results" / "cells" / "settings.parquet")
    study = yaml.safe_load(path.read_text())
    lengths = study["scales"]["smoke"]["axes"]["adding"]["dataset.length"]
    study["scales"]["smoke"]["axes"]["adding"]["dataset.length"] = [*lengths, 12]
    path.write_text(yaml.safe_dump(study))
    told = run("dvc", "repro", clone=clone, env=env)
    after = pl.read_parquet(clone / "results" / "cells" / "settings.parquet")
    fresh = set(after["trial_id"]) - set(before["trial_id"])
    assert set(after.filter(pl.col("trial_id").is_in(list(fresh)))["dataset.length"]) == {12}
    assert f"{before.height} from the store, {len(fresh)} trained" in told


def test_a_misspelt_key_stops_before_training_with_one_clear_line(clone: Path, env: dict[str, str]) -> None:
    path = clone / "params.yaml"
    good = path.read_text()
    path.write_text(good.replace("cpus_per_trial:", "cpu_per_trial:"))
    try:
        told = run("dvc", "repro", "--force", "sweep@cells", clone=clone, env=env, check=False)
    finally:
        path.write_text(good)
    assert "unknown key 'cpu_per_trial'; did you mean 'cpus_per_trial'?" in told
    assert "Traceback" not in told
