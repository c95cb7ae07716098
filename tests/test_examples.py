"""The scripts in examples/ run as they stand, at a tiny size."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from examples import first_study, read_tables, tap_states, train_one_trial, write_text
from pipeline.results import SCHEMAS, write_table
from tests.quantities.conftest import geometric
from tests.test_architecture import ROOT


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"} == {
        module.__name__.split(".")[-1] for module in (first_study, read_tables, tap_states, train_one_trial, write_text)
    }


def test_a_trial_from_python_prints_the_gradient_by_lag(capsys: pytest.CaptureFixture[str]) -> None:
    train_one_trial.main(["--cell", "elman", "--length", "10", "--steps", "4", "--seeds", "2"])
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "elman on adding, T = 10: ok"
    lags, before, after = zip(*(map(float, row.split()) for row in rows), strict=True)
    assert lags == (0, 1, 3, 5, 7, 9)
    assert list(before) == sorted(before, reverse=True)  # at initialisation an Elman network's gradient vanishes
    assert len({*after}) == 6


def test_the_gradient_of_taps_falls_by_the_forget_gate(capsys: pytest.CaptureFixture[str]) -> None:
    tap_states.main(["--length", "12", "--forget-bias", "1"])
    *rows, last = capsys.readouterr().out.splitlines()
    assert last == "closed form: σ(1) = 0.7311"
    assert {row.split()[-1] for row in rows[2:]} == {"0.7311"}  # below the header and the last timestep


def test_a_language_model_writes_and_scores(capsys: pytest.CaptureFixture[str]) -> None:
    write_text.main(["--tokens", "3"])
    sampled, searched = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"sampled: .def .*, -\d+\.\d nats", sampled)
    assert re.fullmatch(r"beam of 4: .def .*, -\d+\.\d nats", searched)


def trials_of(trial_id: str, losses: list[float], solved: list[bool]) -> pl.DataFrame:
    columns = {"trial_id": trial_id, "status": "ok", "seed": range(len(losses))}
    columns |= {"test_loss": losses, "reached_criterion": solved}
    frame = pl.DataFrame(columns)
    nulls = [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMAS["trials"].items() if name not in frame.columns]
    return frame.with_columns(nulls).select(pl.col(name).cast(dtype) for name, dtype in SCHEMAS["trials"].items())


def test_tables_are_read_with_an_interval_per_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[str, Any] = {"study": "cells", "grid": "adding", "position": [0, 1], "trial_id": ["a", "b"]}
    known |= {"label": ["elman", "lstm"], "selected": True}
    settings = pl.DataFrame({name: known.get(name) for name in SCHEMAS["settings"]})
    settings = settings.select(pl.col(name).cast(dtype) for name, dtype in SCHEMAS["settings"].items())
    trials = pl.concat([trials_of("a", [1.0, 2.0, 3.0], [False] * 3), trials_of("b", [0.5], [True])])
    write_table("settings", settings, tmp_path / "results" / "cells")
    write_table("trials", trials, tmp_path / "results" / "cells")
    read_tables.main(["cells", "--grid", "adding", "--project", str(tmp_path)])
    elman, lstm = capsys.readouterr().out.splitlines()
    mean, low, high = geometric([1.0, 2.0, 3.0])
    assert elman == f"elman: test loss {mean:.3g} [{low:.3g}, {high:.3g}], 0 of 3 seeds reached the criterion"
    assert lstm == "lstm: test loss 0.5 no interval, 1 of 1 seeds reached the criterion"


@pytest.mark.parametrize("failing", ["report.py", None])
def test_a_first_study_runs_the_stages_in_a_workspace(
    failing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert options["cwd"] == tmp_path
        script = Path(command[1])
        assert script.parent == ROOT / "stages"
        assert script.is_file()
        commands.append([script.name, *command[2:]])
        return subprocess.CompletedProcess(command, 3 if script.name == failing else 0)

    monkeypatch.setattr(first_study.subprocess, "run", run)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "index.html").touch()
    assert first_study.main(["cells", "--workspace", str(tmp_path)]) == (3 if failing else 0)
    assert [command[:2] for command in commands] == [
        ["prepare.py", "adding"],
        ["prepare.py", "digits"],
        ["sweep.py", "cells"],
        ["report.py"],
    ]
    assert ("index.html" in capsys.readouterr().out) == (failing is None)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert (params["scale"], params["datasets"], params["studies"]) == ("smoke", ["adding", "digits"], ["cells"])
    assert (tmp_path / "configs" / "base.yaml").is_file()


def test_make_try_runs_the_first_study() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^try: .*\n\tpython examples/first_study\.py$", makefile, re.MULTILINE)
