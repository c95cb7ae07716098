from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config import Paths
from stages import check, report
from tests.report.conftest import project
from tests.synthetic_results import Shape
from tests.test_architecture import ROOT

SMALL = Shape(lengths=(10,), learning_rates=(0.01,), cells=("gru",), digits_length=None, num_seeds=2)


def edit_study(paths: Paths, *, claims: list[str] | None = None, figures: list[str]) -> None:
    """Let every grid of `cells` have these figures, and the study these claims."""
    path = paths.study_config("cells")
    study = yaml.safe_load(path.read_text())
    study["claims"] = study["claims"] if claims is None else claims
    for grid in study["grids"].values():
        grid["figures"] = figures
    path.write_text(yaml.safe_dump(study, sort_keys=False))


def test_report_is_built_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = project(tmp_path, SMALL)
    edit_study(paths, figures=["gradient_by_lag"])
    monkeypatch.chdir(tmp_path)
    assert report.main([]) == 0
    assert capsys.readouterr().out == "report: cells -> reports/site/index.html\n"
    assert (tmp_path / "reports" / "site" / "index.html").stat().st_size > 10_000
    assert [path.name for path in (tmp_path / "reports" / "pictures").iterdir()] == ["cells.png"]


def test_an_error_to_mend_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, SMALL)
    (tmp_path / "results" / "cells" / "curves.parquet").unlink()
    monkeypatch.chdir(tmp_path)
    assert report.main([]) == 2
    assert "report: " in (said := capsys.readouterr().err)
    assert "curves.parquet: no such table; `dvc repro` makes it" in said


@pytest.mark.parametrize(
    ("claims", "figures", "message"),
    [
        (["C99"], ["gradient_by_lag"], r"check: .*C99"),
        (None, ["gradient_by_lags"], r"check: configs/studies/cells.yaml.grids.adding.figures: .*'gradient_by_lag'"),
    ],
)
def test_a_figure_or_claim_that_does_not_exist_shows_before_there_are_results(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    claims: list[str] | None,
    figures: list[str],
    message: str,
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert check.main([]) == 0
    edit_study(Paths.at(tmp_path), claims=claims, figures=figures)
    assert check.main([]) == 2
    assert re.match(message, capsys.readouterr().err)


def test_an_arm_that_no_scale_of_a_study_has_shows_before_there_are_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    rules = yaml.safe_load((ROOT / "configs" / "claims.yaml").read_text())
    wrong = {"grid": "adding", "value": {"quantity": "test_loss", "arm": "leaky ReLU, identiy"}, "below": 1.0}
    rules["claims"]["C10"]["checks"].append(wrong)
    (tmp_path / "configs" / "claims.yaml").write_text(yaml.safe_dump(rules))
    assert check.main([]) == 2
    number = len(rules["claims"]["C10"]["checks"]) - 1
    assert (
        f"configs/claims.yaml: claims.C10.checks[{number}]: unknown arm of grid adding 'leaky ReLU, identiy'; "
        "did you mean 'leaky ReLU, identity'" in capsys.readouterr().err
    )


def test_a_report_needs_no_training_and_no_network() -> None:
    code = "import sys, stages.report; print([m for m in ('torch', 'ray', 'wandb') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
