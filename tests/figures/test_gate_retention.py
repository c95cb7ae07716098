from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import gate_retention
from pipeline.quantities import GridTables
from tests.synthetic_results import END_FACTORS


def test_product_power_and_gradient_of_the_cell_state(measured: GridTables) -> None:
    drawn = gate_retention.table(measured).filter(stage="end", arm="lstm", lag=8)
    expected = 8 * math.log10(END_FACTORS["lstm/c"])
    found = dict(drawn.select("source", "mean").iter_rows())
    assert found == pytest.approx({"gradient": expected, "retention": expected, "power": expected})


def test_a_cell_without_a_cell_state_is_measured_by_h(measured: GridTables) -> None:
    row = gate_retention.table(measured).filter(stage="end", arm="gru", lag=8, source="gradient").row(0, named=True)
    assert row["mean"] == pytest.approx(8 * math.log10(END_FACTORS["gru/h"]))


@pytest.mark.parametrize(
    ("factor", "title"),
    [
        (1.0, "After training the gradient falls as fast as the keeping gate's product in the LSTM and the GRU"),
        (2.0, "After training the gradient falls slower than the keeping gate's product in the LSTM and the GRU"),
        (0.2, "After training the gradient falls faster than the keeping gate's product in the LSTM and the GRU"),
    ],
)
def test_title_compares_the_slopes(measured: GridTables, factor: float, title: str) -> None:
    retention = pl.col("quantity") == "retention"
    value = pl.when(retention).then(factor * pl.col("value") - (factor - 1) * (factor < 1) * pl.col("position") * 0.01)
    tables = replace(measured, gates=measured.gates.with_columns(value=value.otherwise(pl.col("value"))))
    assert gate_retention.title(tables) == title


def test_title_without_agreement_of_seeds_is_inconclusive(measured: GridTables) -> None:
    retention = pl.col("quantity") == "retention"
    value = pl.when(retention).then((1 + 4 * (pl.col("seed") - 1)) * pl.col("value")).otherwise(pl.col("value"))
    tables = replace(measured, gates=measured.gates.with_columns(value=value))
    assert gate_retention.title(tables) == (
        "After training no difference to the keeping gate's product is established in the LSTM and the GRU"
    )


def test_cells_without_gates_have_no_such_figure(many: GridTables) -> None:
    assert not gate_retention.applies(many)
