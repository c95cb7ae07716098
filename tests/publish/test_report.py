"""The W&B Report and the saved view: valid, of metrics that runs log, one of each however often they are sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.publish.board import TITLE, Bars, Board, Lines, Media, Scatter, Stepped, board_of
from pipeline.publish.views import views_of
from pipeline.publish.workspace import Place, report_of, requests_of, workspace_of
from pipeline.results import read_table, write_table
from stages.publish import main
from tests.publish.conftest import TRIAL_IDS, make_trial, write_study
from tests.publish.test_publish_stage import PARAMS
from tests.publish.wandb_server import WandbServer

pytest.importorskip("wandb_workspaces")

PLACE = Place("team", "gradients", "https://wandb.ai")
STUDY = """
question: How far back?
grids: {adding: {axes: {model.cell: [lstm, gru]}}}
"""


@pytest.fixture
def board(paths: Paths, heatmap: list[int]) -> Board:
    return board_of(study_of(paths), {"cells": "How far back?"})


@pytest.fixture
def project(paths: Paths, heatmap: list[int], monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project with results, in the current folder; its mode follows the key."""
    paths.params.write_text(PARAMS.replace("disabled", "auto").replace("entity: null", "entity: team"))
    for path in (paths.dataset_config("adding"), paths.scale_config("smoke"), paths.study_config("cells")):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr("stages.publish.load_study", lambda *_: type("Study", (), {"question": "How far back?"}))
    monkeypatch.chdir(paths.root)
    return study_of(paths)


def study_of(paths: Paths) -> Paths:
    """Write the results of two settings that differ in learning rate, a ledger of two claims, and a figure."""
    write_study(paths, [make_trial(), make_trial(TRIAL_IDS[1], "gru, T=10", loss=3.0)])
    rates = pl.Series("optimiser.learning_rate", [0.001, 0.1])
    settings = read_table("settings", paths.results("cells")).with_columns(rates)
    write_table("settings", settings, paths.results("cells"))
    claims = {
        "claim": ["C1", "C2"],
        "mark": ["✓", "?"],
        "verdict": ["supported", "inconclusive"],
        "study": ["cells"] * 2,
    }
    claims |= {
        "statement": ["It | falls.", "It rises."],
        "effect": [0.6, None],
        "low": [0.5, None],
        "high": [0.7, None],
    }
    files = {"tables/claims.csv": pl.DataFrame(claims | {"num_seeds": [3, 0]}).write_csv().encode()}
    files |= {"site/figures/cells/adding/gradient_by_lag.png": b"png"}
    for name, content in files.items():
        path = paths.reports / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return paths


def test_every_panel_names_what_some_run_logs(paths: Paths, board: Board) -> None:
    *trials, of_study = views_of(paths, "cells")
    logged = {key for view in trials for row in view.rows for key in row}
    media = {key for view in trials for row in view.media.values() for key in row}
    (section,) = board.sections
    kinds = {
        kind: [panel for panel in section.panels if isinstance(panel, kind)]
        for kind in (Lines, Bars, Scatter, Media, Stepped)
    }
    assert all(kinds.values())
    for panel in section.panels:
        if isinstance(panel, Lines):
            assert set(panel.metrics) <= logged
        elif isinstance(panel, Bars):
            assert panel.summary in trials[0].summary
        elif isinstance(panel, Scatter):
            assert panel.summary in trials[0].summary
            assert trials[0].config["optimiser"]["learning_rate"]
            assert panel.field == "optimiser.learning_rate"
        elif isinstance(panel, Media):
            assert set(panel.keys) <= media | set(trials[0].pictures)
        else:
            assert panel.key in media
    assert section.figures is not None
    assert set(section.figures.keys) == set(of_study.pictures) == {"adding/gradient_by_lag"}
    assert section.group == trials[0].group
    loss = next(panel for panel in kinds[Lines] if panel.title.startswith("loss"))  # type: ignore[union-attr]
    assert loss == Lines(
        title=loss.title, metrics=tuple(f"loss/validation/{end}" for end in ("mean", "low", "high")), log=True
    )


def blocks_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(request["spec"])["blocks"]
    return found


