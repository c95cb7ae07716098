from __future__ import annotations

import polars as pl
from pipeline.figures.stages import blocks, chosen_told, interval, layer_told, spread, staged, top_forward


def test_stages_are_the_first_and_last_measurement() -> None:
    rows = [("a", 0, step, "ok") for step in (0, 5, 9)] + [("a", 1, step, "diverged") for step in (0, 5)]
    frame = pl.DataFrame([*rows, ("b", 0, 0, "ok")], schema=["arm", "seed", "step", "status"], orient="row")
    found = staged(frame).select("arm", "seed", "step", "stage").rows()
    assert found == [
        ("a", 0, 0, "initialisation"),
        ("a", 1, 0, "initialisation"),
        ("b", 0, 0, "initialisation"),
        ("a", 0, 9, "end"),
    ]


def test_the_last_layer_of_each_arm_is_taken_forward() -> None:
    places = [("a", 0, "forward"), ("a", 1, "forward"), ("a", 1, "backward"), ("b", 0, "forward")]
    frame = pl.DataFrame(places, schema=["arm", "layer", "direction"], orient="row")
    frame = frame.with_columns(part=pl.lit("recurrent"))
    others = pl.DataFrame([("b", 2, "backward", part) for part in ("input", "encoder")], frame.schema, orient="row")
    frame = pl.concat([frame, others])
    assert top_forward(frame).rows() == [("a", 1, "forward", "recurrent"), ("b", 0, "forward", "recurrent")]
    assert layer_told(frame.filter(arm="b")) == ""
    assert "last layer, forward" in layer_told(frame)


def test_places_are_read_from_the_metric() -> None:
    metrics = ["sigma_max[h]", "spectral_radius[l1.h]", "sigma_max[l0_reverse.f]", "training_loss", "sigma_max"]
    found = blocks(pl.DataFrame({"metric": metrics}))
    assert found.select("measure", "layer", "direction", "gate").rows() == [
        ("sigma_max", 0, "forward", "h"),
        ("spectral_radius", 1, "forward", "h"),
        ("sigma_max", 0, "backward", "f"),
    ]
    assert blocks(pl.DataFrame({"metric": metrics}), ["sigma_max"]).height == 2


def test_a_spread_keeps_the_extremes_and_the_order() -> None:
    values = {name: float(value) for name, value in zip("abcdefg", (3, 1, 7, 2, 6, 5, 4), strict=True)}
    assert spread(values, 3) == ["b", "c", "g"]
    assert spread(values | {"h": None}, 2) == ["c", "h"]
    assert spread(values, 7) == list(values)
    assert chosen_told(["b"], ["b"], "size") == ""
    assert chosen_told(["b"], ["b", "c"], "size").startswith(" 1 of 2 arms are shown")


def test_an_interval_of_one_seed_is_a_number() -> None:
    assert interval({"mean": 0.5, "low": None, "high": None}) == "0.50"
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.50 [0.25, 0.75]"
