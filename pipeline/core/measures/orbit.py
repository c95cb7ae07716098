"""What a network that generates goes on to do when nobody corrects it: its orbit beside that of the series.

A chaotic series cannot be predicted for long, so squared errors far ahead say little: they are least for a network that
has gone to rest at the mean. What can be learnt is where orbits go, how often, and how fast they part.

Shapes: R replicas, T timesteps, B orbits, D numbers of the series, H hidden, K bins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.cells import Weights
from pipeline.core.cells.stack import unstack_states
from pipeline.core.measures.jacobians import step_jacobians
from pipeline.core.measures.lyapunov import lyapunov_spectrum
from pipeline.core.models import Replicas, RunOptions
from pipeline.core.models.network import FREE

BINS_PER_NUMBER, MAX_NUMBERS = 15, 3
NUM_ORBITS, NUM_BURNT, NUM_KEPT = 40, 100, 500
NUM_STRETCHED = 4
"""Orbits along which Jacobians are multiplied."""
PRIOR = 1e-6
"""Counts of a bin that no point fell into."""


class Orbit(NamedTuple):
    """Of every replica.

    Attributes:
        divergence_R: `state_space_divergence` of its orbits from the series, in nats.
        exponent_R: The largest Lyapunov exponent of its recurrence along them, in nats per timestep.
    """

    divergence_R: Tensor
    exponent_R: Tensor


@torch.no_grad()
def free_orbits(replicas: Replicas, flat_RP: Tensor, series_BTD: Tensor) -> Orbit:
    """Return what replicas do from the beginnings of some sequences on, never forced, in float64.

    The first `NUM_BURNT` timesteps do not count.

    Args:
        replicas: Of networks that generate, one layer.
        flat_RP: Parameters.
        series_BTD: The series; its first `NUM_ORBITS` sequences are the beginnings.
    """
    first = series_BTD[:NUM_ORBITS, :1].double()
    inputs = first.expand(-1, NUM_BURNT + NUM_KEPT, -1)
    exact_RP = flat_RP.double()
    said_RBTD, _, states = replicas.unroll(replicas.named(exact_RP), inputs, RunOptions(forcing=FREE))
    kept_RND = said_RBTD[:, :, NUM_BURNT:].flatten(1, 2)
    points_ND = series_BTD.double().flatten(0, 1)
    (place,) = replicas.model.stacks["recurrent"].places
    cell = replicas.model.stacks["recurrent"].cell
    weights = Weights(*replicas.weights(exact_RP, place))
    (mine,) = unstack_states([state[:, :, :NUM_STRETCHED] for state in states], cell)
    nothing = torch.zeros_like(inputs[:NUM_STRETCHED]).transpose(0, 1).expand(len(flat_RP), -1, -1, -1)
    jacobians = step_jacobians(cell, weights, nothing, mine.tensors())
    spectrum = lyapunov_spectrum(jacobians, burn_in=NUM_BURNT, num_exponents=1, timesteps=[len(nothing[0])])
    divergence = [state_space_divergence(points_ND, generated_ND) for generated_ND in kept_RND]
    return Orbit(torch.stack(divergence), spectrum.exponents_RM[:, 0])


def state_space_divergence(points_ND: Tensor, generated_ND: Tensor, bins: int = BINS_PER_NUMBER) -> Tensor:
    """Return the Kullback-Leibler divergence of where generated points lie from where those of a series do, in nats.

        D = Σ_k p_k ln(p_k / q_k),   p, q: shares of the points of series and orbit in bin k

    over `bins` bins a number between the least and the greatest that the series has. Generated points outside lie in no
    bin; one that no generated point lies in counts as if `PRIOR` of a point did.

    Source: Koppe, Toutounji, Kirsch, Lis and Durstewitz (2019), D_stsp; as Mikhaeil et al. (2022) use it.
    """
    low, high = points_ND.amin(dim=0), points_ND.amax(dim=0)
    width = torch.where(high > low, (high - low) / bins, 1.0)
    strides = bins ** torch.arange(points_ND.shape[1], device=points_ND.device)

    def shares(some_ND: Tensor) -> Tensor:
        inside_N = ((some_ND >= low) & (some_ND <= high)).all(dim=1)
        index_ND = ((some_ND[inside_N] - low) / width).long().clamp_(0, bins - 1)
        counts_K = torch.bincount((index_ND * strides).sum(dim=1), minlength=bins ** points_ND.shape[1])
        return (counts_K.double() + PRIOR) / len(some_ND)

    p_K, q_K = shares(points_ND), shares(generated_ND)
    visited = p_K * len(points_ND) > 0.5
    return (p_K[visited] * (p_K[visited] / q_K[visited]).log()).sum()
