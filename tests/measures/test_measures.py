"""Each measure against a slow twin or a case with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.measures import (
    certificate_error,
    eigenvalues,
    finite_difference_error,
    locate,
    log_spaced_steps,
    recurrent_blocks,
    sigma_max,
    spectral_radius,
    trace_gradients,
)
from pipeline.models import Interface, Replicas, SequenceModel, count_parameters, loss

REAL = Interface("real", 2, "last", "value", 1)


def pack(cell: str, num_replicas: int = 3, hidden_size: int = 4, interface: Interface = REAL) -> Replicas:
    return Replicas([SequenceModel(interface, cell, hidden_size, None, seed) for seed in range(num_replicas)])


def batch(num_timesteps: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(5, num_timesteps, 2, generator=generator), torch.rand(5, 1, generator=generator)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_trace_equals_the_jacobian_of_the_loss_in_each_state(cell: str) -> None:
    replicas, (inputs, targets) = pack(cell), batch(7)
    trace = trace_gradients(replicas, replicas.flat_RP, inputs, targets)
    for r in range(replicas.num_replicas):
        parameters = {name: view[r].double() for name, view in replicas.named(replicas.flat_RP).items()}

        def of_taps(*taps: torch.Tensor, parameters: dict[str, torch.Tensor] = parameters) -> torch.Tensor:
            from pipeline.cells.layer import States

            call = (inputs.double(), States(*taps))
            return loss(REAL, torch.func.functional_call(replicas.model, parameters, call), targets)

        zeros = tuple(torch.zeros(7, 5, 4, dtype=torch.float64) for _ in replicas.model.state_names)
        jacobians = torch.autograd.functional.jacobian(of_taps, zeros)
        for name, jacobian in zip(replicas.model.state_names, jacobians, strict=True):
            expected = jacobian.flatten(1).norm(dim=1).log10()
            torch.testing.assert_close(trace.log10_norms[name][r], expected, rtol=1e-10, atol=1e-10)


def test_trace_sees_what_float32_cannot() -> None:
    replicas, (inputs, targets) = pack("elman_linear", hidden_size=1), batch(200)
    replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"].fill_(0.05)
    norms = trace_gradients(replicas, replicas.flat_RP, inputs, targets).log10_norms["h"]
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


def test_certificate_error_is_relative_and_zero_where_both_vanish() -> None:
    exact = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    fast = torch.tensor([[3.0, 4.5], [0.0, 0.0], [0.0, 1.0]])
    assert certificate_error(fast, exact).tolist() == [pytest.approx(0.1), 0.0, math.inf]


def test_spectrum_of_known_matrices() -> None:
    rotation = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    shear = torch.tensor([[0.5, 3.0], [0.0, -0.25]])
    block = torch.stack([rotation, shear]).double()
    assert spectral_radius(block).tolist() == pytest.approx([2.0, 0.5])
    assert sigma_max(block).tolist() == pytest.approx([2.0, np.linalg.norm(shear, 2)])
    values = eigenvalues(block)
    assert values[0].tolist() == pytest.approx([-2j, 2j])
    assert values[1].tolist() == pytest.approx([0.5, -0.25])


@pytest.mark.parametrize(("cell", "gates"), [("elman", "h"), ("lstm", "ifgo"), ("gru", "rzn")])
def test_blocks_are_the_gates_of_weight_hh_in_order(cell: str, gates: str) -> None:
    replicas = pack(cell)
    blocks = recurrent_blocks(replicas, replicas.flat_RP)
    assert list(blocks) == list(gates)
    weight = replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"]
    torch.testing.assert_close(torch.cat(list(blocks.values()), dim=1), weight.double(), rtol=0, atol=0)


def test_overflow_is_located_at_the_timestep_where_the_backward_pass_meets_it() -> None:
    replicas, (inputs, targets) = pack("elman_linear", hidden_size=1), batch(30)
    with torch.no_grad():
        replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"][1] = 1e4
    place = locate(replicas, replicas.flat_RP, inputs.expand(3, -1, -1, -1), targets.expand(3, -1, -1), replica=1)
    assert place.quantity == "grad_h"
    assert place.timestep == 30  # the state itself has overflowed by then
    assert place.num_nonfinite > 0
    healthy = locate(replicas, replicas.flat_RP, inputs.expand(3, -1, -1, -1), targets.expand(3, -1, -1), replica=0)
    assert healthy == (None, "loss", 0)


def test_a_bad_parameter_gradient_is_named() -> None:
    replicas, (inputs, targets) = pack("elman"), batch(5)
    replicas.named(replicas.flat_RP)["recurrent.weight_hh_l0"].fill_(0.0)
    inputs[0, 0, 0] = math.inf  # tanh saturates: every state is finite, dL/dW_ih is inf times 0
    place = locate(replicas, replicas.flat_RP, inputs.expand(3, -1, -1, -1), targets.expand(3, -1, -1), replica=0)
    assert place.timestep is None
    assert place.quantity == "recurrent.weight_ih_l0"


@pytest.mark.parametrize(
    ("max_steps", "num_traces", "expected"),
    [(100, 2, (0, 100)), (100, 4, (0, 4, 21, 100)), (3, 10, (0, 1, 2, 3))],
)
def test_log_spaced_steps(max_steps: int, num_traces: int, expected: tuple[int, ...]) -> None:
    assert log_spaced_steps(max_steps, num_traces) == expected


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
@pytest.mark.parametrize("embedding_size", [None, 3])
def test_parameters_are_counted_without_making_them(cell: str, embedding_size: int | None) -> None:
    interface = Interface("token", 7, "every", "class", 7)
    model = SequenceModel(interface, cell, 5, embedding_size, 0)
    assert count_parameters(interface, cell, 5, embedding_size) == sum(p.numel() for p in model.parameters())
