from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Params, Paths, RawSetting, Sizes
from pipeline.data import prepare_dataset
from pipeline.errors import ConfigError, DatasetError
from pipeline.sweep import plan_study
from pipeline.sweep.plan import label_of

from .fakes import STUDY, grid, limit_time, write_project, write_yaml

Project = tuple[Paths, Params]


def base(**changed: object) -> dict[str, object]:
    """Return the study's `set` with some dotted keys (`__` for the point) changed."""
    return STUDY["set"] | {key.replace("__", "."): value for key, value in changed.items()}


def test_every_setting_is_planned_in_the_order_of_the_file(project: Project) -> None:
    plan = plan_study(*project, "cells")
    assert [setting.label for setting in plan.settings] == [
        "elman, lr=0.1",
        "elman, lr=0.2",
        "lstm, lr=0.1",
        "lstm, lr=0.2",
    ]
    assert [setting.position for setting in plan.settings] == [0, 1, 2, 3]
    assert len({setting.trial_id for setting in plan.settings}) == 4
    assert plan.settings[0].spec.seeds == (0, 1)


def test_missing_is_plan_minus_store_longest_first(project: Project) -> None:
    plan = plan_study(*project, "cells")
    plan = plan.with_stored({plan.settings[2].trial_id})
    assert [setting.stored for setting in plan.settings] == [False, False, True, False]
    assert [setting.label for setting in plan.missing] == ["lstm, lr=0.2", "elman, lr=0.1", "elman, lr=0.2"]


def test_settings_that_ask_the_same_share_a_trial(tmp_path: Path) -> None:
    axes = grid(optimiser__learning_rate=[0.1, 0.2])["cells"]
    project = write_project(tmp_path, grids={"first": axes, "second": axes})
    plan = plan_study(*project, "cells")
    assert len(plan.settings) == 4
    assert [setting.grid for setting in plan.trials] == ["first", "first"]
    assert len(plan.missing) == 2


def digest_of(paths: Paths, params: Params) -> dict[str, object]:
    return plan_study(paths, params, "cells").digest()


def test_a_plan_keeps_its_digest_where_nothing_that_it_trains_changes(project: Project) -> None:
    paths, params = project
    before = digest_of(paths, params)
    figures = {"cells": STUDY["grids"]["cells"] | {"figures": ["learning_curves"]}}
    write_yaml(paths.study_config("cells"), {**STUDY, "question": "Another?", "claims": ["C1"], "grids": figures})
    prepare_dataset("adding", paths.dataset_config("adding"), [9], Sizes(8, 4, 4), paths.dataset("adding"))
    assert digest_of(paths, replace(params, trial_store="elsewhere", scale="tiny")) == before


@pytest.mark.parametrize("changed", ["seeds", "data", "order", "selection", "time limit"])
def test_a_plan_has_another_digest_where_its_tables_may_change(project: Project, changed: str) -> None:
    paths, params = project
    before = digest_of(paths, params)
    if changed == "seeds":
        params = replace(params, seeds=replace(params.seeds, start=7))
    elif changed == "data":
        prepare_dataset("adding", paths.dataset_config("adding"), [4], Sizes(9, 4, 4), paths.dataset("adding"))
    elif changed == "order":
        swapped = grid(model__cell=["lstm", "elman"], optimiser__learning_rate=[0.1, 0.2])
        write_yaml(paths.study_config("cells"), {**STUDY, "grids": swapped})
    elif changed == "selection":
        write_yaml(paths.study_config("cells"), {**STUDY, "select": None})
    else:
        limit_time(paths, 61.0)
    assert digest_of(paths, params) != before


def test_other_data_make_another_trial(project: Project, tmp_path: Path) -> None:
    first = plan_study(*project, "cells").settings[0]
    other = write_project(tmp_path / "other", set=base(dataset__length=6))
    assert plan_study(*other, "cells").settings[0].trial_id != first.trial_id


@pytest.mark.parametrize(
    ("axes", "label"),
    [
        ({"dataset.length": 100, "model.cell": "lstm", "optimiser.learning_rate": 0.003}, "lstm, T=100, lr=0.003"),
        ({"optimiser": {"name": "sgd", "learning_rate": 1.0}, "clipping.threshold": 0.5}, "sgd, threshold=0.5"),
        ({"training.stop_below": None}, "stop_below=None"),
        ({"variant": "clip + Ω", "dataset.length": 5, "model.cell": "gru"}, "clip + Ω, gru, T=5"),
        ({"dataset.length": 5, "model": {"cell": "gru", "hidden_size": 7}}, "gru, H=7, T=5"),
        ({}, "adding"),
    ],
)
def test_labels_are_short(axes: dict[str, object], label: str) -> None:
    assert label_of(RawSetting("adding", axes, {}, "file")) == label


