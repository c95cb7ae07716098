"""Spectra that are known, and the exponent of random networks by two roads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.core.measures.lyapunov import (
    log_stretches,
    lyapunov_spectrum,
    mean_field_exponent,
    random_network_jacobians,
)

F64 = torch.float64


def random_matrices(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64) / math.sqrt(shape[-1])


def test_orthogonal_jacobians_have_no_exponent() -> None:
    spectrum = lyapunov_spectrum(torch.linalg.qr(random_matrices(2, 50, 3, 5, 5)).Q)
    assert spectrum.exponents_RM.abs().max() < 1e-14
    assert spectrum.running_RKM.shape == (2, 50, 5)


@pytest.mark.parametrize("a", [0.3, -0.9, 2.0])
def test_a_scalar_network(a: float) -> None:
    spectrum = lyapunov_spectrum(torch.full((1, 40, 2, 1, 1), a, dtype=F64), timesteps=[1, 40])
    assert spectrum.timesteps == (1, 40)
    torch.testing.assert_close(spectrum.running_RKM, torch.full((1, 2, 1), math.log(abs(a)), dtype=F64))
    assert spectrum.standard_error_RM.item() < 1e-15


def test_a_diagonal_network_is_sorted() -> None:
    spectrum = lyapunov_spectrum(torch.diag(torch.tensor([0.5, 2.0, -0.1], dtype=F64)).expand(1, 30, 2, 3, 3))
    assert spectrum.exponents_RM[0].tolist() == pytest.approx([math.log(2.0), math.log(0.5), math.log(0.1)])


def test_the_exponents_sum_to_the_mean_log_determinant() -> None:
    jacobians = random_matrices(2, 60, 3, 6, 6)
    spectrum = lyapunov_spectrum(jacobians, burn_in=10, timesteps=[20, 60])
    log_determinant = jacobians.det().abs().log()
    sums = spectrum.running_RKM.sum(dim=2)
    torch.testing.assert_close(sums[:, 0], log_determinant[:, 10:20].mean(dim=(1, 2)), rtol=1e-10, atol=0)
    torch.testing.assert_close(spectrum.exponents_RM.sum(dim=1), log_determinant[:, 10:].mean(dim=(1, 2)))
    torch.testing.assert_close(spectrum.running_RKM[:, 1], spectrum.exponents_RM, rtol=0, atol=0)
    assert (spectrum.exponents_RM.diff(dim=1) <= 0).all()


def test_exponents_and_standard_errors_equal_those_of_a_loop_of_qr() -> None:
    jacobians = random_matrices(1, 12, 4, 3, 3, seed=1)
    sums = []
    for b in range(4):
        Q, total = np.eye(3), np.zeros(3)
        for jacobian in jacobians[0, :, b].numpy():
            Q, upper = np.linalg.qr(jacobian @ Q)
            total += np.log(np.abs(np.diag(upper)))
        sums.append(total / 12)
    order = np.argsort(-np.mean(sums, axis=0))
    spectrum = lyapunov_spectrum(jacobians)
    np.testing.assert_allclose(spectrum.exponents_RM[0], np.mean(sums, axis=0)[order], rtol=1e-10)
    expected = np.std(sums, axis=0, ddof=1)[order] / 2
    np.testing.assert_allclose(spectrum.standard_error_RM[0], expected, rtol=1e-10)


def test_the_largest_exponents_do_not_need_the_others() -> None:
    jacobians = random_matrices(1, 25, 2, 5, 5)
    few, all_of_them = log_stretches(jacobians[0], 2), log_stretches(jacobians[0])
    torch.testing.assert_close(few, all_of_them[:, :, :2], rtol=1e-10, atol=1e-12)


def test_a_replica_in_a_pack_equals_the_replica_alone() -> None:
    jacobians = random_matrices(3, 20, 2, 5, 5)
    packed, alone = lyapunov_spectrum(jacobians), lyapunov_spectrum(jacobians[1:2])
    assert torch.equal(packed.exponents_RM[1:2], alone.exponents_RM)


def test_one_example_has_no_standard_error_and_a_dead_unit_no_finite_exponent() -> None:
    jacobians = random_matrices(1, 20, 1, 4, 4)
    jacobians[0, 7, 0, 2] = 0.0
    spectrum = lyapunov_spectrum(jacobians)
    assert spectrum.standard_error_RM.isnan().all()
    assert spectrum.exponents_RM[0, -1] < -1.0
    jacobians[0, 7] = 0.0
    assert lyapunov_spectrum(jacobians).exponents_RM.isneginf().all()
    jacobians[0, 7] = math.nan
    assert lyapunov_spectrum(jacobians).exponents_RM.isnan().all()


@pytest.mark.parametrize(("burn_in", "timesteps"), [(20, None), (-1, None), (5, [5]), (0, [21])])
def test_timesteps_out_of_range_are_refused(burn_in: int, timesteps: list[int] | None) -> None:
    with pytest.raises(ValueError, match="expected 0 <= burn_in < timesteps <= 20"):
        lyapunov_spectrum(random_matrices(1, 20, 1, 2, 2), burn_in=burn_in, timesteps=timesteps)


def test_the_jacobians_of_the_random_network_are_its_derivatives() -> None:
    coupling, x = random_matrices(5, 5), random_matrices(5)
    expected = []
    for _ in range(3):
        expected.append(torch.autograd.functional.jacobian(lambda x: coupling @ torch.tanh(x), x))
        x = coupling @ torch.tanh(x)
    found = torch.cat(list(random_network_jacobians(coupling, random_matrices(5), 3)))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-15)


def test_mean_field_theory_agrees_with_sampling_and_with_its_limits() -> None:
    assert mean_field_exponent(0.5) == pytest.approx(math.log(0.5))
    assert mean_field_exponent(1.0) == pytest.approx(0.0)
    epsilon = 1e-3  # q ≈ (g² - 1)/2g⁴ and ⟨tanh'²⟩ ≈ 1 - 2q: λ_1 ≈ ε - ε
    assert abs(mean_field_exponent(1 + epsilon)) < 10 * epsilon**2
    z = np.random.default_rng(0).standard_normal(1_000_000)
    q = 1.0
    for _ in range(30):  # each step leaves a third of the distance to the fixed point, or less
        q = 9.0 * np.mean(np.tanh(math.sqrt(q) * z) ** 2)
    sampled = 0.5 * math.log(9.0 * np.mean((1 - np.tanh(math.sqrt(q) * z) ** 2) ** 2))
    assert mean_field_exponent(3.0) == pytest.approx(sampled, abs=3e-3)
