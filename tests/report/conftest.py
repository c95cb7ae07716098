from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.config import Paths, load_study
from pipeline.figures import catalogue, gradient_by_lag, gradient_heatmap, loss_by_length
from pipeline.report import build_report
from tests.synthetic_results import Shape, write_results

ROOT = Path(__file__).resolve().parent.parent.parent
TROUBLED = Shape(
    cells=("elman", "lstm"),
    digits_length=None,
    broken={"elman, T=20, lr=0.01#1": "diverged", "lstm, T=10, lr=0.003": "error"},
)


def project(root: Path, shape: Shape) -> Paths:
    """A project in `root` with this repository's configuration and the results of a made-up study."""
    shutil.copytree(ROOT / "configs", root / "configs")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"studies": ["cells"]}))
    paths = Paths.at(root)
    write_results(paths.results("cells"), shape)
    return paths


def build(paths: Paths, scale: str = "laptop") -> Path:
    """Build the report with fewer figures; the tests of figures draw all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "FIGURES", (gradient_by_lag, gradient_heatmap, loss_by_length))
        return build_report(paths, {"cells": load_study(paths, "cells")}, scale)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project whose report is built, from a study in which a replica diverged and a setting failed."""
    paths = project(tmp_path_factory.mktemp("project"), TROUBLED)
    build(paths)
    return paths
