"""Ω of the vanishing-gradient regulariser: against loops, autograd and finite differences, and in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pipeline.config import build
from pipeline.core.training.regularisation import (
    NoRegularisation,
    Regularisation,
    VanishingGradient,
    vanishing_gradient_penalty,
)
from pipeline.core.training.runtime import computing
from pipeline.errors import ConfigError

R, T, B, H = 3, 5, 4, 6


class Pass(NamedTuple):
    """dL/dh_t, W_hh and φ' of a backward pass; δ falls over time and is negligible for some."""

    delta_RTBH: Tensor
    weight_hh_RHH: Tensor
    derivative_RTBH: Tensor


@pytest.fixture
def backward() -> Pass:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    delta = draw(R, T, B, H) * 10.0 ** -torch.arange(T, dtype=torch.float64)[:, None, None]
    delta[0, 1, 2] = 0.0
    delta[1, 4] *= 1e-8  # ‖δ‖² about 1e-23, below the bound
    return Pass(delta, draw(R, H, H), 1 - torch.tanh(draw(R, T, B, H)).square())


def slow_omega(delta_TBH: Tensor, weight_hh_HH: Tensor, derivative_TBH: Tensor) -> Tensor:
    """Ω of one replica as the authors' code has it: a sum over timesteps of means over the batch, each apart."""
    total, count = weight_hh_HH.new_zeros(()), 0.0
    for delta_BH, derivative_BH in zip(delta_TBH, derivative_TBH, strict=True):
        terms, enough = [], 0
        for delta, derivative in zip(delta_BH, derivative_BH, strict=True):
            before = torch.diag(derivative) @ delta @ weight_hh_HH  # δ_t · ∂h_t/∂h_{t-1}
            if delta @ delta >= 1e-20:
                terms.append(((before @ before) / (delta @ delta) - 1) ** 2)
                enough += 1
        total = total + (sum(terms) / len(delta_BH) if terms else 0.0)
        count += enough / len(delta_BH)
    return total / count


def test_omega_and_its_gradient_against_loops_and_autograd(backward: Pass) -> None:
    weight = backward.weight_hh_RHH.clone().requires_grad_()
    expected = torch.stack([slow_omega(*parts) for parts in zip(backward[0], weight, backward[2], strict=True)])
    (expected_grad,) = torch.autograd.grad(expected.sum(), weight)
    omega, grad = vanishing_gradient_penalty(*backward)
    torch.testing.assert_close(omega, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-10)


def test_gradient_against_finite_differences(backward: Pass) -> None:
    _, grad = vanishing_gradient_penalty(*backward)
    step = 1e-6
    for i in range(H):
        for j in range(H):
            nudge = torch.zeros(H, H, dtype=torch.float64)
            nudge[i, j] = step
            above, _ = vanishing_gradient_penalty(backward[0], backward[1] + nudge, backward[2])
            below, _ = vanishing_gradient_penalty(backward[0], backward[1] - nudge, backward[2])
            torch.testing.assert_close((above - below) / (2 * step), grad[:, i, j], rtol=1e-6, atol=1e-6)


