from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.figures import catalogue, gradient_by_lag
from stages import report
from tests.report.conftest import project
from tests.synthetic_results import Shape

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


def test_a_report_needs_no_training_and_no_network() -> None:
    code = "import sys, stages.report; print([m for m in ('torch', 'ray', 'wandb') if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent.parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
