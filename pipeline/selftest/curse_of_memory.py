"""The curse of memory: h_t = λ h_{t-1} + x_t on a stationary AR(1) input of unit variance and correlation ρ.

    E[h²]        = (1 + ρλ) / ((1 - ρλ)(1 - λ²))
    E[(dh/dλ)²]  = [(1 + λ²)(1 - λ²ρ²) + 2 (1 - λ²) λρ] / [(1 - λ²)³ (1 - λρ)²]

Nothing is sampled: h_T and dh_T/dλ are linear in the inputs, so what they make of a unit impulse at each timestep, r,
gives rᵀ C r with C_ij = ρ^|i-j|. One replica an impulse.

Source: Zucchet and Orvieto (2024), «Recurrent neural networks: vanishing and exploding gradients are not the end of
the story».
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.models import Replicas
from pipeline.selftest.check import Check, as_printed, relative
from pipeline.selftest.networks import F64, answer_gradient, parameters, replicas_of

PRINTED = {0.0: ("50.25", "2.513e5"), 0.9: ("871.8", "4.738e6")}
"""E[h²] and E[(dh/dλ)²] at λ = .99, by ρ."""
LONG, SHORT = 0.99, 0.9
CUT_OFF = 1e-14
"""λ^2T is this: with T² before it, what earlier timesteps would add is below 1e-6 of either number."""
SOURCE = "Zucchet and Orvieto (2024), curse of memory"


class Responses(NamedTuple):
    """What is left of a unit impulse at each timestep: of h_T and of dh_T/dλ, (T,) each."""

    state: Tensor
    derivative: Tensor


def checks() -> Iterator[Check]:
    """Yield the checks."""
    responses = cache(_responses)

    def second_moment(memory: float, correlation: float, quantity: str) -> float:
        response: Tensor = getattr(responses(memory), quantity)
        index = torch.arange(len(response))
        covariance = torch.pow(torch.tensor(correlation, dtype=F64), (index[:, None] - index).abs())
        return (response @ covariance @ response).item()

    for memory in (LONG, SHORT):
        for correlation, printed in PRINTED.items():
            exact = _state_moment(memory, correlation), _derivative_moment(memory, correlation)
            for label, quantity, value, text in zip(
                ("E[h²]", "E[(dh/dλ)²]"), Responses._fields, exact, printed, strict=True
            ):
                name = f"curse of memory: {label}, λ={memory:g}, ρ={correlation:g}"
                measure = partial(second_moment, memory, correlation, quantity)
                if memory == LONG:
                    expected, tolerance = as_printed(text)
                    yield Check(f"{name}, as printed", expected, measure, tolerance, SOURCE)
                yield Check(name, value, measure, relative(1e-6), SOURCE)


def _state_moment(memory: float, correlation: float) -> float:
    product = memory * correlation
    return (1 + product) / ((1 - product) * (1 - memory**2))


def _derivative_moment(memory: float, correlation: float) -> float:
    product, left = memory * correlation, 1 - memory**2
    return ((1 + memory**2) * (1 - product**2) + 2 * left * product) / (left**3 * (1 - product) ** 2)


def _responses(memory: float) -> Responses:
    num_timesteps = math.ceil(math.log(CUT_OFF) / (2 * math.log(memory)))
    replicas = Replicas([replicas_of("elman_linear", 1).model] * num_timesteps)
    one = torch.ones(1, 1, dtype=F64)
    flat_RP = parameters(replicas, W_hh=memory * one, W_ih=one, readout=one)
    impulses_R1TD = torch.eye(num_timesteps, dtype=F64)[:, None, :, None]
    (h_R1H,) = replicas.advance(replicas.named(flat_RP), impulses_R1TD)
    grad_RP = answer_gradient(replicas, flat_RP, impulses_R1TD)
    return Responses(h_R1H[:, 0, 0], replicas.named(grad_RP)["recurrent.weight_hh_l0"][:, 0, 0])
