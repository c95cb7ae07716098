"""Random networks x ← J tanh(x), J ~ N(0, g²/N): the largest exponent against mean-field theory, λ_1 = ½ ln χ_1.

Measured values lie below it and approach it as N grows: a few percent are left at N = 1000 (at N = 400 still 11 % for
g = 1.5, where the exponent itself is small). The Elman network h ← tanh(J h) is the same one seen through its rates,
h = tanh(x): its exponents are those of x.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from pipeline.core.measures import log_stretches, lyapunov_spectrum, mean_field_exponent, random_network_jacobians
from pipeline.core.models.initialisation import ScaledGaussian
from pipeline.selftest.check import Check, absolute, at_most, relative
from pipeline.selftest.networks import F64, draw, first_unit, jacobians_of, parameters, replicas_of

GAINS = (1.5, 2.5)
FEW, MANY = 100, 1000
NUM_NETWORKS = {FEW: 8, MANY: 3}
NUM_TIMESTEPS, BURN_IN = 500, 100
A_FEW_PERCENT = 0.08
NUM_ELMAN = 3
SOURCE = "Sompolinsky, Crisanti and Sommers (1988); Molgedey, Schuchhardt and Schuster (1992)"


def checks() -> Iterator[Check]:
    """Yield the checks."""

    @cache
    def measured(gain: float, num_units: int) -> float:
        return _exponents(gain, num_units, NUM_NETWORKS[num_units]).mean().item()

    def distances_ratio(gain: float) -> float:
        theory = mean_field_exponent(gain)
        return abs(measured(gain, MANY) - theory) / abs(measured(gain, FEW) - theory)

    for gain in GAINS:
        theory = mean_field_exponent(gain)
        name = f"random network: λ_1 against ½ ln χ_1, g={gain:g}, N={MANY}"
        yield Check(name, theory, partial(measured, gain, MANY), relative(A_FEW_PERCENT), SOURCE)
        name = f"random network: λ_1 is below ½ ln χ_1, g={gain:g}, N={FEW}"
        yield Check(name, theory, partial(measured, gain, FEW), at_most(), SOURCE)
        name = f"random network: distance to it, N={MANY} over N={FEW}, g={gain:g}"
        yield Check(name, 0.5, partial(distances_ratio, gain), at_most(), SOURCE)
    name = f"random network: λ_1 of the Elman network less that of x, N={FEW}"
    yield Check(name, 0.0, partial(_elman_difference, GAINS[-1]), absolute(0.01), SOURCE)


def _coupling(gain: float, num_units: int, seed: int) -> Tensor:
    coupling = torch.empty(num_units, num_units, dtype=F64)
    ScaledGaussian(gain=gain).fill(coupling, torch.Generator().manual_seed(seed))
    return coupling


def _start(num_units: int, seed: int) -> Tensor:
    return draw(num_units, seed=seed + 1000)


def _exponents(gain: float, num_units: int, num_networks: int) -> Tensor:
    """Return λ_1 of every network, (networks,)."""
    exponents = []
    for seed in range(num_networks):
        coupling, start = _coupling(gain, num_units, seed), _start(num_units, seed)
        jacobians = random_network_jacobians(coupling, start, NUM_TIMESTEPS)
        exponents.append(log_stretches(jacobians, 1)[BURN_IN:].mean())
    return torch.stack(exponents)


def _elman_difference(gain: float) -> float:
    """Return by how much λ_1 differs, mean over networks: the Elman network's first input brings it to tanh(x_0)."""
    replicas = replicas_of("elman", FEW, num_replicas=NUM_ELMAN)
    W_hh = torch.stack([_coupling(gain, FEW, seed) for seed in range(NUM_ELMAN)])
    W_ih = torch.stack([_start(FEW, seed) for seed in range(NUM_ELMAN)])[:, :, None]
    flat_RP = parameters(replicas, W_hh=W_hh, W_ih=W_ih, readout=first_unit(FEW))
    inputs = torch.zeros(1, NUM_TIMESTEPS, 1, dtype=F64)
    inputs[:, 0] = 1.0
    spectrum = lyapunov_spectrum(jacobians_of(replicas, flat_RP, inputs), burn_in=BURN_IN, num_exponents=1)
    return (spectrum.exponents_RM[:, 0] - _exponents(gain, FEW, NUM_ELMAN)).mean().item()
