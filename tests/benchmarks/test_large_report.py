"""What a report shows of many settings does not grow with them; ten thousand are for `make bench-sweep`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks import large_report
from pipeline.config import Paths, load_study
from pipeline.figures.catalogue import FIGURES
from pipeline.quantities import Grid
from pipeline.report import build_report
from pipeline.report.build import _grids

SIZES = (240, 720)
GROWTH = 1.1
DRAWN = ("gradient_and_cost", "truncation_bias", "jacobian_spectrum")


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> list[Paths]:
    return [large_report.lay_out(tmp_path_factory.mktemp("many") / "work", size, select=False) for size in SIZES]


def sizes(workspace: Paths) -> dict[str, int]:
    """Build a report with one picture and return the bytes of what a reader opens, and of what git holds."""
    study = load_study(workspace, large_report.STUDY)
    grids = {name: dataclasses.replace(grid, figures=("outcome_by_arm",)) for name, grid in study.grids.items()}
    index = build_report(workspace, {large_report.STUDY: dataclasses.replace(study, grids=grids)}, "laptop")
    found = {
        path: sum(file.stat().st_size for file in index.parent.glob(path)) for path in ("*.html", "studies/*", "data/*")
    }
    reports = ("metrics.json", "plots/*.csv", "pictures/*.png", "README.md")
    return found | {path: sum(file.stat().st_size for file in workspace.reports.glob(path)) for path in reports}


def test_pages_explorer_plots_and_metrics_do_not_grow(workspaces: list[Paths]) -> None:
    few, many = map(sizes, workspaces)
    assert {name: (few[name], many[name]) for name in few if many[name] > GROWTH * few[name]} == {}
    assert many["studies/*"] < 2e6
    page = (workspaces[1].reports / "site" / "studies" / f"{large_report.STUDY}.html").read_text(encoding="utf-8")
    assert f"200 of {SIZES[1]} settings are shown" in page
    assert f"24 of {SIZES[1]} arms are shown" in page
    assert f'"of":{SIZES[1]}' in (workspaces[1].reports / "site" / "data" / "list.js").read_text(encoding="utf-8")
    assert f"adding (100 of {SIZES[1]} arms)" in (workspaces[1].reports / "plots" / "gradient_by_lag.csv").read_text()
    assert f'"num_arms": {SIZES[1]}' in (workspaces[1].reports / "metrics.json").read_text()
    rows = (workspaces[1].reports / "site" / "tables" / "settings.csv").read_text().splitlines()
    assert len(rows) == 1 + SIZES[1]


def marks(figure: Figure) -> int:
    return sum(len(ax.lines) + len(ax.collections) + len(ax.texts) for ax in figure.axes)


def test_words_and_marks_of_figures_do_not_grow(workspaces: list[Paths]) -> None:
    grids: list[Grid] = []
    for workspace in workspaces:
        grids += _grids(workspace, large_report.STUDY, load_study(workspace, large_report.STUDY))[0]
    frames = [frame for frame in FIGURES.values() if frame.is_of(grids[0])]
    assert len(frames) > 12
    for frame in frames:
        few, many = (frame.view(grid) for grid in grids)
        for words in ("title", "caption"):
            lengths = [len(re.sub(r"[\d.]+", "#", getattr(view, words))) for view in (few, many)]
            assert lengths[1] < 1.3 * lengths[0] + 40, (frame.name, words)
        assert many.frame.table(many).height <= 1.5 * few.frame.table(few).height, frame.name
        assert f"of {len(many.arms)} arms are shown" in many.caption, frame.name
        if frame.name in DRAWN:
            drawn: list[Any] = [marks(frame.draw(grid)) for grid in grids]
            assert drawn[1] <= GROWTH * drawn[0], frame.name


def test_a_workspace_selects_few_arms_of_many_settings(tmp_path: Path) -> None:
    workspace = large_report.lay_out(tmp_path / "work", 60, select=True)
    (grid,), _ = _grids(workspace, large_report.STUDY, load_study(workspace, large_report.STUDY))
    assert set(grid.arms) == {"elman", "lstm", "gru"}
    assert (grid.settings.height, grid.settings["selected"].sum()) == (60, 3)
