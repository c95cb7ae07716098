from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.config import Params, Paths, Selection
from pipeline.data import load_dataset
from pipeline.errors import StoreError
from pipeline.quantities import grids_of
from pipeline.quantities.settings import settings_table
from pipeline.results import SCHEMAS, read_table
from pipeline.results.frames import SpecColumn
from pipeline.results.store import TrialStore
from pipeline.sweep import Plan, plan_study
from pipeline.sweep import consolidate as consolidation
from pipeline.sweep.consolidate import _as, _columns, consolidate, median_scores, selected_positions
from pipeline.sweep.trial import Job, train_setting

from .fakes import FakeTrain, grid, write_project


def trained(paths: Paths, params: Params, reverse: bool = False) -> tuple[Plan, TrialStore]:
    """Return the plan of `cells` with every trial in the store, trained forwards or backwards."""
    store = TrialStore(paths.root / f"store-{reverse}")
    plan = plan_study(paths, params, "cells")
    job = Job(store.url, None, "cpu", 1, 60.0, FakeTrain())
    for setting in plan.trials[:: -1 if reverse else 1]:
        outcome = train_setting(job, setting, load_dataset(paths.dataset("adding"), setting.spec.dataset.length))
        assert outcome.status == "ok", outcome.traceback
    return plan, store


def scores(*rows: tuple[str, str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["trial_id", "status", "best_validation_loss"], orient="row")


def test_the_folder_holds_the_declared_tables_and_nothing_else(project: tuple[Paths, Params], tmp_path: Path) -> None:
    plan, store = trained(*project)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "gates.parquet").write_bytes(b"of an older study")
    consolidate(plan, store, folder, errors={})
    assert {path.name for path in folder.iterdir()} == {f"{table}.parquet" for table in SCHEMAS}


def test_rows_follow_the_plan_then_the_keys(project: tuple[Paths, Params], tmp_path: Path) -> None:
    plan, store = trained(*project)
    consolidate(plan, store, tmp_path, errors={})
    ids = [setting.trial_id for setting in plan.settings]
    trials, curves = read_table("trials", tmp_path), read_table("curves", tmp_path)
    assert trials.select("trial_id", "seed").rows() == [(identity, seed) for identity in ids for seed in (0, 1)]
    assert curves["trial_id"].unique(maintain_order=True).to_list() == ids
    first = curves.filter(pl.col("trial_id") == ids[0])
    assert first.select("seed", "step").rows() == sorted(first.select("seed", "step").rows())


def test_the_same_bytes_again_and_the_same_tables_in_any_order_of_training(
    project: tuple[Paths, Params], tmp_path: Path
) -> None:
    plan, forwards = trained(*project)
    consolidate(plan, forwards, tmp_path / "first", errors={})
    consolidate(plan, forwards, tmp_path / "again", errors={})
    consolidate(plan, trained(*project, reverse=True)[1], tmp_path / "backwards", errors={})
    for table in SCHEMAS:
        first = (tmp_path / "first" / f"{table}.parquet").read_bytes()
        assert first == (tmp_path / "again" / f"{table}.parquet").read_bytes()
        if table != "trials":  # has wall times
            assert first == (tmp_path / "backwards" / f"{table}.parquet").read_bytes()


