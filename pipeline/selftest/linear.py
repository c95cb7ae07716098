"""Linear networks: h_t = W h_{t-1} + x_t with the loss on h_T, where ∂L/∂h_{T-k} = (Wᵏ)ᵀ ∂L/∂h_T.

A scalar a gives |a|^k and the exponent ln |a|; an orthogonal W keeps every norm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from pipeline.core.measures import lyapunov_spectrum, singular_values_by_lag, trace_gradients
from pipeline.core.models import Replicas
from pipeline.core.models.initialisation import Orthogonal
from pipeline.selftest.check import Check, absolute, relative
from pipeline.selftest.networks import F64, FIRST, draw, jacobians_of, parameters, replicas_of

FACTORS = (0.5, -0.9, 1.1)
LAGS = (10, 100)
FAR = 980
"""|0.5|^980 is 1e-295: near the end of float64, where float32 and squares of float64 are 0."""
NUM_HIDDEN = 16
NUM_TIMESTEPS = 101
CLOSED_FORM = "closed form: a product of Jacobians"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    yield from _scalar()
    yield from _orthogonal()


def _scalar() -> Iterator[Check]:
    replicas = replicas_of("elman_linear", 1, num_replicas=len(FACTORS))
    a_R11 = torch.tensor(FACTORS, dtype=F64)[:, None, None]
    flat_RP = parameters(replicas, W_hh=a_R11, W_ih=torch.ones(1, 1), readout=torch.ones(1, 1))
    inputs = draw(2, FAR + 1, 1)

    @cache
    def log10_norms(num_timesteps: int) -> Tensor:
        return _log10_norms(replicas, flat_RP, inputs[:, :num_timesteps])

    def ratio(r: int, lag: int, num_timesteps: int = NUM_TIMESTEPS) -> float:
        norms = log10_norms(num_timesteps)[r]
        return 10.0 ** (norms[-1 - lag] - norms[-1]).item()

    @cache
    def exponents() -> Tensor:
        return lyapunov_spectrum(jacobians_of(replicas, flat_RP, inputs[:, :NUM_TIMESTEPS])).exponents_RM

    def exponent(r: int) -> float:
        return exponents()[r, 0].item()

    for r, a in enumerate(FACTORS):
        for lag in LAGS:
            name = f"scalar linear: ‖∂L/∂h_T-k‖/‖∂L/∂h_T‖, a={a:g}, k={lag}"
            yield Check(name, abs(a) ** lag, partial(ratio, r, lag), relative(1e-11), CLOSED_FORM)
        name = f"scalar linear: Lyapunov exponent, a={a:g}"
        yield Check(name, math.log(abs(a)), partial(exponent, r), relative(1e-11), CLOSED_FORM)
    name = f"scalar linear: ‖∂L/∂h_T-k‖/‖∂L/∂h_T‖, a={FACTORS[0]:g}, k={FAR}"
    yield Check(name, FACTORS[0] ** FAR, partial(ratio, 0, FAR, FAR + 1), relative(1e-11), CLOSED_FORM)


def _orthogonal() -> Iterator[Check]:
    replicas = replicas_of("elman_linear", NUM_HIDDEN)
    W_hh = torch.empty(NUM_HIDDEN, NUM_HIDDEN, dtype=F64)
    Orthogonal(gain=1.0).fill(W_hh, torch.Generator().manual_seed(1))
    flat_RP = parameters(replicas, W_hh=W_hh, W_ih=draw(NUM_HIDDEN, 1), readout=draw(1, NUM_HIDDEN, seed=1))
    inputs = draw(2, NUM_TIMESTEPS, 1)

    def largest_change() -> float:
        norms_RT = _log10_norms(replicas, flat_RP, inputs)
        return (norms_RT - norms_RT[:, -1:]).abs().max().item()

    @cache
    def jacobians() -> Tensor:
        return jacobians_of(replicas, flat_RP, inputs)

    def largest_exponent() -> float:
        return lyapunov_spectrum(jacobians()).exponents_RM.abs().max().item()

    @cache
    def singular_values() -> dict[str, Tensor]:
        return singular_values_by_lag(jacobians(), [NUM_TIMESTEPS - 1])

    def singular_value(quantity: str) -> float:
        return 10.0 ** singular_values()[quantity].item()

    name = "orthogonal linear: largest change of log10 ‖∂L/∂h_t‖"
    yield Check(name, 0.0, largest_change, absolute(1e-12), CLOSED_FORM)
    name = "orthogonal linear: largest of all |Lyapunov exponents|"
    yield Check(name, 0.0, largest_exponent, absolute(1e-12), CLOSED_FORM)
    for quantity in ("largest", "median", "smallest"):
        name = f"orthogonal linear: {quantity} singular value of ∂h_T/∂h_T-100"
        yield Check(name, 1.0, partial(singular_value, quantity), relative(1e-11), CLOSED_FORM)


def _log10_norms(replicas: Replicas, flat_RP: Tensor, inputs: Tensor) -> Tensor:
    """Return log10 ‖∂L/∂h_t‖, (R, T)."""
    targets = torch.full((len(inputs), 1), 1e3, dtype=F64)  # far from every answer: no loss is near 0
    return trace_gradients(replicas, flat_RP, inputs, targets).log10_norms[FIRST]