def test_a_variant_is_said_first_and_planned_with_its_own_fields(tmp_path: Path) -> None:
    variants = {"small + slow": {"model.hidden_size": 2, "optimiser.learning_rate": 0.01}, "large": {}}
    axes = {"model.cell": ["gru", "lstm"]}
    grids = {"cells": {"figures": None, "set": {"model.hidden_size": 9}, "variants": variants, "axes": axes}}
    plan = plan_study(*write_project(tmp_path, grids=grids, select=None), "cells")
    assert [setting.label for setting in plan.settings] == [
        "small + slow, gru",
        "small + slow, lstm",
        "large, gru",
        "large, lstm",
    ]
    assert [setting.spec.model.hidden_size for setting in plan.settings] == [2, 2, 9, 9]
    assert [setting.spec.optimiser.learning_rate for setting in plan.settings] == [0.01, 0.01, 0.1, 0.1]


def test_a_mistake_in_a_variant_names_it(tmp_path: Path) -> None:
    variants = {"clip + Ω": {"clipping": {"name": "global_nrm"}}}
    project = write_project(
        tmp_path, grids={"cells": {"figures": None, "set": {}, "variants": variants, "axes": {}}}, select=None
    )
    message = (
        r"cells.yaml.grids.cells\[clip \+ Ω\].clipping.name: unknown name 'global_nrm'; did you mean 'global_norm'"
    )
    with pytest.raises(ConfigError, match=message):
        plan_study(*project, "cells")


def test_a_study_that_params_does_not_list(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml: studies: unknown study 'cell'; did you mean 'cells'\?"):
        plan_study(*project, "cell")


def test_a_mistake_names_file_grid_and_key(tmp_path: Path) -> None:
    project = write_project(tmp_path, grids=grid(optimiser__learning_rte=[0.1]), select=None)
    with pytest.raises(
        ConfigError, match=r"configs/studies/cells.yaml.grids.cells.optimiser: unknown key 'learning_rte'"
    ):
        plan_study(*project, "cells")


def test_a_selection_by_an_unknown_metric(tmp_path: Path) -> None:
    select = {"over": ["optimiser.learning_rate"], "metric": "best_validation_los"}
    project = write_project(tmp_path, select=select)
    message = r"cells.yaml.select.metric: unknown metric 'best_validation_los'; did you mean 'best_validation_loss'\?"
    with pytest.raises(ConfigError, match=message):
        plan_study(*project, "cells")


def test_a_dataset_without_a_file(tmp_path: Path) -> None:
    project = write_project(tmp_path, set=base(dataset__name="ading"))
    with pytest.raises(
        ConfigError, match=r"grids.cells.dataset.name: unknown dataset 'ading'; did you mean 'adding'\?"
    ):
        plan_study(*project, "cells")


def test_a_dataset_that_is_not_prepared(project: Project) -> None:
    shutil.rmtree(project[0].dataset("adding"))
    with pytest.raises(DatasetError, match=r"dataset 'adding' is not prepared; run `dvc repro prepare@adding`"):
        plan_study(*project, "cells")


def test_a_dataset_that_lies_there_but_is_not_listed(project: Project) -> None:
    paths, params = project
    message = r"cells.yaml.grids.cells.dataset.name: expected a dataset that params.yaml lists, digits; got 'adding'"
    with pytest.raises(ConfigError, match=message):
        plan_study(paths, replace(params, datasets=("digits",)), "cells")


def test_a_length_that_is_not_prepared(tmp_path: Path) -> None:
    project = write_project(tmp_path, set=base(dataset__length=5))
    message = r"cells.yaml.grids.cells.dataset.length: .*length 5 is not prepared; known: 4, 6.*prepare@adding"
    with pytest.raises(DatasetError, match=message):
        plan_study(*project, "cells")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model__embedding_size": 3},
            "model.embedding_size: expected null, for the real inputs .dataset 'adding'.; got 3",
        ),
        ({"training__batch_size": 9}, "training.batch_size: expected at most 8, the train sequences .*; got 9"),
        (
            {"diagnostics__probe_size": 5},
            "diagnostics.probe_size: expected at most 4, the validation sequences .* got 5",
        ),
    ],
)
def test_what_the_data_cannot_feed(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    project = write_project(tmp_path, set=base(**changed))
    with pytest.raises(ConfigError, match=message):
        plan_study(*project, "cells")


def test_a_model_that_memory_cannot_hold(tmp_path: Path) -> None:
    project = write_project(tmp_path, set=base(model__hidden_size=100_000))
    plan_study(*project, "cells")  # no limit where another machine trains
    message = (
        r"model.hidden_size: expected a trial that fits into the 16.0 GiB .* 2 replicas with 100000 hidden units need"
    )
    with pytest.raises(ConfigError, match=message):
        plan_study(*project, "cells", memory_limit_bytes=16 * 2**30)


def test_two_settings_of_a_grid_that_are_one_trial_are_refused_by_name(tmp_path: Path) -> None:
    only = {"variants": {"slow": {"optimiser.learning_rate": 0.1}, "fast": {"optimiser.learning_rate": 0.2}}}
    one = only | {"axes": {"optimiser": [{"name": "sgd", "learning_rate": 0.5}]}}
    project = write_project(tmp_path, grids={"cells": one}, select=None)
    message = (
        r"cells\.yaml\.grids\.cells\[fast\]: expected settings that differ, 'slow, sgd' and 'fast, sgd' are one trial"
    )
    with pytest.raises(ConfigError, match=message):
        plan_study(*project, "cells")
