"""The Elman network ("vanilla RNN") and its kin without gates of their own: h_t = φ(W_hh h_{t-1} + W_ih x_t + b).

φ is tanh, the sigmoid, ReLU, LeakyReLU or the identity; a new one is a line in `CELLS`.

Source: Elman (1990), in PyTorch's parametrisation (two biases, which add). What the others change is beside each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pipeline.core.cells.cell import H_AND_X, X_ONLY, Cell, Named, Stepped, Weights

LEAKY_SLOPE = 0.01

INDRNN_MAGNITUDE, INDRNN_LAG = 2.0, 784.0
"""How much a gradient may grow over how many timesteps: those of a digit, pixel by pixel."""

ANTISYMMETRIC_STEP, ANTISYMMETRIC_DIFFUSION = 0.01, 0.01
"""ε and γ."""


def elman(
    function: Callable[[Tensor], Tensor],
    derivative: Callable[[Tensor], Tensor],
    torch_class: Callable[..., nn.RNNBase] | None = None,
) -> Cell:
    """Return the Elman cell with φ = `function`, and φ' in terms of h; `torch_class` makes the same of torch.nn."""

    def pointwise(a: Named, s: Named) -> Stepped:
        return (function(a.h),), {}

    gates = {"h": H_AND_X}
    return Cell(gates=gates, pointwise=pointwise, derivative=derivative, torch_class=torch_class)


def ind_rnn(longest_lag: float = INDRNN_LAG) -> Cell:
    """Return the independently recurrent network: a unit sees itself and the input, no other unit.

        h_t = ReLU(V x_t + u · h_{t-1} + b)

    Closed form: of a unit that is active, ∂h_t/∂h_{t-k} = u^k. So u begins in U(0, 2^(1/T)): a gradient at most doubles
    over T timesteps. Source: Li et al. (2018); they hold u in these bounds in training too, which we leave free.

    Args:
        longest_lag: T.
    """

    def pointwise(a: Named, s: Named) -> Stepped:
        return (torch.relu(a.h + a.u * s.h),), {}

    def start(H: int, generator: torch.Generator) -> Tensor:
        return torch.empty(1, H).uniform_(0.0, INDRNN_MAGNITUDE ** (1 / longest_lag), generator=generator)

    return Cell(gates={"h": X_ONLY}, pointwise=pointwise, per_unit=("u",), start=start)


def antisymmetric(gated: bool, epsilon: float = ANTISYMMETRIC_STEP, gamma: float = ANTISYMMETRIC_DIFFUSION) -> Cell:
    """Return the antisymmetric network, Euler's method on an equation that neither decays nor explodes.

        A   = W - Wᵀ - γ I
        h_t = h_{t-1} + ε · z · tanh(A h_{t-1} + V x_t + b),  z = σ(A h_{t-1} + V_z x_t + b_z), or 1

    Closed form: without the gate, γ = 0 and all units at the slope 1, ∂h_t/∂h_{t-1} = I + ε A has the singular values
    √(1 + ε² |α|²), α the eigenvalues of A; where slopes differ they are 1 + O(ε). Source: Chang et al. (2019);
    V ~ N(0, 1/D) and W ~ N(0, σ²/H), which `ScaledGaussian` draws.

    Args:
        gated: Whether there is a z.
        epsilon: The step of Euler's method.
        gamma: The diffusion that makes it stable.
    """

    def pointwise(a: Named, s: Named) -> Stepped:
        if not gated:
            return (s.h + epsilon * torch.tanh(a.h),), {}
        z = torch.sigmoid(a.z)
        return (s.h + epsilon * z * torch.tanh(a.h),), {"z": z}

    def prepare(weights: Weights) -> Weights:
        W = weights.weight_hh
        A = W - W.mT - gamma * torch.eye(len(W), dtype=W.dtype, device=W.device)
        return weights._replace(weight_hh=A)

    gates = dict.fromkeys("hz" if gated else "h", H_AND_X)
    return Cell(gates=gates, pointwise=pointwise, shared_map=True, prepare=prepare)


CELLS = {
    "elman": elman(torch.tanh, lambda h: 1 - h * h, nn.RNN),
    "elman_linear": elman(torch.clone, torch.ones_like),
    "elman_sigmoid": elman(torch.sigmoid, lambda h: h * (1 - h)),
    "elman_relu": elman(torch.relu, lambda h: (h > 0).to(h.dtype), partial(nn.RNN, nonlinearity="relu")),
    "elman_leaky_relu": elman(
        lambda a: leaky_relu(a, LEAKY_SLOPE), lambda h: torch.where(h > 0, 1.0, LEAKY_SLOPE).to(h.dtype)
    ),
    "ind_rnn": ind_rnn(),
    "antisymmetric": antisymmetric(gated=False),
    "antisymmetric_gated": antisymmetric(gated=True),
}
