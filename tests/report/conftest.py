from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.config import Paths, load_study
from pipeline.report import build_report
from tests.synthetic_results import Shape, Variant, write_results

ROOT = Path(__file__).resolve().parent.parent.parent
FIGURES = ("gradient_by_lag", "gradient_heatmap", "loss_by_length")
TROUBLED = Shape(
    cells=("elman", "lstm"),
    digits_length=None,
    broken={"elman, T=20, lr=0.01#1": "diverged", "lstm, T=10, lr=0.003": "error"},
)

VARIED = Shape(
    variants={
        "LSTM, forget bias 1": Variant("lstm", 0.7, 0.95),
        "K = 5 <half>": Variant("lstm", backward_length=5),
        "ReLU, identity": Variant("elman"),
        "full": Variant("lstm"),
    },
    digits_length=None,
    broken={"full, T=20, lr=0.01#1": "diverged", "ReLU, identity, T=10, lr=0.003": "error"},
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
    study = load_study(paths, "cells")
    grids = {name: dataclasses.replace(grid, figures=FIGURES) for name, grid in study.grids.items()}
    return build_report(paths, {"cells": dataclasses.replace(study, grids=grids)}, scale)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project whose report is built, from a study in which a replica diverged and a setting failed."""
    paths = project(tmp_path_factory.mktemp("project"), TROUBLED)
    build(paths)
    return paths


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project whose report is built, from a grid whose arms are variants with free labels."""
    paths = project(tmp_path_factory.mktemp("varied"), VARIED)
    build(paths)
    return paths
