from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.config import Paths, load_study
from pipeline.report import build_report
from pipeline.results import SCHEMAS, write_table
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


def project(root: Path, shape: Shape, *, attends: bool = False) -> Paths:
    """A project in `root` with this repository's configuration and the results of a made-up study.

    Where it `attends`, its last setting has attention maps as well.
    """
    shutil.copytree(ROOT / "configs", root / "configs")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(params | {"studies": ["cells"]}))
    paths = Paths.at(root)
    tables = write_results(paths.results("cells"), shape)
    if attends:
        trial = tables["settings"].sort("position")["trial_id"][-1]
        for table, rows in attention_of(trial, tables["traces"].filter(trial_id=trial)).items():
            write_table(table, rows, paths.results("cells"))
    return paths


def attention_of(trial: str, traces: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return maps of two examples at every traced step of every seed, which training sharpens, and their tokens."""
    parts: dict[str, list[pl.DataFrame]] = {"attention": [], "tokens": []}
    last = traces["step"].max()
    for (seed, step), example in itertools.product(
        traces.select("seed", "step").unique().sort("seed", "step").rows(), (0, 1)
    ):
        keys = {"trial_id": trial, "seed": seed, "step": step, "example": example}
        place = np.arange(12)
        weight = np.where(place % 4 == place // 4, 0.25 + 0.5 * step / last, 0.25 - 0.5 * step / last / 3) + seed / 1000
        columns = {"output_position": place // 4 + 1, "source_position": place % 4 + 1, "weight": weight}
        frame = pl.DataFrame(keys | columns | {"aligned": place % 4 == place // 4}, schema=SCHEMAS["attention"])
        parts["attention"].append(frame)
        for sequence, text in (("source", "a<b "), ("target", "xyz")) if step == last else ():
            words = {"sequence": sequence, "position": range(1, len(text) + 1), "token": list(text)}
            parts["tokens"].append(pl.DataFrame(keys | words, schema=SCHEMAS["tokens"]))
    return {table: pl.concat(frames) for table, frames in parts.items()}


def build(paths: Paths, scale: str = "laptop") -> Path:
    """Build the report with fewer figures; the tests of figures draw all of them."""
    study = load_study(paths, "cells")
    grids = {name: dataclasses.replace(grid, figures=FIGURES) for name, grid in study.grids.items()}
    return build_report(paths, {"cells": dataclasses.replace(study, grids=grids)}, scale)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project whose report is built, from a study in which a replica diverged and a setting failed."""
    paths = project(tmp_path_factory.mktemp("project"), TROUBLED, attends=True)
    build(paths)
    return paths


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project whose report is built, from a grid whose arms are variants with free labels."""
    paths = project(tmp_path_factory.mktemp("varied"), VARIED)
    build(paths)
    return paths
