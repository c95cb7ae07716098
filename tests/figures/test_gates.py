from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.figures.gates import gate_distribution, gate_retention
from pipeline.quantities import Grid
from pipeline.quantities.gates import half_life
from tests.figures.conftest import changed, grids, legend
from tests.synthetic_results import END_FACTORS, START_FACTORS, Shape, Variant


def life(factor: float) -> float:
    return -math.log(2) / math.log(factor)


def test_densities_are_of_the_whole_unit_interval(measured: Grid) -> None:
    drawn = gate_distribution.view(measured).means.filter(stage="end", arm="lstm", gate="f")
    assert drawn["position"].to_list() == pytest.approx([(bin_ + 0.5) / 20 for bin_ in range(20)])
    assert drawn["mean"].sum() / 20 == pytest.approx(1.0)
    assert drawn["mean"].is_sorted()  # most values of a keeping gate are near 1


def test_half_lives_are_those_of_the_mean_gate(measured: Grid) -> None:
    rows = half_life.of(measured.at("longest")).filter(arm="gru", gate="z")
    found = dict(half_life.natural(half_life.summary(rows, ["stage"])).select("stage", "mean").iter_rows())
    assert found == pytest.approx({"initialisation": life(START_FACTORS["gru/h"]), "end": life(END_FACTORS["gru/h"])})


def test_what_training_does_to_the_half_life_is_the_finding(measured: Grid) -> None:
    title = gate_distribution.view(measured).title
    assert "lengthens" in title
    assert "the LSTM (1.7 → 46 timesteps) and the GRU (2.1 → 27 timesteps)" in title


def test_no_change_of_the_half_life_is_not_a_finding() -> None:
    shape = Shape(variants={"lstm": Variant("lstm", 0.9, 0.9)}, measures=True, digits_length=None)
    assert gate_distribution.view(grids(shape)[0]).title == "No change is established in the LSTM"


def test_a_finding_that_begins_a_title_keeps_its_capitals() -> None:
    shape = Shape(variants={"LSTM": Variant("lstm", 0.9, 0.9)}, measures=True, digits_length=None)
    assert gate_distribution.view(grids(shape)[0]).title == "No change is established in LSTM"


def test_at_most_five_arms_share_the_panels_of_gates() -> None:
    variants = {f"bias {i}": Variant("gru", 0.5, 0.80 + 0.02 * i) for i in range(7)}
    (grid,) = grids(Shape(variants=variants, measures=True, noise=0.0, digits_length=None))
    assert "5 of 7 arms are shown" in gate_distribution.view(grid).caption
    labels = legend(gate_distribution.draw(grid))
    assert [label.split(":")[0] for label in labels] == ["bias 0", "bias 2", "bias 3", "bias 4", "bias 6"]
    assert labels[0] == "bias 0: half-life 1.0 → 3.1"


def test_product_power_and_gradient_of_the_cell_state(measured: Grid) -> None:
    means = gate_retention.view(measured).means.filter(stage="end", lag=8)
    expected = 8 * math.log10(END_FACTORS["lstm/c"])
    found = dict(means.filter(arm="lstm").select("source", "mean").iter_rows())
    assert found == pytest.approx({"gradient": expected, "retention": expected, "power": expected})
    row = means.filter(arm="gru", source="gradient").row(0, named=True)  # it has no cell state: h
    assert row["mean"] == pytest.approx(8 * math.log10(END_FACTORS["gru/h"]))


@pytest.mark.parametrize(("factor", "speed"), [(1.0, "as fast as"), (2.0, "slower than"), (0.2, "faster than")])
def test_the_slopes_of_gradient_and_product_are_compared(measured: Grid, factor: float, speed: str) -> None:
    is_retention = pl.col("quantity") == "retention"
    slower = (factor - 1) * (factor < 1) * pl.col("position") * 0.01
    value = pl.when(is_retention).then(factor * pl.col("value") - slower).otherwise("value")
    title = gate_retention.view(changed(measured, gates=measured["gates"].with_columns(value=value))).title
    assert f"{speed} the keeping gate's product in the LSTM and the GRU" in title


def test_without_agreement_of_seeds_no_difference_of_slopes_is_established(measured: Grid) -> None:
    factor = 1 + 4 * (pl.col("seed") - 1)
    value = pl.when(pl.col("quantity") == "retention").then(factor * pl.col("value")).otherwise("value")
    title = gate_retention.view(changed(measured, gates=measured["gates"].with_columns(value=value))).title
    assert "no difference to the keeping gate's product is established in the LSTM and the GRU" in title


def test_cells_without_gates_have_no_retention(many: Grid) -> None:
    assert not gate_retention.is_of(many)


def test_of_many_arms_the_retention_after_training_is_drawn() -> None:
    variants = {f"bias {i}": Variant("gru", 0.5, 0.80 + 0.02 * i) for i in range(7)}
    (grid,) = grids(Shape(variants=variants, measures=True, noise=0.0, digits_length=None))
    view = gate_retention.view(grid)
    assert view.rows["stage"].unique().to_list() == ["end"]
    assert len(view.shown) == 6
    assert set(legend(gate_retention.draw(grid))) == {
        "gradient, measured",
        "product of the keeping gate",
        "f^k of its mean f",
    }
