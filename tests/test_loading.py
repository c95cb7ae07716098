"""A study's results in Python: tables, quantities, figures and traces, and what is said where there are none."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import pipeline
from pipeline.config import Paths
from pipeline.errors import PipelineError, TableError
from pipeline.figures.catalogue import FIGURES
from pipeline.figures.frame import Frame
from pipeline.figures.style import SCREEN_DPI, to_png
from pipeline.loading import _MEANINGS, Results, load_results, meanings_of
from pipeline.quantities import grids_of
from pipeline.results import SCHEMAS, read_table
from tests.quantities.conftest import geometric
from tests.report.conftest import project
from tests.synthetic_results import Shape
from tests.test_architecture import ROOT

SHAPE = Shape(cells=("elman", "lstm"), broken={"elman, T=20, lr=0.01#1": "diverged", "lstm, T=10, lr=0.003": "error"})


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return project(tmp_path_factory.mktemp("project"), SHAPE)


@pytest.fixture(scope="module")
def results(paths: Paths) -> Results:
    return load_results("cells", paths.root)


def test_the_package_stays_light_until_results_are_asked_for() -> None:
    program = "import sys, pipeline; assert not {'polars', 'matplotlib', 'torch', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
    assert pipeline.load_results is load_results
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'load_result'"):
        pipeline.load_result  # noqa: B018


def test_a_project_is_found_from_a_folder_within_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    (paths.root / "notebooks").mkdir()
    monkeypatch.chdir(paths.root / "notebooks")
    by_name, by_path = load_results("cells"), load_results(Path("../results/cells"))
    assert by_name.folder == by_path.folder == paths.results("cells")
    assert by_path.grids["adding"].arms == ("elman", "lstm")  # the learning rate, which the study selects over, is none
    assert repr(by_name).startswith("<Results of 'cells': adding (8 settings), digits (4 settings); tables trials,")


def test_a_table_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    paths = project(tmp_path, Shape(lengths=(10,), cells=("elman",), digits_length=None))
    (paths.results("cells") / "traces.parquet").write_bytes(b"PAR1 and no more")
    found = load_results(paths.results("cells"))
    assert found.trials.equals(read_table("trials", paths.results("cells")))
    assert found.trials is found.trials
    with pytest.raises(TableError, match=r"traces\.parquet: not a readable Parquet file"):
        found.traces.head()


def test_every_column_is_documented(results: Results) -> None:
    described = {(table, column) for table in SCHEMAS for column in meanings_of(table)}
    own, shared = ({key for key in _MEANINGS if bool(key[0]) == is_own} for is_own in (True, False))
    assert own <= described
    assert {column for _, column in shared} <= {column for table, column in described if (table, column) not in own}
    for table in SCHEMAS:
        assert list(results.columns(table)) == getattr(results, table).columns
    assert results.columns("traces")["quantity"] == "which state: h or c; x of the input (String)"
    assert results.columns("trials")["model.cell"] == "field of the trial's spec (String)"


def test_a_quantity_has_an_interval_per_grid_arm_and_length(results: Results) -> None:
    losses = results.quantity("test_loss")
    assert losses["grid"].unique(maintain_order=True).to_list() == ["adding", "digits"]
    kept = results.settings.filter(pl.col("selected"), grid="adding", **{"model.cell": "lstm", "dataset.length": 20})
    seeds = results.trials.join(kept, on="trial_id", how="semi")["test_loss"].to_list()
    row = losses.filter(grid="adding", arm="lstm", length=20).row(0, named=True)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(geometric(seeds))
    assert row["num_seeds"] == 3
    assert results.quantity("test_loss", "adding", length="shortest")["length"].unique().to_list() == [10]
    factors = results.quantity("decay_factor", "adding", length=20).filter(arm="lstm", stage="end", state="c")
    assert factors["mean"].item() == pytest.approx(0.985, abs=0.01)
    wide = results.quantity("test_loss", "adding", confidence=0.99).filter(arm="lstm", length=20)
    assert wide["low"].item() < row["low"]


def test_a_quantity_with_an_interval_of_its_own_kind_keeps_it(results: Results) -> None:
    growth = results.quantity("step_time_exponent", "adding")
    effect = results.effect("step_time_exponent", "adding", arm="lstm")
    row = growth.filter(arm="lstm").row(0, named=True)
    assert (row["mean"], row["low"], row["num_seeds"]) == (effect.value, effect.low, effect.num_seeds)


def test_an_effect_is_a_ratio_of_what_is_positive_and_else_a_difference(results: Results) -> None:
    alone = [results.effect("test_loss", "adding", arm=arm).value or 0.0 for arm in ("lstm", "elman")]
    assert alone[0] == results.quantity("test_loss", "adding", length=20).filter(arm="lstm")["mean"].item()
    ratio = results.effect("test_loss", "adding", arm="lstm", to={"arm": "elman"})
    kept = results.settings.filter(pl.col("selected"), grid="adding", **{"dataset.length": 20})
    ended = results.trials.filter(status="ok").join(kept, on=["trial_id", "model.cell"])
    logs = ended.with_columns(pl.col("test_loss").log10()).pivot("model.cell", index="seed", values="test_loss")
    paired = (logs["lstm"] - logs["elman"]).drop_nulls()  # a seed of the Elman network diverged
    assert (ratio.num_seeds, ratio.num_left_out) == (len(paired), 1) == (2, 1)
    assert ratio.value == pytest.approx(10 ** paired.mean())  # type: ignore[operator]
    solved = results.effect("solved", "adding", arm="lstm", length=10, to={"length": 20})
    shares = [results.effect("solved", "adding", arm="lstm", length=length).value or 0.0 for length in (10, 20)]
    assert solved.value == pytest.approx(shares[0] - shares[1])


def test_a_figure_is_that_of_the_report(results: Results, paths: Paths) -> None:
    tables = {table: read_table(table, paths.results("cells")) for table in SCHEMAS}
    adding, digits = grids_of("cells", tables, ("optimiser.learning_rate",))
    for grid, asked in ((adding, None), (digits, "digits")):
        drawn = results.figure("gradient_by_lag", grid=asked)
        expected = to_png(FIGURES["gradient_by_lag"].draw(grid), dpi=SCREEN_DPI)
        assert drawn._repr_png_() == expected  # type: ignore[attr-defined]  # what a notebook shows
    view = results.view("gradient_by_lag", grid="digits")
    assert view.grid.name == "digits"
    assert view.caption
    assert set(view.means["arm"]) == {"elman", "lstm"}
    assert "gradient_by_lag" in results.figures("digits")["digits"]
    assert "loss_by_length" not in results.figures()["digits"]


def test_a_figure_is_of_the_grid_that_the_report_shows_it_of(paths: Paths) -> None:
    found = load_results("cells", paths.root)
    assert found._config is not None
    grids = {name: dataclasses.replace(grid, figures=None) for name, grid in found._config.grids.items()}
    grids["adding"] = dataclasses.replace(grids["adding"], figures=("gradient_heatmap",))
    found._config = dataclasses.replace(found._config, grids=grids)
    assert found.view("gradient_by_lag").grid.name == "digits"
    assert found.view("gradient_heatmap").grid.name == "adding"
    assert found.view("loss_by_length").grid.name == "adding"  # not in its list, and the one that it could be of


def test_a_figure_that_asks_for_more_than_rows_says_for_what() -> None:
    (default,) = (field.default for field in dataclasses.fields(Frame) if field.name == "applies")
    for name, frame in FIGURES.items():
        assert (frame.applies is default) == (not frame.needs), name


def test_a_trace_is_of_one_replica(results: Results) -> None:
    lstm = results.settings.filter(pl.col("label").str.starts_with("lstm, T=20"))["trial_id"][0]
    found = results.trace(lstm[:8], seed=2)
    assert found.columns == ["step", "part", "layer", "direction", "state", "timestep", "lag", "log10_norm"]
    rows = results.traces.filter(trial_id=lstm, seed=2)
    assert found["log10_norm"].to_list() == rows["log10_norm"].to_list()
    assert found.filter(pl.col("lag") != 20 - pl.col("timestep")).is_empty()
    assert dict(found.group_by("state").agg(pl.col("part").first()).rows()) == dict.fromkeys("hc", "recurrent") | {
        "x": "input"
    }


def failed(results: Results) -> str:
    return str(results.settings.filter(label="lstm, T=10, lr=0.003")["trial_id"].item())


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda it: it.figure("gradient_by_lags"), r"unknown figure .*did you mean 'gradient_by_lag'\?"),
        (lambda it: it.figure("gradient_by_lag", grid="adition"), r"'cells': unknown grid .*known: adding, digits"),
        (lambda it: it.figure("attention_maps"), r"of study 'cells': grid 'adding': no rows in attention"),
        (lambda it: it.figure("loss_by_length", "digits"), r"grid 'digits': it needs several sequence lengths, or"),
        (lambda it: it.figure("gradient_by_layer"), r"grid 'digits': nothing that it shows is in traces"),
        (lambda it: it.quantity("test_los"), r"unknown quantity 'test_los'; did you mean 'test_loss'\?"),
        (lambda it: it.quantity("gate_mean"), r"'gate_mean': study 'cells' has no rows of it in any grid"),
        (lambda it: it.quantity("test_loss", "adding", length=15), r"no length 15; known: longest, shortest, 10, 20"),
        (lambda it: it.effect("test_loss", arm="lstm"), r"has several grids; name one of adding, digits"),
        (lambda it: it.effect("test_loss", "adding", arm="lst"), r"unknown arm 'lst'; did you mean 'lstm'\?"),
        (lambda it: it.effect("decay_factor", "adding", arm="lstm"), r"expected a value of 'stage'; got None"),
        (
            lambda it: it.effect("decay_factor", "adding", arm="lstm", stage="end", state="q"),
            r"unknown state 'q'; known: c, h",
        ),
        (lambda it: it.columns("trace"), r"unknown table 'trace'; did you mean 'traces'\?"),
        (lambda it: it.trace("nothing", 0), r"has no trial 'nothing'; column trial_id of `settings` has all"),
        (lambda it: it.trace(failed(it) + "0", 0), r"did you mean '[0-9a-f]+'\?"),
        (lambda it: it.trace("", 0), r"has no trial ''"),
        (lambda it: it.trace(it.settings["trial_id"][0], 7), r"no seed 7; it has 0, 1, 2"),
        (lambda it: it.trace(failed(it), 1), r"seed 1: nothing was traced; it ended with status error"),
    ],
)
def test_what_is_not_there_is_named(ask: Any, says: str, results: Results) -> None:
    with pytest.raises(PipelineError, match=says):
        ask(results)


def test_digits_that_several_trials_begin_with_are_too_few(results: Results) -> None:
    firsts = [trial[0] for trial in results.settings["trial_id"].unique()]
    shared = max(firsts, key=firsts.count)
    assert firsts.count(shared) > 1
    with pytest.raises(PipelineError, match=rf"trial '{shared}': \d of study 'cells' begin so; give"):
        results.trace(shared, 0)


def test_a_study_that_is_not_there_is_named(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=r"unknown study 'cels'; did you mean 'cells'\?"):
        load_results("cels", paths.root)
    with pytest.raises(PipelineError, match=r"no results yet; `dvc repro sweep@clipping` makes them.*those of cells$"):
        load_results("clipping", paths.root)
    with pytest.raises(PipelineError, match="no such folder; expected one with the tables of a study"):
        load_results(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=r"no params\.yaml here or above"):
        load_results("cells")


def test_tables_without_their_project(paths: Paths, tmp_path: Path) -> None:
    """They can be read; what they are grouped by is known only where nothing was selected, or the study's file is."""
    alone = tmp_path / "copied"
    alone.mkdir()
    for path in paths.results("cells").iterdir():
        (alone / path.name).write_bytes(path.read_bytes())
    assert load_results(alone).trace(load_results(alone).settings["trial_id"][0], 0).height
    with pytest.raises(PipelineError, match=r"expected configs/studies/cells\.yaml in a project"):
        load_results(alone).figure("gradient_by_lag")
    assert load_results(alone, paths.root).grids["adding"].arms == ("elman", "lstm")
    every = read_table("settings", alone).with_columns(selected=pl.lit(value=True))
    every.write_parquet(alone / "settings.parquet")
    assert load_results(alone).grids["adding"].arms[0] == "elman, learning_rate=0.003"
    pl.concat([every, every.with_columns(study=pl.lit("others"))]).write_parquet(alone / "settings.parquet")
    with pytest.raises(TableError, match=re.escape("expected the settings of one study, got")):
        load_results(alone)