def test_what_is_sent_is_what_the_package_reads_again(board: Board) -> None:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.reports.v2.interface import UnknownBlock
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces.internal import View, WorkspaceViewspec

    requests = requests_of(board, PLACE)
    project = {"entityName": "team", "name": "gradients"}
    model = ReportViewspec(display_name=TITLE, spec=requests["report"]["spec"], project=project)
    again = wr.Report._from_model(model)
    assert not [block for block in again.blocks if isinstance(block, UnknownBlock)]
    ledger = next(block for block in again.blocks if isinstance(block, wr.MarkdownBlock))
    assert r"| ✓ supported | C1 | It \| falls. | 0.600 [0.500, 0.700] | 3 | cells |" in ledger.text
    grids = [block for block in again.blocks if isinstance(block, wr.PanelGrid)]
    assert [grid.runsets[0].filters for grid in grids] == [
        f"Metric(\"Group\") == 'cells' and Metric(\"JobType\") == '{job}'" for job in ("trial", "study")
    ]
    assert [len(grid.panels) for grid in grids] == [len(board.sections[0].panels), 1]
    links = re.findall(r"https://wandb\.ai/team/gradients/artifacts/[\w/-]+", requests["report"]["spec"])
    assert links == [
        f"https://wandb.ai/team/gradients/artifacts/{end}/latest" for end in ("report/report", "result/results-cells")
    ]
    spec = WorkspaceViewspec.model_validate_json(requests["view"]["spec"])
    view = View(entity="team", project="gradients", display_name=TITLE, name="nw-a-v", id="", spec=spec)
    (section,) = ws.Workspace._from_model(view).sections
    assert (section.name, len(section.panels)) == ("cells", len(board.sections[0].panels))


def test_without_a_ledger_there_is_none(paths: Paths, board: Board) -> None:
    (paths.reports / "tables" / "claims.csv").unlink()
    again = board_of(paths, {"cells": "How far back?"})
    assert not again.ledger
    assert len(report_of(again, PLACE).blocks) == len(report_of(board, PLACE).blocks) - 3
    assert workspace_of(again, PLACE).name == TITLE


def test_twice_sent_it_is_one_report_and_one_view(
    project: Paths, server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.views["other"] = {"id": "other", "name": "n", "displayName": "Mine", "type": "runs"}
    assert main(["--report"]) == 0
    first = dict(server.views)
    assert main(["--report"]) == 0
    assert server.views.keys() == first.keys()
    assert {view["type"]: view["displayName"] for view in server.views.values() if view["id"] != "other"} == {
        "runs": TITLE,
        "project-view": TITLE,
    }
    assert all(view["name"] == first[identity]["name"] for identity, view in server.views.items())
    report = next(view for view in server.views.values() if view["type"] == "runs" and view["id"] != "other")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == lines[2:]
    assert lines[0] == f"report: {server.url}/team/gradients/reports/Gradient-dynamics--{report['id']}"
    assert re.fullmatch(rf"view: {server.url}/team/gradients\?nw=\w{{11}}", lines[1])
    assert not (project.root / "wandb" / "report.json").exists()


def test_a_key_that_is_refused_is_a_line(
    project: Paths, server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.keys = {"another" * 6}
    assert main(["--report"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "refuses the API key" in lines[0]
    assert not server.views
    assert (project.root / "wandb" / "report.json").is_file()


def test_without_a_key_it_is_written_and_says_how_to_send_it(
    project: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    path = Path(re.search(r"is in (.+)$", lines[0])[1])  # type: ignore[index]
    written = json.loads(path.read_text())
    assert {kind: request["type"] for kind, request in written.items()} == {"report": "runs", "view": "project-view"}
    assert blocks_of(written["report"])
    assert "WANDB_API_KEY" in lines[1]


def test_disabled_or_followed_there_is_none(
    project: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["--report"]) == 0
    assert capsys.readouterr().out == "report: W&B is disabled, nothing is made\n"
    with pytest.raises(SystemExit):
        main(["--report", "--follow"])
    assert "expected one of --follow and --report" in capsys.readouterr().err
