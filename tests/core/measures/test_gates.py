"""Gates of networks whose weights make them constant, and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.core.cells import CELLS, States, Weights
from pipeline.core.cells.stack import Place
from pipeline.core.measures.gates import GateStatistic, gate_statistics, gate_values, half_life, retention
from tests.core.measures.packs import batch, pack


def unrolled(cell: str, bias: float | None = None, direction: str = "forward") -> tuple[Weights, Tensor, list[Tensor]]:
    """Weights, inputs and states of a place; with a bias, all else is 0 but that bias of the keeping gate."""
    replicas = pack(cell, bidirectional=direction == "backward")
    place, (inputs, _) = Place(0, direction), batch(9)
    flat_RP = replicas.flat_RP.double()
    weights = replicas.weights(flat_RP, place)
    if bias is not None:
        for weight in weights:
            weight.zero_()
        CELLS[cell].bias_of(weights, str(CELLS[cell].keep_gate)).fill_(bias)
    _, seen, states = replicas.unroll(replicas.named(flat_RP), inputs.double())
    index = replicas.model.recurrent.places.index(place)
    num_states = len(CELLS[cell].states)
    mine = states[index * num_states : (index + 1) * num_states]
    x, *mine = (tensor.flip(1) if direction == "backward" else tensor for tensor in (seen[index], *mine))
    return weights, x, mine


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_values_are_those_of_a_slow_loop_that_starts_at_zero(cell: str, direction: str) -> None:
    weights, x_RTBD, states = unrolled(cell, direction=direction)
    values = gate_values(CELLS[cell], weights, x_RTBD, states)
    for r in range(3):
        mine = Weights(*(weight[r] for weight in weights))
        for b in range(5):
            before = States(*(torch.zeros(4, dtype=torch.float64) for _ in states))
            for t in range(9):
                expected = CELLS[cell].gate_values(x_RTBD[r, t, b], before, mine)  # type: ignore[misc]
                assert set(values) == set(expected)
                for gate, value in expected.items():
                    torch.testing.assert_close(values[gate][r, t, b], value, rtol=1e-12, atol=1e-14)
                before = CELLS[cell].step(x_RTBD[r, t, b], before, mine)


def test_a_cell_without_gates_is_refused() -> None:
    weights, x_RTBD, states = unrolled("elman")
    with pytest.raises(ValueError, match="expected a cell with gates"):
        gate_values(CELLS["elman"], weights, x_RTBD, states)


def of(rows: list[GateStatistic], gate: str, quantity: str) -> list[GateStatistic]:
    return [row for row in rows if (row.gate, row.quantity) == (gate, quantity)]


@pytest.mark.parametrize("bias", [0, 1, 5])
def test_half_life_and_retention_of_a_constant_forget_gate(bias: float) -> None:
    values = gate_values(CELLS["lstm"], *unrolled("lstm", bias))
    keep = 1 / (1 + math.exp(-bias))
    (row,) = of(gate_statistics(values, "f"), "f", "half_life")
    assert torch.equal(row.value_R, half_life(values["f"]))
    assert row.value_R.tolist() == pytest.approx([math.log(0.5) / math.log(keep)] * 3, rel=1e-12)
    expected = (torch.arange(1, 10, dtype=torch.float64) * math.log10(keep)).expand(3, 9)
    torch.testing.assert_close(retention(values["f"]), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("bias", "left", "right"), [(5.0, 0.0, 1.0), (-5.0, 1.0, 0.0), (0.0, 0.0, 0.0)])
def test_statistics_of_a_constant_gate(bias: float, left: float, right: float) -> None:
    rows = gate_statistics(gate_values(CELLS["gru"], *unrolled("gru", bias)), "z")
    assert of(rows, "z", "mean")[0].value_R.tolist() == pytest.approx([1 / (1 + math.exp(-bias))] * 3)
    assert of(rows, "z", "left_saturated")[0].value_R.tolist() == [left] * 3
    assert of(rows, "z", "right_saturated")[0].value_R.tolist() == [right] * 3
    density = of(rows, "z", "density")
    assert [row.position for row in density] == pytest.approx([0.025 + 0.05 * i for i in range(20)])
    full = {5.0: 19, -5.0: 0, 0.0: 10}[bias]
    assert [row.value_R[0].item() for row in density] == [20.0 if i == full else 0.0 for i in range(20)]
    assert not of(rows, "r", "half_life")


def test_density_integrates_to_one_and_counts_both_ends() -> None:
    values = torch.tensor([0.0, 0.04, 0.5, 1.0], dtype=torch.float64).reshape(1, 1, 1, 4)
    density = [row.value_R.item() for row in of(gate_statistics({"f": values}, None), "f", "density")]
    assert (density[0], density[10], density[19]) == (10.0, 5.0, 5.0)
    assert sum(density) / 20 == pytest.approx(1.0)


def test_a_gate_that_never_closes_keeps_for_ever_and_nan_stays_nan() -> None:
    keep = torch.ones(3, 4, 2, 5, dtype=torch.float64)
    keep[1, :, :, :] = 0.0
    keep[2, 0, 0, 0] = math.nan
    assert half_life(keep)[:2].tolist() == [math.inf, 0.0]
    assert retention(keep)[:2].tolist() == [[0.0] * 4, [-math.inf] * 4]
    for row in gate_statistics({"f": keep}, "f"):
        assert row.value_R[2].isnan(), row.quantity
        assert not row.value_R[:2].isnan().any(), row.quantity


def test_what_is_kept_is_what_the_gate_does_not_let_through_where_it_keeps_shut() -> None:
    """Of a minGRU, whose gate keeps 1 - z."""
    weights, x_RTBD, states = unrolled("min_gru", bias=-2.0)
    cell = CELLS["min_gru"]
    values = gate_values(cell, weights, x_RTBD, states)
    kept = 1 / (1 + math.exp(-2.0))
    for quantity, expected in (("mean", 1 - kept), ("kept", kept), ("half_life", math.log(2) / -math.log(kept))):
        (row,) = of(gate_statistics(values, cell.keep_gate, cell.keeps_when_open), "z", quantity)
        torch.testing.assert_close(row.value_R, torch.full((3,), expected, dtype=torch.float64))
