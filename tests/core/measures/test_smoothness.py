"""Smoothness of a loss whose Hessian is known, and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.core.measures.gradients import local_smoothness
from pipeline.core.models import loss
from tests.core.measures.packs import REAL, batch, pack


def test_along_the_readouts_bias_the_loss_is_quadratic() -> None:
    """L = ⟨(v·h + c - y)²⟩: a change of c alone changes the gradient by 2 ∂⟨v·h + c⟩/∂θ for each unit of it."""
    replicas, (inputs, targets) = pack("elman"), batch(6)
    before_RP = replicas.flat_RP.double()
    after_RP = before_RP.clone()
    replicas.named(after_RP)["readout.bias"].add_(0.7)
    found = local_smoothness(replicas, before_RP, after_RP, inputs, targets)
    leaf_RP = before_RP.clone().requires_grad_()
    means_R = replicas.predict(replicas.named(leaf_RP), inputs.double()).mean(dim=(1, 2))
    (slope_RP,) = torch.autograd.grad(means_R.sum(), leaf_RP)
    torch.testing.assert_close(found, 2 * slope_RP.norm(dim=1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_a_short_update_shows_the_hessian_along_it(cell: str) -> None:
    replicas, (inputs, targets) = pack(cell), batch(6)
    before_RP = replicas.flat_RP.double()
    direction_RP = torch.randn(before_RP.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = local_smoothness(replicas, before_RP, before_RP + 1e-6 * direction_RP, inputs, targets)
    for r in range(3):

        def of_flat(flat_P: torch.Tensor) -> torch.Tensor:
            parameters = {name: view[0] for name, view in replicas.named(flat_P[None]).items()}
            predicted = torch.func.functional_call(replicas.model, parameters, (inputs.double(),)).values
            return loss(REAL, predicted, targets.double())

        def gradient(
            offset: float, start: torch.Tensor = before_RP[r], along: torch.Tensor = direction_RP[r]
        ) -> torch.Tensor:
            at = (start + offset * along).requires_grad_()
            return torch.autograd.grad(of_flat(at), at)[0]

        product = (gradient(1e-4) - gradient(-1e-4)) / 2e-4
        expected = product.norm() / direction_RP[r].norm()
        assert found[r].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_largest_of_the_fractions_counts() -> None:
    replicas, (inputs, targets) = pack("elman", hidden_size=6), batch(12)
    before_RP = replicas.flat_RP.double()
    after_RP = before_RP * 3
    start = replicas.backpropagate(before_RP, inputs.double(), targets, shared=True).grad_RP
    values = []
    for sixths in range(1, 6):
        between = before_RP * (1 + 2 * sixths / 6)
        change = replicas.backpropagate(between, inputs.double(), targets, shared=True).grad_RP - start
        values.append(change.norm(dim=1) / (before_RP.norm(dim=1) * 2 * sixths / 6))
    found = local_smoothness(replicas, before_RP, after_RP, inputs, targets)
    torch.testing.assert_close(found, torch.stack(values).amax(dim=0), rtol=1e-10, atol=0)


def test_an_update_of_length_zero_and_one_that_overflows_say_nothing() -> None:
    replicas, (inputs, targets) = pack("elman"), batch(6)
    before_RP = replicas.flat_RP.double()
    after_RP = before_RP + 0.1
    after_RP[0] = before_RP[0]
    after_RP[1, 3] = math.inf
    found = local_smoothness(replicas, before_RP, after_RP, inputs, targets)
    assert found.isnan().tolist() == [True, True, False]
