"""The scripts and the notebook in examples/ run as they stand, at a tiny size.

`python -m tests.test_examples` runs the notebook on the project's results and keeps what it shows in it.
"""

from __future__ import annotations

import ast
import base64
import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
import pytest
import yaml
from matplotlib.figure import Figure

from examples import first_study, read_tables, tap_states, train_one_trial, write_text
from pipeline.figures.style import to_png
from pipeline.results import SCHEMAS, write_table
from tests.quantities.conftest import geometric
from tests.report.conftest import project
from tests.synthetic_results import START_FACTORS, Shape
from tests.test_architecture import ROOT

NOTEBOOK = ROOT / "examples" / "figure_of_ones_own.ipynb"


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"} == {
        module.__name__.split(".")[-1] for module in (first_study, read_tables, tap_states, train_one_trial, write_text)
    }
    assert [*(ROOT / "examples").glob("*.ipynb")] == [NOTEBOOK]


def code_of(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cell(cell: dict[str, Any], names: dict[str, Any]) -> list[Any]:
    """Run a cell and return what a notebook shows below it: what its last line gives, and the figures of pyplot."""
    plt.switch_backend("agg")
    source = "".join(cell["source"])
    *body, last = ast.parse(source).body
    if isinstance(last, ast.Expr) and not source.endswith(";"):
        exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
        return [eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)]
    exec(compile(source, str(NOTEBOOK), "exec"), names)
    drawn = [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")
    return drawn


def output_of(value: Any, number: int) -> dict[str, Any]:
    """What a notebook keeps of a value."""
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_html_") and (html := value._repr_html_()):
        data["text/html"] = html.splitlines(keepends=True)
    if isinstance(value, Figure):
        png = value._repr_png_() if hasattr(value, "_repr_png_") else to_png(value, dpi=80)
        data["image/png"] = base64.b64encode(png).decode()
    return {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}


def keep_outputs(notebook: Path) -> None:
    """Run a notebook on the results of the project and write what it shows into it."""
    content, names = json.loads(notebook.read_text(encoding="utf-8")), {}
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        shown = run_cell(cell, names)
        cell |= {"execution_count": number, "outputs": [output_of(value, number) for value in shown]}
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def test_the_notebook_draws_a_figure_from_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell runs, in order, in a folder of the project."""
    paths = project(tmp_path, Shape(lengths=(10, 20), learning_rates=(0.003,), num_seeds=4, digits_length=None))
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    names: dict[str, Any] = {}
    shown = [run_cell(cell, names) for cell in code_of(NOTEBOOK)]
    results, figure, factors, own, trace = (values[0] for values in shown)
    assert own is names["figure"]
    assert results.folder == paths.results("cells")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert set(factors["arm"]) == {"elman", "lstm", "gru"}
    drawn = [line.get_ydata() for line in names["axes"].lines]
    assert len(drawn) == 3 * 4
    assert drawn[0][0] == pytest.approx(19 * math.log10(START_FACTORS["elman/h"]), abs=2.0)
    assert [text.get_text() for text in names["axes"].get_legend().get_texts()] == ["elman", "gru", "lstm"]
    assert trace["0"].null_count() == 0


def test_the_notebook_is_kept_as_it_ran() -> None:
    """With its pictures, so that a code host shows them, and with nothing of the machine that it ran on."""
    cells = code_of(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data"}
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output["data"]]
    assert [base64.b64decode(picture)[:4] for picture in pictures] == [b"\x89PNG"] * 2
    texts = [str(part) for output in outputs for kind, part in output["data"].items() if kind != "image/png"]
    assert not re.search(r"/(home|root|tmp|work|Users)\b|0x[0-9a-f]{6}", "".join(texts))
    assert NOTEBOOK.stat().st_size < 400_000


def test_the_notebook_shows_the_numbers_of_the_report() -> None:
    text = "".join("".join(output["data"]["text/plain"]) for cell in code_of(NOTEBOOK) for output in cell["outputs"])
    arms = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))["cells"]["adding"]
    rows = re.findall(r"│ (elman|lstm|gru) +┆ (initialisation|end) +┆ ([hc]) +┆ (\S+)", text)
    assert len(rows) == 2 * (1 + 2 + 1)
    for arm, stage, state, mean in rows:
        told = "the results have changed: python -m tests.test_examples keeps what the notebook now shows"
        assert float(mean) == pytest.approx(arms[arm][f"decay_factor_{state}_{stage}"], abs=1e-6), told


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


if __name__ == "__main__":
    keep_outputs(NOTEBOOK)
