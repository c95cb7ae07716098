"""The Elman network ("vanilla RNN"): h_t = φ(W_hh h_{t-1} + W_ih x_t + b).

φ is tanh, the sigmoid, ReLU, LeakyReLU or the identity; a new one is a `Nonlinearity` and a line in `CELLS`.

Source: Elman (1990), in PyTorch's parametrisation (two biases, which add).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.cells.cell import Cell, States, Weights, fuse_summed
from pipeline.core.cells.recurrence import Backward, BackwardLoop, Forward, ForwardLoop, sigmoid_backward, tanh_backward

LEAKY_SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class Nonlinearity:
    """A function φ and its derivative, the derivative in terms of the value h = φ(a).

    Attributes:
        function: φ, as a function of a tensor.
        apply_: φ in place.
        backward: `(grad_h, h, out)` writes φ'(a) · grad_h to `out`.
        derivative: φ'(a), as a function of h.
    """

    function: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Any]
    derivative: Callable[[Tensor], Tensor]


TANH = Nonlinearity(
    function=torch.tanh,
    apply_=torch.tanh_,
    backward=lambda grad, h, out: tanh_backward(grad, h, grad_input=out),
    derivative=lambda h: 1 - h * h,
)
SIGMOID = Nonlinearity(
    function=torch.sigmoid,
    apply_=torch.sigmoid_,
    backward=lambda grad, h, out: sigmoid_backward(grad, h, grad_input=out),
    derivative=lambda h: h * (1 - h),
)
RELU = Nonlinearity(
    function=torch.relu,
    apply_=torch.relu_,
    backward=lambda grad, h, out: torch.mul(grad, h > 0, out=out),
    derivative=lambda h: (h > 0).to(h.dtype),
)
LEAKY_RELU = Nonlinearity(
    function=lambda a: torch.nn.functional.leaky_relu(a, LEAKY_SLOPE),
    apply_=lambda a: torch.nn.functional.leaky_relu_(a, LEAKY_SLOPE),
    backward=lambda grad, h, out: torch.where(h > 0, grad, grad * LEAKY_SLOPE, out=out),
    derivative=lambda h: torch.where(h > 0, 1.0, LEAKY_SLOPE).to(h.dtype),
)
LINEAR = Nonlinearity(
    function=torch.clone,
    apply_=lambda a: a,
    backward=lambda grad, h, out: out.copy_(grad),
    derivative=torch.ones_like,
)


def loops(nonlinearity: Nonlinearity) -> tuple[ForwardLoop, BackwardLoop]:
    """Return the loops over time of an Elman network with this φ."""

    def forward(run: Forward) -> tuple[Tensor, ...]:
        tap = run.taps[0]
        kept = () if tap is None else (run.empty(run.num_hidden),)  # φ' needs h itself, and h + tap leaves the cell
        for t, u_t, out_t, *own in run.timesteps(*kept):
            h_t = own[0] if own else out_t
            torch.bmm(run.weight_RGZ, u_t, out=h_t)  # a_t
            nonlinearity.apply_(h_t)
            if tap is not None:
                torch.add(h_t, tap[t], out=out_t)
        return kept

    def backward(run: Backward) -> tuple[Tensor, None]:
        h_TRHB = run.saved[0] if run.saved else run.u_TRZB[1:, :, : run.num_hidden]
        grad_a, grad_h = torch.empty_like(run.grad_h_TRHB[0]), run.last_state_gradient()
        for t in reversed(range(len(run.grad_h_TRHB))):
            nonlinearity.backward(grad_h, h_TRHB[t], grad_a)
            grad_h = run.through_weights(t, grad_a)
        return grad_h, None

    return forward, backward


def cell_of(nonlinearity: Nonlinearity, torch_class: Callable[..., nn.RNNBase] | None = None) -> Cell:
    """Return the Elman cell with this φ; `torch_class` makes the same of torch.nn, where torch has it."""

    def step(x_t: Tensor, states: States, weights: Weights) -> States:
        W_ih, W_hh, b_ih, b_hh = weights
        return States(nonlinearity.function(W_hh @ states.h + W_ih @ x_t + (b_ih + b_hh)))

    forward, backward = loops(nonlinearity)
    return Cell(
        gates=("h",),
        states=("h",),
        fuse=fuse_summed,
        forward=forward,
        backward=backward,
        step=step,
        derivative=nonlinearity.derivative,
        torch_class=torch_class,
    )


CELLS = {
    "elman": cell_of(TANH, nn.RNN),
    "elman_linear": cell_of(LINEAR),
    "elman_sigmoid": cell_of(SIGMOID),
    "elman_relu": cell_of(RELU, partial(nn.RNN, nonlinearity="relu")),
    "elman_leaky_relu": cell_of(LEAKY_RELU),
}
