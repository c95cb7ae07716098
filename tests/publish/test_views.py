from __future__ import annotations

import json
import struct

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.errors import TableError
from pipeline.publish.media import Histogram, Maps, media_of
from pipeline.publish.views import run_id_of, short, views_of
from pipeline.results import SCHEMAS, read_table, write_table
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


def test_names_of_any_length_are_valid_in_wandb_and_apart() -> None:
    wandb = pytest.importorskip("wandb")
    studies = [f"{'long_' * 40}{end}" for end in "ab"]
    ids = {run_id_of(study, "grid" * 30, TRIAL_IDS[0]) for study in studies}
    assert len(ids) == 2
    assert all(len(name) <= 64 and name.endswith(TRIAL_IDS[0]) for name in ids)
    assert len({short(study) for study in studies}) == 2
    for study in studies:
        assert len(short(study, 64)) <= 64
        wandb.Artifact(f"results-{short(study)}", "result")
    assert short("cells") == "cells"


def test_traced_steps_have_charts_maps_and_histograms() -> None:
    tables = make_trial().tables
    place = {"trial_id": TRIAL_IDS[0], "seed": 0, "step": 0, "part": "recurrent", "layer": 0, "direction": "forward"}
    bins = [
        place | {"gate": "f", "quantity": "density", "position": at, "value": it}
        for at, it in ((0.25, 0.5), (0.75, 1.5))
    ]
    attention = {"trial_id": TRIAL_IDS[0], "step": 0, "example": 0, "aligned": False}
    weights = [
        attention | {"seed": seed, "output_position": 1, "source_position": at, "weight": 0.5}
        for seed in (0, 1)
        for at in (1, 2)
    ]
    tables |= {"gates": pl.DataFrame(bins, schema=SCHEMAS["gates"])}
    tables |= {"attention": pl.DataFrame(weights, schema=SCHEMAS["attention"])}
    media = media_of(tables, [0, 5, 10])
    assert {step: list(shown) for step, shown in media.items()} == {
        0: ["gradient_by_lag", "gradient_map", "attention_map", "gates/recurrent/0/forward/f"],
        10: ["gradient_by_lag", "gradient_map"],
    }
    assert media[0]["gates/recurrent/0/forward/f"] == Histogram((0.25, 0.75), (0.0, 0.5, 1.0))
    rows = media[10]["gradient_by_lag"].rows  # norms are 10^-t, and 0 at t = 1
    assert rows.rows() == [(lag, float(lag), "recurrent/0/forward/h") for lag in range(9)]
    for name in ("gradient_map", "attention_map"):
        for _, draw in media[0][name].pictures:
            assert draw().startswith(b"\x89PNG")


def test_pictures_of_one_key_have_one_size() -> None:
    """Else W&B warns, and shows them askew: examples and parts of a network differ in length."""
    attention = {"trial_id": TRIAL_IDS[0], "step": 0, "seed": 0, "aligned": False, "weight": 0.5}
    weights = [
        attention | {"example": example, "output_position": output, "source_position": source}
        for example, size in enumerate([(2, 9), (4, 3), (700, 1)])
        for output in range(1, size[0] + 1)
        for source in range(1, size[1] + 1)
    ]
    traces = make_trial().tables["traces"]
    shorter = traces.filter(pl.col("timestep") <= 7).with_columns(part=pl.lit("encoder"))
    tables = make_trial().tables | {
        "traces": pl.concat([traces, shorter]),
        "attention": pl.DataFrame(weights, schema=SCHEMAS["attention"]),
    }
    shown = media_of(tables, [0])[0]
    for name, number in (("gradient_map", 2), ("attention_map", 3)):
        maps = shown[name]
        assert isinstance(maps, Maps)
        sizes = {struct.unpack(">II", draw()[16:24]) for _, draw in maps.pictures}
        assert (len(maps.pictures), len(sizes)) == (number, 1)
