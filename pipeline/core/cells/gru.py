"""The gated recurrent unit, in PyTorch's form: the reset gate acts after the matrix product.

    r, z = σ(W h_{t-1} + V x_t + b)                               reset and update gate
    n    = tanh(V_n x_t + b_in + r · (W_n h_{t-1} + b_hn))         candidate
    h_t  = (1 - z) · n + z · h_{t-1}

Source: Cho et al. (2014), who reset before the product; this form is theirs of version 1, and cuDNN's. The fused
weights have a fourth block of rows: n_h = W_n h + b_hn and n_x = V_n x + b_in are needed apart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.core.cells.cell import Cell, States, Weights, fuse_summed
from pipeline.core.cells.recurrence import Backward, Forward, sigmoid_backward, tanh_backward


def step(x_t: Tensor, states: States, weights: Weights) -> States:
    """Return h_t of one example, gate by gate: the reference of the loops below."""
    W_ih, W_hh, b_ih, b_hh = weights
    x_r, x_z, x_n = (W_ih @ x_t + b_ih).chunk(3)
    h_r, h_z, h_n = (W_hh @ states.h + b_hh).chunk(3)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return States((1 - z) * n + z * states.h)


def gate_values(x_t: Tensor, states: States, weights: Weights) -> dict[str, Tensor]:
    """Return the gates that open and close, by name."""
    W_ih, W_hh, b_ih, b_hh = weights
    a_r, a_z, _ = (W_ih @ x_t + b_ih + W_hh @ states.h + b_hh).chunk(3)
    return {"r": torch.sigmoid(a_r), "z": torch.sigmoid(a_z)}


def forward(run: Forward) -> tuple[Tensor, ...]:
    """Fill h_1 .. h_T and return the blocks r, z, n_h, n."""
    H, W, tap = run.num_hidden, run.weight_RGZ, run.taps[0]
    W_rzn, W_x = W.narrow(1, 0, 3 * H), W[:, 3 * H :, H:]
    blocks = run.empty(4 * H)
    for t, u_t, h_t, rznn in run.timesteps(blocks):
        torch.bmm(W_rzn, u_t, out=rznn.narrow(1, 0, 3 * H))
        n = torch.bmm(W_x, u_t.narrow(1, H, W_x.shape[2]), out=rznn.narrow(1, 3 * H, H))
        rznn.narrow(1, 0, 2 * H).sigmoid_()
        r, z, n_h = rznn.narrow(1, 0, 3 * H).split(H, dim=1)
        n.addcmul_(r, n_h).tanh_()
        torch.lerp(n, u_t.narrow(1, 0, H), z, out=h_t)
        if tap is not None:
            h_t.add_(tap[t])
    return (blocks,)


def backward(run: Backward) -> tuple[Tensor, None]:
    """Return the gradient of h_0; those of the weights and dL/dh_t are left in `run`."""
    H, (blocks,) = run.num_hidden, run.saved
    grad_a, grad_W_x = torch.empty_like(blocks[0]), run.grad_weight_RGZ[:, 3 * H :, H:]
    grad_r, grad_z, grad_n_h, grad_n = grad_a.split(H, dim=1)
    scratch, carry = torch.empty_like(grad_r), torch.empty_like(grad_r)
    grad_h = run.last_state_gradient()
    for t in reversed(range(len(blocks))):
        r, z, n_h, n = blocks[t].split(H, dim=1)
        u_t = run.u_TRZB[t]
        torch.mul(grad_h, z, out=carry)  # the path around the weights
        tanh_backward(torch.sub(grad_h, carry, out=scratch), n, grad_input=grad_n)
        torch.mul(grad_n, r, out=grad_n_h)
        sigmoid_backward(torch.mul(grad_n, n_h, out=scratch), r, grad_input=grad_r)
        torch.sub(u_t.narrow(1, 0, H), n, out=scratch).mul_(grad_h)
        sigmoid_backward(scratch, z, grad_input=grad_z)
        grad_W_x.baddbmm_(grad_n, u_t.narrow(1, H, grad_W_x.shape[2]).transpose(1, 2))
        grad_h = run.through_weights(t, grad_a, carry)
    return grad_h, None


def fuse(weights: Weights) -> Tensor:
    """Return the rows of r, z, n_h and n_x: [W_hh | W_ih | b], (4H, H + D + 1)."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    H, D = weight_hh.shape[1], weight_ih.shape[1]
    gates = fuse_summed(Weights(*(parameter[: 2 * H] for parameter in weights)))
    n_h = torch.cat([weight_hh[2 * H :], weight_hh.new_zeros(H, D), bias_hh[2 * H :, None]], dim=1)
    n_x = torch.cat([weight_hh.new_zeros(H, H), weight_ih[2 * H :], bias_ih[2 * H :, None]], dim=1)
    return torch.cat([gates, n_h, n_x], dim=0)


CELLS = {
    "gru": Cell(
        gates=("r", "z", "n"),
        states=("h",),
        fuse=fuse,
        forward=forward,
        backward=backward,
        step=step,
        gate_values=gate_values,
        keep_gate="z",
        torch_class=nn.GRU,
    )
}
