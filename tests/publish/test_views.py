from __future__ import annotations

import json

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.errors import TableError
from pipeline.publish.views import views_of
from pipeline.results import read_table, write_table
from tests.publish.conftest import SPEC, TRIAL_IDS, make_trial, settings_of, write_study
from tests.quantities.conftest import geometric


def test_a_study_is_a_run_per_setting_and_one_of_its_own(paths: Paths) -> None:
    write_study(paths, [make_trial(), make_trial(TRIAL_IDS[1], "gru, T=10", loss=3.0)])
    first, second, study = views_of(paths, "cells")
    assert [view.name for view in (first, second, study)] == ["lstm, T=10", "gru, T=10", "cells"]
    assert {key: first.config[key] for key in SPEC} == json.loads(json.dumps(SPEC))
    means = [view.rows[0]["loss/validation/mean"] for view in (first, second)]
    assert means == pytest.approx([geometric([1.0, 2.0, 3.0])[0], geometric([3.0, 6.0, 9.0])[0]])
    assert (study.run_id, study.job_type) == ("cells-study", "study")


def test_settings_that_share_a_trial_are_runs_of_their_own(paths: Paths) -> None:
    write_study(paths, [make_trial()])
    folder = paths.results("cells")
    settings = read_table("settings", folder)
    second = settings.with_columns(grid=pl.lit("short"), position=pl.lit(1, pl.Int64))
    write_table("settings", pl.concat([settings, second]), folder)
    ids = [view.run_id for view in settings_of(paths)]
    assert ids == [f"cells-adding-{TRIAL_IDS[0]}", f"cells-short-{TRIAL_IDS[0]}"]


def test_a_trial_that_ended_in_an_error_is_left_out(paths: Paths) -> None:
    write_study(paths, [make_trial(), make_trial(TRIAL_IDS[1])])
    folder = paths.results("cells")
    failed = pl.when(pl.col("trial_id") == TRIAL_IDS[1]).then(pl.lit("error")).otherwise("status")
    write_table("trials", read_table("trials", folder).with_columns(status=failed), folder)
    assert [view.config["trial_id"] for view in settings_of(paths)] == [TRIAL_IDS[0]]


def test_a_study_without_results_is_an_error(paths: Paths) -> None:
    with pytest.raises(TableError, match="trials.parquet: no such table"):
        next(views_of(paths, "cells"))
