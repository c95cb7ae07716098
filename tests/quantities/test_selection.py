from __future__ import annotations

import polars as pl

from pipeline.core.training.rows import FACTS
from pipeline.quantities.selection import metric, on_schedule, pick_evenly, staged, thin_evenly, top_forward
from pipeline.results import SCHEMAS


def test_a_replica_that_stopped_keeps_its_last_measurement() -> None:
    steps = {0: [0, 10, 100, 1000], 1: [0, 10, 40]}  # seed 1 reached the criterion at step 40, off the schedule
    rows = [("t", seed, step, "m", 1000.0 * seed + step) for seed, own in steps.items() for step in own]
    frame = pl.DataFrame(rows, schema=["trial_id", "seed", "step", "metric", "value"], orient="row")
    common = on_schedule(frame, ["metric"])
    assert common["step"].unique().sort().to_list() == [0, 10, 100, 1000]
    assert common.filter(seed=1)["value"].to_list() == [1000.0, 1010.0, 1040.0, 1040.0]
    assert common.filter(seed=0)["value"].to_list() == [0.0, 10.0, 100.0, 1000.0]


def test_steps_at_which_all_replicas_were_measured_stay_as_they_are() -> None:
    frame = pl.DataFrame({"trial_id": "t", "seed": [0, 1, 0, 1], "step": [0, 0, 5, 5], "metric": "m", "value": 1.0})
    assert on_schedule(frame, ["metric"]).equals(frame)


def test_stages_are_the_first_and_last_measurement_of_each_length() -> None:
    rows = [("a", 0, step, "ok", 5) for step in (0, 5, 9)] + [("a", 1, step, "diverged", 5) for step in (0, 5)]
    rows += [("a", 0, step, "ok", 7) for step in (0, 4)] + [("a", 1, 0, "error", 7)]
    frame = pl.DataFrame(rows, schema=["arm", "seed", "step", "status", "length"], orient="row")
    frame = frame.with_columns(value=1.0, position=0.5)
    assert staged(frame).select("seed", "step", "length", "stage", "value", "position").rows() == [
        (0, 0, 5, "initialisation", 1.0, 0.5),
        (1, 0, 5, "initialisation", 1.0, 0.5),
        (0, 0, 7, "initialisation", 1.0, 0.5),
        (1, 0, 7, "initialisation", 1.0, 0.5),
        (0, 9, 5, "end", 1.0, 0.5),
        (1, 5, 5, "end", None, 0.5),  # it has no end: its seed is missing, and is counted
        (0, 4, 7, "end", 1.0, 0.5),
        (1, 0, 7, "end", None, 0.5),
    ]


def test_the_last_layer_of_each_arm_is_taken_forward() -> None:
    places = [("a", 0, "forward"), ("a", 1, "forward"), ("a", 1, "backward"), ("b", 0, "forward")]
    frame = pl.DataFrame(places, schema=["arm", "layer", "direction"], orient="row")
    frame = frame.with_columns(part=pl.lit("recurrent"))
    others = pl.DataFrame([("b", 2, "backward", part) for part in ("input", "encoder")], frame.schema, orient="row")
    found = top_forward(pl.concat([frame, others]))
    assert found.rows() == [("a", 1, "forward", "recurrent"), ("b", 0, "forward", "recurrent")]


def test_a_metric_has_exactly_the_facts_that_are_named() -> None:
    facts = dict.fromkeys(FACTS)
    rows = [{"metric": "loss", **facts}, {"metric": "loss", **facts, "split": "test"}]
    rows.append({"metric": "loss", **facts, "split": "test", "tested_length": 5})
    curves = pl.DataFrame(rows, schema={"metric": pl.String()} | {name: SCHEMAS["curves"][name] for name in FACTS})
    assert [metric(curves, "loss", **named).height for named in ({}, {"split": "test"})] == [1, 1]
    assert metric(curves, "loss", split="test", tested_length=5)["tested_length"].to_list() == [5]
    assert metric(curves, "error").is_empty()


def test_picking_evenly_keeps_the_extremes_and_the_order() -> None:
    values = {name: float(value) for name, value in zip("abcdefg", (3, 1, 7, 2, 6, 5, 4), strict=True)}
    assert pick_evenly(values, 3) == ["b", "c", "g"]
    assert pick_evenly(values | {"h": None}, 2) == ["c", "h"]
    assert pick_evenly(values, 7) == list(values)


def test_thinning_keeps_first_and_last_of_each_group_and_all_seeds() -> None:
    long = [{"arm": "a", "seed": seed, "step": step} for step in range(0, 1001, 10) for seed in (0, 1)]
    short = [{"arm": None, "seed": 0, "step": step} for step in (3, 7)]
    rows = thin_evenly(pl.DataFrame([*long, *short]), "step", ["arm"], 5)
    assert rows.filter(arm="a", seed=0)["step"].to_list() == [0, 250, 500, 750, 1000]
    assert rows.filter(arm="a", seed=1)["step"].to_list() == [0, 250, 500, 750, 1000]
    assert rows.filter(pl.col("arm").is_null())["step"].to_list() == [3, 7]
