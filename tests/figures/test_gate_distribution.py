from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import gate_distribution
from pipeline.quantities import GridTables
from tests.figures.conftest import grids
from tests.synthetic_results import END_FACTORS, START_FACTORS, Shape, Variant


def life(factor: float) -> float:
    return -math.log(2) / math.log(factor)


def test_densities_are_of_the_whole_unit_interval(measured: GridTables) -> None:
    drawn = gate_distribution.table(measured).filter(stage="end", arm="lstm", gate="f")
    assert drawn["position"].to_list() == pytest.approx([(bin_ + 0.5) / 20 for bin_ in range(20)])
    assert drawn["mean"].sum() / 20 == pytest.approx(1.0)
    assert drawn["mean"].is_sorted()  # most values of a keeping gate are near 1


def test_half_lives_are_those_of_the_mean_gate(measured: GridTables) -> None:
    lives = gate_distribution.numbers(measured).filter(quantity="half_life", arm="gru", gate="z")
    found = dict(lives.select("stage", "mean").iter_rows())
    assert found == pytest.approx({"initialisation": life(START_FACTORS["gru/h"]), "end": life(END_FACTORS["gru/h"])})


def test_units_of_a_seed_are_averaged_first(measured: GridTables) -> None:
    twice = measured.gates.with_columns(position=pl.col("position") + 1, value=3 * pl.col("value"))
    lives = measured.gates.filter(pl.col("quantity") == "half_life")
    tables = replace(measured, gates=pl.concat([lives, twice.filter(pl.col("quantity") == "half_life")]))
    row = gate_distribution.numbers(tables).filter(arm="gru", gate="z", stage="end").row(0, named=True)
    assert row["mean"] == pytest.approx(2 * life(END_FACTORS["gru/h"]))
    assert row["num_seeds"] == 3


def test_title_says_what_training_does_to_the_half_life(measured: GridTables) -> None:
    assert gate_distribution.title(measured) == (
        "Training lengthens the keeping gate's half-life in the LSTM (1.7 → 46 timesteps) and "
        "the GRU (2.1 → 27 timesteps)"
    )


def test_title_of_no_change_is_inconclusive() -> None:
    shape = Shape(variants={"chrono": Variant("lstm", 0.9, 0.9)}, measures=True, digits_length=None)
    assert gate_distribution.title(grids(shape)[0]) == "No change is established in chrono"


def test_at_most_four_arms_share_the_panels() -> None:
    variants = {f"bias {i}": Variant("gru", 0.5, 0.80 + 0.02 * i) for i in range(7)}
    tables = grids(Shape(variants=variants, measures=True, noise=0.0, digits_length=None))[0]
    assert "4 of 7 arms are shown" in gate_distribution.caption(tables)
    labels = [text.get_text() for text in gate_distribution.draw(tables).legends[0].get_texts()]
    assert [label.split(":")[0] for label in labels] == ["bias 0", "bias 2", "bias 4", "bias 6"]
    assert labels[0] == "bias 0: half-life of z 1.0 → 3.1"
