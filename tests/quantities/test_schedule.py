from __future__ import annotations

import polars as pl

from pipeline.quantities import on_schedule


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