def test_deltas_of_a_real_network_make_the_jacobian_products_of_autograd() -> None:
    """δ_t from autograd through tanh; δ_t · ∂h_t/∂h_{t-1} is then what flows to t-1, less the loss's own share."""
    generator = torch.Generator().manual_seed(7)
    W = torch.randn(H, H, generator=generator, dtype=torch.float64) / math.sqrt(H)
    inputs = torch.randn(T, B, H, generator=generator, dtype=torch.float64)
    states = [torch.zeros(B, H, dtype=torch.float64, requires_grad=True)]
    for x_BH in inputs:
        states.append(torch.tanh(states[-1] @ W.T + x_BH))
    loss = states[-1].square().sum(dim=1).mean()  # at the last timestep alone: all else flows through time
    deltas = torch.stack(torch.autograd.grad(loss, states))
    ratios = deltas[:-1].square().sum(dim=2) / deltas[1:].square().sum(dim=2)
    derivative = 1 - torch.stack(states[1:]).detach().square()
    omega, _ = vanishing_gradient_penalty(deltas[None, 1:], W[None], derivative[None])
    assert omega.item() == pytest.approx((ratios - 1).square().mean().item(), rel=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_orthogonal_weights_and_a_linear_network_keep_the_norm_omega_and_gradient_are_0(
    backward: Pass, dtype: torch.dtype, tolerance: float
) -> None:
    rotation = torch.linalg.qr(backward.weight_hh_RHH).Q.to(dtype)
    delta = backward.delta_RTBH.to(dtype)
    omega, grad = vanishing_gradient_penalty(delta, rotation, torch.ones_like(delta))
    assert omega.abs().max() < tolerance**2
    assert grad.abs().max() < tolerance


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_scaled_rotation_in_closed_form(backward: Pass, gain: float) -> None:
    rotation = torch.linalg.qr(backward.weight_hh_RHH).Q
    delta = backward.delta_RTBH
    omega, grad = vanishing_gradient_penalty(delta, gain * rotation, torch.ones_like(delta))
    assert omega.tolist() == pytest.approx([(gain**2 - 1) ** 2] * R)
    along = (grad * rotation).sum(dim=(1, 2))  # dΩ/dgain
    assert along.tolist() == pytest.approx([4 * gain * (gain**2 - 1)] * R)


def test_float32_agrees_with_float64(backward: Pass) -> None:
    omega, grad = vanishing_gradient_penalty(*(part.float() for part in backward))
    expected, expected_grad = vanishing_gradient_penalty(*(part.float().double() for part in backward))
    assert (omega.dtype, grad.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(omega, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-5, atol=1e-5 * expected_grad.abs().max().item())


@pytest.mark.parametrize("size", [1e-9, 1e30, 3e38])
def test_only_directions_matter_also_at_sizes_whose_square_float32_cannot_hold(backward: Pass, size: float) -> None:
    delta = torch.nn.functional.normalize(backward.derivative_RTBH - 0.5, dim=3)
    expected = vanishing_gradient_penalty(delta.float(), backward[1].float(), backward[2].float())
    with computing(num_threads=1):  # as a trial does: what float32 holds as a denormal number is 0
        scaled = vanishing_gradient_penalty((size * delta).float(), backward[1].float(), backward[2].float())
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-4)


def test_where_no_gradient_arrives_omega_is_0(backward: Pass) -> None:
    delta = backward.delta_RTBH.clone()
    delta[1] = 0.0
    omega, grad = vanishing_gradient_penalty(delta, backward[1], backward[2])
    assert omega[1] == 0
    assert not grad[1].any()
    assert omega[[0, 2]].all()


def test_a_replica_in_a_pack_is_bit_for_bit_the_replica_alone(backward: Pass) -> None:
    packed = vanishing_gradient_penalty(*backward)
    for r in range(R):
        alone = vanishing_gradient_penalty(*(part[r : r + 1] for part in backward))
        assert all(torch.equal(a[r : r + 1], b) for a, b in zip(packed, alone, strict=True))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_is_seen_in_its_own_replica_alone(backward: Pass, bad: float) -> None:
    delta = backward.delta_RTBH.clone()
    delta[1, 2, 3, 4] = bad
    hurt, sound = vanishing_gradient_penalty(delta, backward[1], backward[2]), vanishing_gradient_penalty(*backward)
    for a, b in zip(hurt, sound, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
        assert a[1].isnan().all()


def test_variants_are_told_apart_by_name() -> None:
    assert build(Regularisation, {"name": "none"}, "a test") == NoRegularisation()
    made = build(Regularisation, {"name": "vanishing_gradient", "weight": 4}, "a test")
    assert made == VanishingGradient(weight=4.0)


@pytest.mark.parametrize("weight", [0, -4.0])
def test_a_weight_is_above_0(weight: float) -> None:
    with pytest.raises(ConfigError, match=rf"a test\.weight: expected a finite number above 0, got {weight:.1f}"):
        build(Regularisation, {"name": "vanishing_gradient", "weight": weight}, "a test")
