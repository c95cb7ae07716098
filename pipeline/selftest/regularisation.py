"""The vanishing-gradient regulariser Ω: an orthogonal W_hh and a linear φ keep ‖δ_t‖, so it is 0, and flat there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch

from pipeline.core.models.initialisation import Orthogonal
from pipeline.core.training.regularisation import VanishingGradient
from pipeline.selftest.check import Check, absolute, relative
from pipeline.selftest.networks import F64, draw, parameters, replicas_of

NUM_HIDDEN, NUM_TIMESTEPS = 16, 30
WEIGHT = 4.0
GAIN = 0.5
SOURCE = "Pascanu, Mikolov and Bengio (2013), Ω"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    penalty = cache(_penalty)
    yield Check("regulariser: Ω of an orthogonal linear network", 0.0, lambda: penalty(1.0)[0], absolute(1e-24), SOURCE)
    name = "regulariser: norm of its gradient"
    yield Check(name, 0.0, lambda: penalty(1.0)[1], absolute(1e-12), SOURCE)
    name = f"regulariser: Ω of {GAIN:g} times such a network, (g² - 1)²"
    yield Check(name, (GAIN**2 - 1) ** 2, lambda: penalty(GAIN)[0], relative(1e-12), SOURCE)


def _penalty(gain: float) -> tuple[float, float]:
    """Return Ω, and the norm of what it adds to the gradient, of a linear network whose W_hh is gain · orthogonal."""
    replicas = replicas_of("elman_linear", NUM_HIDDEN)
    W_hh = torch.empty(NUM_HIDDEN, NUM_HIDDEN, dtype=F64)
    Orthogonal(gain=gain).fill(W_hh, torch.Generator().manual_seed(0))
    flat_RP = parameters(replicas, W_hh=W_hh, W_ih=draw(NUM_HIDDEN, 1), readout=draw(1, NUM_HIDDEN, seed=1))
    inputs, targets = draw(1, 4, NUM_TIMESTEPS, 1), draw(1, 4, 1, seed=1)
    run = replicas.backpropagate(flat_RP, inputs, targets, trace=True)
    grad_RP, told = VanishingGradient("vanishing_gradient", WEIGHT).penalise(replicas, flat_RP, run)
    return told["omega"].item(), (grad_RP - run.grad_RP).norm().item()
