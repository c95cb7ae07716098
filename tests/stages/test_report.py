from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.figures import catalogue, gradient_by_lag
from stages import report
from tests.report.conftest import project
from tests.synthetic_results import Shape
from tests.test_architecture import ROOT

SMALL = Shape(lengths=(10,), learning_rates=(0.01,), cells=("gru",), digits_length=None, num_seeds=2)


def test_report_is_built_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project(tmp_path, SMALL)
    monkeypatch.setattr(catalogue, "FIGURES", (gradient_by_lag,))
    monkeypatch.chdir(tmp_path)
    assert report.main([]) == 0
    assert capsys.readouterr().out == "report: cells -> reports/index.html\n"
    assert (tmp_path / "reports" / "index.html").stat().st_size > 10_000


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
    ("changed", "message"),
    [
        ({"claims": ["C99"]}, r"report: .*C99"),
        (
            {"figures": ["gradient_by_lags"]},
            r"report: configs/studies/cells.yaml.grids.adding.figures: .*'gradient_by_lag'",
        ),
    ],
)
def test_a_figure_or_claim_that_does_not_exist_shows_before_there_are_results(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, list[str]],
    message: str,
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert report.main(["--check"]) == 0
    path = tmp_path / "configs" / "studies" / "cells.yaml"
    study = yaml.safe_load(path.read_text())
    study["claims"] = changed.get("claims", study["claims"])
    study["grids"]["adding"]["figures"] = changed.get("figures", study["grids"]["adding"]["figures"])
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    assert report.main(["--check"]) == 2
    assert re.match(message, capsys.readouterr().err)


def test_a_report_needs_no_training_and_no_network() -> None:
    code = "import sys, stages.report; print([m for m in ('torch', 'ray', 'wandb') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
