"""The largest singular value of W_hh and the gradient: tanh, whose slope is at most γ = 1, and the sigmoid, γ = ¼.

σ_max < 1/γ makes the gradient shrink at every timestep (sufficient for vanishing); σ_max > 1/γ does not make it
explode (necessary, not sufficient): a Gaussian W_hh of spectral radius .7 has σ_max near 1.4, and vanishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from pipeline.core.measures import recurrent_blocks, sigma_max, spectral_radius, trace_gradients
from pipeline.core.models import Replicas
from pipeline.core.models.initialisation import Orthogonal, ScaledGaussian, SpectralRadius
from pipeline.selftest.check import Check, at_most, relative
from pipeline.selftest.networks import F64, FIRST, draw, parameters, replicas_of

BOUNDS = (0.5, 0.95)
SIGMOID_BOUND = 3.9
RADIUS = 0.7
NUM_HIDDEN, NUM_TIMESTEPS = 256, 101
VANISHED = 1e-6
SOURCE = "Pascanu, Mikolov and Bengio (2013)"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    networks = cache(_networks)

    @cache
    def log10_norms() -> Tensor:
        replicas, flat_RP = networks()
        inputs, targets = draw(4, NUM_TIMESTEPS, 1), draw(4, 1, seed=1)
        return trace_gradients(replicas, flat_RP, inputs, targets).log10_norms[FIRST]

    def largest_factor(r: int) -> float:
        """Return the largest ‖δ_{t-1}‖ / ‖δ_t‖ of all timesteps."""
        return 10.0 ** -log10_norms()[r].diff().min().item()

    def left() -> float:
        return 10.0 ** (log10_norms()[-1, 0] - log10_norms()[-1, -1]).item()

    def gaussian() -> Tensor:
        (block_RHH,) = recurrent_blocks(*networks()).values()
        return block_RHH[-1:]

    for r, bound in enumerate(BOUNDS):
        name = f"singular values: largest ‖δ_t-1‖/‖δ_t‖, tanh, σ_max={bound:g}"
        yield Check(name, bound, partial(largest_factor, r), at_most(1e-12), SOURCE)
    name = f"singular values: largest ‖δ_t-1‖/‖δ_t‖, sigmoid, σ_max={SIGMOID_BOUND:g}, times γ = ¼"
    yield Check(name, SIGMOID_BOUND / 4, _largest_sigmoid_factor, at_most(1e-12), SOURCE)
    name = f"singular values: the same at h=0, W_hh={BOUNDS[-1]:g} · orthogonal"
    yield Check(name, BOUNDS[-1], partial(largest_factor, len(BOUNDS)), relative(1e-12), SOURCE)
    name = "singular values: spectral radius of a Gaussian W_hh"
    yield Check(name, RADIUS, lambda: spectral_radius(gaussian()).item(), relative(1e-12), SOURCE)
    name = "singular values: its σ_max, near 2 · radius"
    yield Check(name, 2 * RADIUS, lambda: sigma_max(gaussian()).item(), relative(0.05), SOURCE)
    name = "singular values: its ‖δ_T-100‖/‖δ_T‖ vanishes all the same"
    yield Check(name, VANISHED, left, at_most(), SOURCE)


def _largest_sigmoid_factor() -> float:
    """Return the largest ‖δ_{t-1}‖ / ‖δ_t‖ of a sigmoid network whose σ_max lies just below 1/γ = 4."""
    W_hh = torch.empty(1, NUM_HIDDEN, NUM_HIDDEN, dtype=F64)
    Orthogonal(gain=SIGMOID_BOUND).fill(W_hh[0], torch.Generator().manual_seed(0))
    replicas = replicas_of("elman_sigmoid", NUM_HIDDEN)
    flat_RP = parameters(replicas, W_hh=W_hh, W_ih=draw(NUM_HIDDEN, 1, seed=2), readout=draw(1, NUM_HIDDEN, seed=3))
    trace = trace_gradients(replicas, flat_RP, draw(4, NUM_TIMESTEPS, 1), draw(4, 1, seed=1))
    norms_RT = trace.log10_norms[FIRST]
    return 10.0 ** -norms_RT[0].diff().min().item()


def _networks() -> tuple[Replicas, Tensor]:
    """Return a Gaussian network for each of `BOUNDS`, an orthogonal one that stays at h = 0, one of a given radius."""
    start, matrices = torch.Generator().manual_seed(0), torch.empty(len(BOUNDS) + 2, NUM_HIDDEN, NUM_HIDDEN, dtype=F64)
    for W_hh, bound in zip(matrices, BOUNDS, strict=False):
        ScaledGaussian(gain=1.0).fill(W_hh, start)
        W_hh *= bound / sigma_max(W_hh[None])
    Orthogonal(gain=BOUNDS[-1]).fill(matrices[-2], start)
    SpectralRadius(radius=RADIUS).fill(matrices[-1], start)
    replicas = replicas_of("elman", NUM_HIDDEN, num_replicas=len(matrices))
    W_ih, readout = draw(NUM_HIDDEN, 1, seed=2).repeat(len(matrices), 1, 1) / 10, draw(1, NUM_HIDDEN, seed=3)
    W_ih[-2] = 0.0
    return replicas, parameters(replicas, W_hh=matrices, W_ih=W_ih, readout=readout)