@pytest.mark.parametrize(("parts", "size"), [(2, 2**27), (3, 1), (100, 2**27)])
def test_few_rows_wait_in_few_frames_and_the_tables_are_the_same(
    parts: int, size: int, project: tuple[Paths, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = trained(*project)
    consolidate(plan, store, tmp_path / "first", errors={})
    monkeypatch.setattr(consolidation, "PARTS_AT_ONCE", parts)
    monkeypatch.setattr(consolidation, "BYTES_AT_ONCE", size)
    waiting, add = list[int](), consolidation._Table.add

    def counted(table: consolidation._Table, frame: pl.DataFrame) -> None:
        add(table, frame)
        waiting.append(len(table._parts))

    monkeypatch.setattr(consolidation._Table, "add", counted)
    consolidate(plan, store, tmp_path / "again", errors={})
    assert max(waiting) == min(parts - 1, len(plan.trials))
    for table in SCHEMAS:
        first, again = (tmp_path / each / f"{table}.parquet" for each in ("first", "again"))
        assert read_table(table, first.parent).equals(read_table(table, again.parent))
        assert (first.read_bytes() == again.read_bytes()) or size == 1  # else row groups are the same, too


def test_settings_of_different_grids_have_null_where_an_axis_is_absent(tmp_path: Path) -> None:
    optimisers = [{"name": "sgd", "learning_rate": 0.1}, {"name": "momentum", "learning_rate": 0.1, "momentum": 0.9}]
    grids = {
        "lengths": {"figures": None, "set": {}, "variants": {}, "axes": {"dataset.length": [4, 6]}},
        "optimisers": {"figures": None, "set": {}, "variants": {}, "axes": {"optimiser": optimisers}},
    }
    plan, store = trained(*write_project(tmp_path / "project", grids=grids, select=None))
    consolidate(plan, store, tmp_path / "results", errors={})
    settings = read_table("settings", tmp_path / "results")
    assert settings["dataset.length"].to_list() == [4, 6, None, None]
    assert settings["optimiser.name"].to_list() == [None, None, "sgd", "momentum"]
    assert settings["optimiser.momentum"].to_list() == [None, None, None, 0.9]
    assert settings["position"].to_list() == [0, 1, 2, 3]
    assert settings["selected"].to_list() == [True] * 4
    assert settings["trial_id"][0] == settings["trial_id"][2]  # the base, asked for twice
    trials = read_table("trials", tmp_path / "results")
    assert len(trials) == 3 * 2
    assert trials["model.embedding_size"].dtype == pl.Int64


def test_what_a_variant_changes_is_no_column_of_settings(tmp_path: Path) -> None:
    small = {"model.hidden_size": 2, "optimiser": {"name": "adam", "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99}}
    axes = {"optimiser.learning_rate": [0.2, 0.3]}
    grids = {
        "variants": {"figures": None, "set": {}, "variants": {"small + Adam": small, "plain": {}}, "axes": axes},
        "cells": {"figures": None, "set": {}, "variants": {}, "axes": {"model.cell": ["elman", "gru"]}},
    }
    plan, store = trained(*write_project(tmp_path / "project", grids=grids))
    consolidate(plan, store, tmp_path / "results", errors={})
    tables = {table: read_table(table, tmp_path / "results") for table in SCHEMAS}
    settings = tables["settings"]
    assert settings["variant"].to_list() == ["small + Adam"] * 2 + ["plain"] * 2 + [None] * 2
    assert {c for c in settings.columns if "." in c} == {"optimiser.learning_rate", "model.cell"}
    assert settings["optimiser.learning_rate"].to_list() == [0.2, 0.3, 0.2, 0.3, None, None]
    assert settings["selected"].sum() == 4  # one of each variant, and the grid without the axis as it is
    assert set(tables["trials"]["model.hidden_size"]) == {2, 3}
    variants, cells = grids_of("cells", tables, ["optimiser.learning_rate"])
    assert (variants.arms, cells.arms) == (("small + Adam", "plain"), ("elman", "gru"))
    assert variants.all_runs.filter(arm="small + Adam")["optimiser.name"].unique().to_list() == ["adam"]
    rows = settings_table(variants)
    assert rows["arm"].to_list() == ["small + Adam"] * 2 + ["plain"] * 2
    assert {c for c in rows.columns if "." in c} == {"optimiser.learning_rate"}


def test_fields_of_whole_objects_are_selected_over_too(tmp_path: Path) -> None:
    sgd, momentum = {"name": "sgd"}, {"name": "momentum", "momentum": 0.9}
    objects = [{**sgd, "learning_rate": 0.1}, {**momentum, "learning_rate": 0.1}, {**sgd, "learning_rate": 0.2}]
    grids = {"rates": grid(optimiser__learning_rate=[0.3, 0.4])["cells"], "objects": grid(optimiser=objects)["cells"]}
    plan = plan_study(*write_project(tmp_path, grids=grids), "cells")
    rows = [(setting.trial_id, "ok", 1.0 - setting.position) for setting in plan.settings]
    assert selected_positions(plan, median_scores(scores(*rows), "best_validation_loss")) == {1, 3, 4}


def test_a_failed_setting_has_rows_that_say_so(project: tuple[Paths, Params], tmp_path: Path) -> None:
    plan, store = trained(*project)
    failed = plan.settings[1].trial_id
    store.objects.delete(f"{failed}.zip")
    consolidate(plan, store, tmp_path, errors={failed: "RuntimeError: boom"})
    rows = read_table("trials", tmp_path).filter(pl.col("trial_id") == failed)
    assert rows["status"].to_list() == ["error", "error"]
    assert rows["status_message"].to_list() == ["RuntimeError: boom"] * 2
    assert rows["optimiser.learning_rate"].to_list() == [0.2, 0.2]
    assert not read_table("settings", tmp_path)["selected"][1]


def test_a_trial_that_is_gone_is_an_error(project: tuple[Paths, Params], tmp_path: Path) -> None:
    plan, store = trained(*project)
    store.objects.delete(f"{plan.settings[1].trial_id}.zip")
    with pytest.raises(StoreError, match=rf"trial {plan.settings[1].trial_id} \(elman, lr=0.2\) is gone; run again"):
        consolidate(plan, store, tmp_path, errors={})


def test_a_seed_without_an_honest_number_counts_as_infinite() -> None:
    table = scores(
        ("fine", "ok", 0.1), ("fine", "ok", 0.2), ("fine", "diverged", 0.01),
        ("bad", "ok", None), ("bad", "ok", math.nan), ("bad", "ok", 0.1),
        ("even", "ok", 0.1), ("even", "timed_out", 0.1),
    )  # fmt: skip
    assert median_scores(table, "best_validation_loss") == {"fine": 0.2, "bad": math.inf, "even": math.inf}


@pytest.mark.parametrize(
    ("losses", "selected"),
    [
        ([0.2, 0.1, 0.3, 0.4], {1, 2}),
        ([0.1, 0.1, 0.3, 0.3], {0, 2}),  # ties go to the first in the file
        ([None, 0.5, None, None], {1, 2}),
    ],
)
def test_each_arm_selects_its_lowest_median(
    project: tuple[Paths, Params], losses: list[Any], selected: set[int]
) -> None:
    plan = plan_study(*project, "cells")
    rows = [(setting.trial_id, "ok", loss) for setting, loss in zip(plan.settings, losses, strict=True)]
    assert plan.select == Selection(("optimiser.learning_rate",), "best_validation_loss")
    assert selected_positions(plan, median_scores(scores(*rows), "best_validation_loss")) == selected


def test_grids_select_apart(tmp_path: Path) -> None:
    axes = grid(optimiser__learning_rate=[0.1, 0.2])["cells"]
    plan = plan_study(*write_project(tmp_path, grids={"a": axes, "b": axes}), "cells")
    rows = [(setting.trial_id, "ok", 1.0 - setting.position) for setting in plan.trials]
    assert selected_positions(plan, median_scores(scores(*rows), "best_validation_loss")) == {1, 3}


def test_arguments_that_are_of_several_types_have_a_type_for_all() -> None:
    whole, share, text = (
        SpecColumn(value, dtype) for value, dtype in ((0, pl.Int64()), (0.5, pl.Float64()), ("a", pl.String()))
    )
    assert _columns({}, [{"x": whole}, {"x": share}]) == {"x": pl.Float64()}
    assert _columns({}, [{"x": whole}, {"x": text}, {"x": share}]) == {"x": pl.String()}
    assert [_as(pl.Float64(), column) for column in (whole, share)] == [0.0, 0.5]
    assert [_as(pl.String(), column) for column in (whole, share, text)] == ["0", "0.5", "a"]
