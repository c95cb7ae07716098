"""A newcomer's first half hour, at smoke scale, in a clone: repro, repro again, one more length, and what DVC shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import polars as pl
import pytest
import yaml

from tests.clones import Clone

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """What a user gets who clones the project as it lies here, with the scale turned down to smoke."""
    folder = tmp_path_factory.mktemp("clone")
    yield Clone.of_project(folder, tmp_path_factory.mktemp("home"))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def first_run(clone: Clone) -> str:
    """What DVC printed when everything ran, as `make repro` runs it, without the installation.

    Its check is the first command of the first stage as well.
    """
    printed = clone.run("dvc", "repro")
    clone.run("python", "stages/publish.py")
    return printed


def tables(clone: Clone) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The trials and settings of study `cells`."""
    folder = clone.folder / "results" / "cells"
    return pl.read_parquet(folder / "trials.parquet"), pl.read_parquet(folder / "settings.parquet")


def test_one_command_ends_with_a_report(first_run: str, clone: Clone) -> None:
    page = (clone.folder / "reports" / "site" / "index.html").read_text()
    assert len(page) > 10_000
    trials, settings = tables(clone)
    assert set(trials["trial_id"]) == set(settings["trial_id"])
    assert trials.height == 2 * settings["trial_id"].n_unique()  # two seeds
    assert set(trials["status"]) <= {"ok", "diverged"}
    assert trials["gradient_check_error"].max() < 1e-3
    assert f"{settings.height} trained" in first_run


def test_wandb_runs_are_offline_folders_one_per_setting(first_run: str, clone: Clone) -> None:
    folders = [path.name for path in (clone.folder / "wandb").glob("offline-run-*")]
    for grid, trial_id in tables(clone)[1].select("grid", "trial_id").iter_rows():
        assert sum(f"cells-{grid}-{trial_id}" in name for name in folders) == 1


def test_a_second_run_trains_nothing(first_run: str, clone: Clone) -> None:
    printed = clone.run("dvc", "repro")
    assert "up to date" in printed
    assert "trained" not in printed


def test_git_holds_what_a_visitor_reads_and_not_the_site(first_run: str, clone: Clone) -> None:
    seen = clone.run("git", "ls-files", "--cached", "--others", "--exclude-standard", "reports").split()
    assert {"reports/README.md", "reports/headline.json", "reports/metrics.json", "reports/tables/claims.csv"} <= set(
        seen
    )
    assert not [name for name in seen if name.startswith("reports/site/")]


def test_metrics_dag_and_plots_are_what_a_dvc_user_expects(first_run: str, clone: Clone) -> None:
    for asked in ([], ["reports/metrics.json"]):
        metrics = json.loads(clone.run("dvc", "metrics", "show", "--json", *asked))[""]["data"]
        assert set(metrics) == {*(asked or ["reports/headline.json"])}
        assert all(found["data"] for found in metrics.values())
    assert max(map(len, clone.run("dvc", "metrics", "show").splitlines())) <= 80
    assert "sweep@cells" in clone.run("dvc", "dag")
    assert "reports/plots" in clone.run("dvc", "plots", "diff", "--json")


def test_one_more_length_trains_only_its_settings(first_run: str, clone: Clone) -> None:
    path = clone.folder / "configs" / "studies" / "cells.yaml"
    before = tables(clone)[1]
    study = yaml.safe_load(path.read_text())
    lengths = study["scales"]["smoke"]["axes"]["adding"]["dataset.length"]
    study["scales"]["smoke"]["axes"]["adding"]["dataset.length"] = [*lengths, 12]
    path.write_text(yaml.safe_dump(study))
    printed = clone.run("dvc", "repro", "sweep@cells")
    after = tables(clone)[1]
    fresh = set(after["trial_id"]) - set(before["trial_id"])
    assert set(after.filter(pl.col("trial_id").is_in(list(fresh)))["dataset.length"]) == {12}
    assert f"{before.height} from the store, {len(fresh)} trained" in printed
    stale = json.loads(clone.run("dvc", "status", "--json"))
    assert not [stage for stage in stale if stage.startswith(("prepare@", "sweep@"))]  # no other study is to be swept
    assert "report" in stale


def test_a_misspelt_key_stops_before_training_with_one_clear_line(clone: Clone) -> None:
    path = clone.folder / "params.yaml"
    good = path.read_text()
    path.write_text(good.replace("cpus_per_trial:", "cpu_per_trial:"))
    try:
        printed = clone.run("dvc", "repro", "--force", "sweep@cells", check=False)
    finally:
        path.write_text(good)
    assert "unknown key 'cpu_per_trial'; did you mean 'cpus_per_trial'?" in printed
    assert "Traceback" not in printed
