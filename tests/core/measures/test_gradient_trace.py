"""The trace against autograd's own Jacobian, and the two gradient checks of a gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.core.measures.gradients import finite_difference_error, gradient_check_error, trace_gradients
from pipeline.core.models import RunOptions, StateKey, loss
from tests.core.measures.packs import REAL, batch, pack


@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_trace_equals_the_jacobian_of_the_loss_in_each_state(cell: str, num_layers: int, bidirectional: bool) -> None:
    replicas = pack(cell, num_layers=num_layers, bidirectional=bidirectional)
    (inputs, targets), keys = batch(7), replicas.model.tap_keys
    trace = trace_gradients(replicas, replicas.flat_RP, inputs, targets)
    assert tuple(trace.log10_norms) == keys
    for r in range(replicas.num_replicas):
        parameters = {name: view[r].double() for name, view in replicas.named(replicas.flat_RP).items()}

        def of_taps(*taps: Tensor, parameters: dict[str, Tensor] = parameters) -> Tensor:
            call = (inputs.double(), RunOptions(taps=taps))
            return loss(REAL, torch.func.functional_call(replicas.model, parameters, call).values, targets)

        shapes = replicas.model.tap_shapes(inputs)
        zeros = tuple(torch.zeros(shape, dtype=torch.float64) for shape in shapes)
        jacobians = torch.autograd.functional.jacobian(of_taps, zeros)
        for key, jacobian in zip(keys, jacobians, strict=True):
            expected = jacobian.flatten(1).norm(dim=1).log10()
            torch.testing.assert_close(trace.log10_norms[key][r], expected, rtol=1e-10, atol=1e-10)


def test_trace_sees_what_float32_cannot() -> None:
    replicas, (inputs, targets) = pack("elman_linear", hidden_size=1), batch(200)
    replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"].fill_(0.05)
    trace = trace_gradients(replicas, replicas.flat_RP, inputs, targets)
    norms = trace.log10_norms[StateKey(0, "forward", "h")]
    slope = (norms[:, 0] - norms[:, -1]) / 199
    np.testing.assert_allclose(slope, math.log10(np.float32(0.05)), rtol=1e-9)
    assert norms.min() < -250  # float32 ends at -45


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_finite_differences_witness_a_right_gradient_and_a_wrong_one(cell: str) -> None:
    replicas, (inputs, targets) = pack(cell), batch(7)
    grad = trace_gradients(replicas, replicas.flat_RP, inputs, targets).grad_RP
    arguments = (replicas, replicas.flat_RP)
    assert finite_difference_error(*arguments, grad, inputs, targets).max() < 1e-7
    wrong = grad.clone()
    wrong[:, ::2] *= 1.1
    assert finite_difference_error(*arguments, wrong, inputs, targets).min() > 1e-3


def test_gradient_check_error_is_relative_and_zero_where_both_vanish() -> None:
    exact = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    fast = torch.tensor([[3.0, 4.5], [0.0, 0.0], [0.0, 1.0]])
    assert gradient_check_error(fast, exact).tolist() == [pytest.approx(0.1), 0.0, math.inf]
