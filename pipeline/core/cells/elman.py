"""The Elman network ("vanilla RNN"): h_t = φ(W_hh h_{t-1} + W_ih x_t + b).

φ is tanh, the sigmoid, ReLU, LeakyReLU or the identity; a new one is a line in `CELLS`.

Source: Elman (1990), in PyTorch's parametrisation (two biases, which add).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pipeline.core.cells.cell import H_AND_X, Cell, Named, Stepped

LEAKY_SLOPE = 0.01


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


CELLS = {
    "elman": elman(torch.tanh, lambda h: 1 - h * h, nn.RNN),
    "elman_linear": elman(torch.clone, torch.ones_like),
    "elman_sigmoid": elman(torch.sigmoid, lambda h: h * (1 - h)),
    "elman_relu": elman(torch.relu, lambda h: (h > 0).to(h.dtype), partial(nn.RNN, nonlinearity="relu")),
    "elman_leaky_relu": elman(
        lambda a: leaky_relu(a, LEAKY_SLOPE), lambda h: torch.where(h > 0, 1.0, LEAKY_SLOPE).to(h.dtype)
    ),
}
