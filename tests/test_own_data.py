"""The tutorials on data and a network of one's own run as they stand: from files to a report, at smoke scale."""

from __future__ import annotations

import datetime
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

import pipeline
from examples import first_study
from pipeline.data import read_manifest
from pipeline.report import build
from stages import plan, prepare, report, request, sweep
from tests.report.pages import Page
from tests.test_architecture import ROOT

PAGE, OF_MODELS = (
    (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8") for name in ("own-data.md", "own-models.md")
)
BLOCKS: dict[str, str] = dict(
    re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', PAGE + OF_MODELS, re.DOTALL | re.MULTILINE)
)
"""What the pages show of every file, by its path."""
STUDIES = {"weather": "weather", "tale": "tale", "ptb": "ptb", "french": "french", "convolved": "weather"}
"""And the dataset of each."""
DATASETS = tuple(dict.fromkeys(STUDIES.values()))


def rest_of(name: str, rng: random.Random) -> str:
    """Lines that go on as the page begins a file."""
    if name == "weather.csv":
        days = (datetime.date(2020, 1, 4) + datetime.timedelta(days=i) for i in range(400))
        warm = (10 - 8 * math.cos(i / 58) + rng.gauss(0, 2) for i in range(400))
        return "".join(f"{day},{x:.1f},{rng.gauss(1013, 8):.1f}\n" for day, x in zip(days, warm, strict=True))
    if name == "fra.txt":
        words = (
            ("We", "You", "They", "Some"),
            ("go", "sing", "eat", "win", "run"),
            ("now", "well", "here", "fast", "again", "too"),
        )
        source = [f"{who} {what} {how}" for who in words[0] for what in words[1] for how in words[2]]
        long = f"{'very ' * 11}\t{'très ' * 11}\tCC-BY\n"
        return long + "".join(f"{text}.\t{text[::-1]} .\tCC-BY 2.0 (France) #{i}\n" for i, text in enumerate(source))
    words = {"tale.txt": "Старик ловил неводом рыбу, старуха пряла свою пряжу"}.get(
        name, BLOCKS["ptb.train.txt"]
    ).split()
    return "".join(" ".join(rng.choices(words, k=rng.randint(4, 9))) + "\n" for _ in range(200))


class Here(Executor):
    """Draws in this process: others would take longer to start than these figures take."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take no notice of how many workers there may be."""

    def submit(self, draw: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        drawn: Future[Any] = Future()
        drawn.set_result(draw(*arguments, **named))
        return drawn


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The four tutorials in one project, prepared, trained and reported; each stage as DVC calls it."""
    root, rng = tmp_path_factory.mktemp("own") / "project", random.Random(0)
    shutil.copytree(ROOT / "configs", root / "configs")
    base = yaml.safe_load((root / "configs" / "base.yaml").read_text(encoding="utf-8"))
    base["model"]["hidden_size"], base["diagnostics"]["num_traces"] = 8, 2  # smaller than smoke
    (root / "configs" / "base.yaml").write_text(yaml.safe_dump(base))
    for name, block in BLOCKS.items():
        if name not in {"params.yaml", "prepare"}:
            (root / name).write_text(
                block if name.startswith("configs/") or name.endswith(".py") else block + rest_of(name, rng),
                encoding="utf-8",
            )
    for split in ("valid", "test"):
        (root / f"ptb.{split}.txt").write_text(rest_of("ptb", rng))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= yaml.safe_load(BLOCKS["params.yaml"])
    assert params["datasets"] == params["studies"] == ["weather"]
    params |= {"scale": "smoke", "datasets": list(DATASETS), "studies": list(STUDIES)}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))  # as it is for `python stages/…`
        patch.setattr(build.concurrent.futures, "ProcessPoolExecutor", Here)
        assert request.main([]) == 0
        for name in DATASETS:
            assert prepare.main([name, "--project", "."]) == 0
        assert plan.main([]) == 0
        assert sweep.main([*STUDIES, "--executor", "inline"]) == 0
        assert report.main([]) == 0
        yield root


def test_a_tutorial_has_at_most_fifteen_lines_of_yaml_and_one_command() -> None:
    for name, dataset in STUDIES.items():
        named = ("params.yaml", f"configs/datasets/{dataset}.yaml", f"configs/studies/{name}.yaml")
        assert sum(len(BLOCKS[file].splitlines()) for file in named) <= 15
    assert "\n    dvc repro\n" in PAGE
    assert {path.split("/")[-1].removesuffix(".yaml") for path in BLOCKS if "/" in path} == {*STUDIES}


def test_every_setting_trained_and_is_on_a_page_with_its_data(project: Path) -> None:
    for name, dataset in STUDIES.items():
        trials = pl.read_parquet(project / "results" / name / "trials.parquet")
        assert trials["status"].unique().to_list() == ["ok"]
        assert trials.height == 2 * 2  # arms, seeds
        page = Page(project / "reports" / "site" / "studies" / f"{name}.html")
        words = page.words
        assert yaml.safe_load(BLOCKS[f"configs/studies/{name}.yaml"])["question"] in words
        manifest = read_manifest(project / "data" / dataset)
        assert " ".join(manifest.examples[0].split()) in words
        for remark in manifest.remarks:
            assert remark in words
        figures = yaml.safe_load(BLOCKS[f"configs/studies/{name}.yaml"])["grids"].popitem()[1]["figures"]
        drawn = {path.stem for path in (project / "reports" / "site" / "figures" / name).rglob("*.svg")}
        assert drawn == {*figures}


def test_what_a_network_sees_is_what_the_tutorials_say(project: Path) -> None:
    weather, tale, ptb, french = (read_manifest(project / "data" / name) for name in DATASETS)
    assert [line.strip().split("  ")[0] for line in weather.examples[:3]] == [
        "temperature",
        "pressure",
        "target temperature",
    ]
    assert weather.variant(30).baseline_name == "persistence"
    assert {*tale.variant(50).input_tokens} >= {"▯", "\n", "ж", "ы"}
    assert not any(token.isupper() for token in tale.variant(50).input_tokens)
    assert ptb.variant(35).input_tokens[:2] == ("<unk>", "%")
    assert "<eos>" in ptb.variant(35).input_tokens
    assert "fra.txt: 1 of 123 pairs left out, longer than max_length 10" in french.remarks
    assert not any("CC-BY" in token for token in french.variant(10).target_tokens)


def test_a_network_of_ones_own_stands_beside_a_built_in_one(project: Path) -> None:
    trials = pl.read_parquet(project / "results" / "convolved" / "trials.parquet")
    own = trials.filter(pl.col("model.name") == "custom")
    assert own["model.cell"].unique().to_list() == ["Convolved"]
    assert own["model.import"].unique().to_list() == ["weather_nets:Convolved"]
    assert own["gradient_check_error"].max() < 1e-5
    traces = pl.read_parquet(project / "results" / "convolved" / "traces.parquet")
    assert traces.filter(pl.col("trial_id").is_in(own["trial_id"]))["part"].unique().sort().to_list() == [
        "input",
        "recurrent",
    ]
    links = project / "digests" / "files" / "code-of-models"
    assert [path.name for path in links.iterdir()] == ["weather_nets.py"]


def test_what_ones_own_network_learnt_is_there_to_be_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    trials = pl.read_parquet(project / "results" / "convolved" / "trials.parquet")
    trained = pipeline.load_trained(trials.filter(pl.col("model.cell") == "Convolved")["trial_id"][0], seed=0)
    assert "seed 0: Convolved, on weather" in repr(trained)
    assert [each.shape for each in trained.predict(np.zeros((2, 30, 2), "f4"))] == [(30, 1)] * 2


def settings_of(plan: str) -> list[dict[str, Any]]:
    settings: list[dict[str, Any]] = json.loads(plan)["settings"]
    return settings


def test_an_edit_of_the_networks_code_makes_its_trials_stale_and_no_others(project: Path) -> None:
    path, digests = project / "weather_nets.py", project / "digests"
    text, before = path.read_text(), (digests / "plans" / "convolved.json").read_text()
    stale = (digests / "studies.json").read_text()
    try:
        path.write_text(text.replace(".relu()", ".tanh()"))
        assert request.main([]) == 0
        assert (digests / "studies.json").read_text() != stale
        planned = subprocess.run(
            [sys.executable, ROOT / "stages" / "plan.py"],
            cwd=project,
            env=os.environ | {"PYTHONPATH": f"{project}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert planned.returncode == 0, planned.stderr
        after = (digests / "plans" / "convolved.json").read_text()
        built_in, own = zip(*(settings_of(each) for each in (before, after)), strict=True)
        assert built_in[0] == built_in[1]
        assert own[0] | {"trial_id": ""} == own[1] | {"trial_id": ""}
        assert own[0] != own[1]
    finally:
        path.write_text(text)


def test_studies_come_before_a_ledger_of_which_nothing_was_tested(project: Path) -> None:
    index = (project / "reports" / "site" / "index.html").read_text(encoding="utf-8")
    assert index.index('<section id="studies">') < index.index('<section id="ledger">')


def test_the_mistakes_are_told_as_the_page_has_them(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "weather.csv"
    good = path.read_text()
    lines = good.splitlines(keepends=True)
    bad = [
        "".join([*lines[:6], re.sub(r",[-\d.]+,", ',"3,14",', lines[6]), *lines[7:]]),
        good.replace("pressure", "Pressure"),
        "".join([*lines[:8], *lines[9:]]),
    ]
    try:
        for content, message in zip(bad, BLOCKS["prepare"].splitlines(), strict=True):
            path.write_text(content)
            assert prepare.main(["weather", "--project", str(project)]) == 2
            assert capsys.readouterr().err == f"{project}/{message}\n"
    finally:
        path.write_text(good)


def test_a_first_look_finds_files_of_ones_own(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: dict[str, list[Any]] = defaultdict(list)

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        stage, arguments = Path(command[1]).stem, command[2:]
        commands[stage].append(arguments)
        ended = prepare.main(arguments) if stage == "prepare" else 0
        return subprocess.CompletedProcess(command, ended)

    monkeypatch.setattr(first_study, "ROOT", project)
    monkeypatch.setattr(first_study.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "index.html").touch()
    for study in ("weather", "ptb"):
        assert first_study.main([study, "--workspace", "."]) == 0
        assert (tmp_path / "data" / study / "manifest.json").is_file()
    assert commands["sweep"] == [["weather"], ["ptb"]]
    capsys.readouterr()
