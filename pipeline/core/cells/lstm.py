"""The long short-term memory: a cell state that passes through gates only, by multiplication and addition.

    i, f, o = σ(W h_{t-1} + V x_t + b)          input, forget and output gate
    g       = tanh(W_g h_{t-1} + V_g x_t + b_g)  candidate
    c_t     = f · c_{t-1} + i · g
    h_t     = o · tanh(c_t)

Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000). Rows in the order i, f, g, o.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.core.cells.cell import Cell, States, Weights, fuse_summed
from pipeline.core.cells.recurrence import Backward, Forward, sigmoid_backward, tanh_backward


def gates(x_t: Tensor, h: Tensor, weights: Weights) -> tuple[Tensor, ...]:
    """Return i, f, g and o of one example, (H,) each, from its input (D,) and previous state (H,)."""
    W_ih, W_hh, b_ih, b_hh = weights
    a_i, a_f, a_g, a_o = (W_hh @ h + W_ih @ x_t + (b_ih + b_hh)).chunk(4)
    return torch.sigmoid(a_i), torch.sigmoid(a_f), torch.tanh(a_g), torch.sigmoid(a_o)


def step(x_t: Tensor, states: States, weights: Weights, tap_c: Tensor | None = None) -> States:
    """Return h_t and c_t of one example, gate by gate: the reference of the loops below."""
    h, c = states.tensors()
    i, f, g, o = gates(x_t, h, weights)
    c = f * c + i * g if tap_c is None else f * c + i * g + tap_c
    return States(o * torch.tanh(c), c)


def gate_values(x_t: Tensor, states: States, weights: Weights) -> dict[str, Tensor]:
    """Return the gates that open and close, by name."""
    i, f, _, o = gates(x_t, states.h, weights)
    return {"i": i, "f": f, "o": o}


def forward(run: Forward) -> tuple[Tensor, ...]:
    """Fill h_1 .. h_T and return (c_0 .. c_T, the gates i, f, g, o, tanh c_t)."""
    H, T = run.num_hidden, len(run.u_TRZB) - 1
    tap_h, tap_c = run.taps
    c = run.empty(H, T + 1)
    c[0] = 0.0 if run.c_0 is None else run.c_0
    gates, tanh_c = run.empty(4 * H), run.empty(H)
    for t, u_t, h_t, ifgo, tanh_c_t in run.timesteps(gates, tanh_c):
        torch.bmm(run.weight_RGZ, u_t, out=ifgo)
        ifgo.narrow(1, 0, 2 * H).sigmoid_()
        g = ifgo.narrow(1, 2 * H, H).tanh_()
        o = ifgo.narrow(1, 3 * H, H).sigmoid_()
        c_t = torch.mul(ifgo.narrow(1, H, H), c[t], out=c[t + 1])
        c_t.addcmul_(ifgo.narrow(1, 0, H), g)
        if tap_c is not None:
            c_t.add_(tap_c[t])
        torch.tanh(c_t, out=tanh_c_t)
        torch.mul(o, tanh_c_t, out=h_t)
        if tap_h is not None:
            h_t.add_(tap_h[t])
    return c, gates, tanh_c


def backward(run: Backward) -> tuple[Tensor, Tensor]:
    """Return the gradients of h_0 and c_0; those of the weights, dL/dh_t and dL/dc_t are left in `run`."""
    H, (c, gates, tanh_c) = run.num_hidden, run.saved
    grad_a, scratch = torch.empty_like(gates[0]), torch.empty_like(c[0])
    grad_i, grad_f, grad_g, grad_o = grad_a.split(H, dim=1)
    grad_h, grad_c = run.last_state_gradient(), torch.zeros_like(c[0])
    for t in reversed(range(len(gates))):
        i, f, g, o = gates[t].split(H, dim=1)
        torch.mul(grad_h, o, out=scratch)
        grad_c.add_(tanh_backward(scratch, tanh_c[t], grad_input=scratch))
        if run.grad_c_TRHB is not None:  # the direct gradient goes in, the total comes out
            grad_c.add_(run.grad_c_TRHB[t])
            run.grad_c_TRHB[t] = grad_c
        sigmoid_backward(torch.mul(grad_h, tanh_c[t], out=scratch), o, grad_input=grad_o)
        sigmoid_backward(torch.mul(grad_c, g, out=scratch), i, grad_input=grad_i)
        sigmoid_backward(torch.mul(grad_c, c[t], out=scratch), f, grad_input=grad_f)
        tanh_backward(torch.mul(grad_c, i, out=scratch), g, grad_input=grad_g)
        grad_c.mul_(f)
        grad_h = run.through_weights(t, grad_a)
    return grad_h, grad_c


CELLS = {
    "lstm": Cell(
        gates=("i", "f", "g", "o"),
        states=("h", "c"),
        fuse=fuse_summed,
        forward=forward,
        backward=backward,
        step=step,
        gate_values=gate_values,
        keep_gate="f",
        torch_class=nn.LSTM,
    )
}
