from __future__ import annotations

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.errors import TableError
from pipeline.publish import from_results
from pipeline.publish.setting import view_setting
from pipeline.results import read_table, write_table
from tests.publish.conftest import SPEC, TRIAL_IDS, make_trial, write_study


def test_spec_and_view_are_those_of_the_trial(paths: Paths) -> None:
    trials = [make_trial(), make_trial(TRIAL_IDS[1], "gru, T=10", loss=3.0)]
    write_study(paths, trials)
    pairs = list(from_results(paths, "cells"))
    assert [setting for setting, _ in pairs] == [trial.setting for trial in trials]
    for (setting, stored), trial in zip(pairs, trials, strict=True):
        assert stored.spec == SPEC
        expected = view_setting("cells", trial.setting, trial.stored)
        assert view_setting("cells", setting, stored).digest == expected.digest


def test_settings_that_share_a_trial_are_runs_of_their_own(paths: Paths) -> None:
    write_study(paths, [make_trial()])
    folder = paths.results("cells")
    settings = read_table("settings", folder)
    second = settings.with_columns(grid=pl.lit("short"), position=pl.lit(1, pl.Int64))
    write_table("settings", pl.concat([settings, second]), folder)
    ids = [view_setting("cells", setting, stored).run_id for setting, stored in from_results(paths, "cells")]
    assert ids == [f"cells-adding-{TRIAL_IDS[0]}", f"cells-short-{TRIAL_IDS[0]}"]


def test_a_trial_that_ended_in_an_error_is_left_out(paths: Paths) -> None:
    write_study(paths, [make_trial(), make_trial(TRIAL_IDS[1])])
    folder = paths.results("cells")
    failed = pl.when(pl.col("trial_id") == TRIAL_IDS[1]).then(pl.lit("error")).otherwise("status")
    write_table("trials", read_table("trials", folder).with_columns(status=failed), folder)
    assert [setting.trial_id for setting, _ in from_results(paths, "cells")] == [TRIAL_IDS[0]]


def test_a_study_without_results_is_an_error(paths: Paths) -> None:
    with pytest.raises(TableError, match="settings.parquet: no such table"):
        next(from_results(paths, "cells"))
