"""What a researcher writes today: a loop over `advance` with every state's gradient retained."""

import torch
from torch import Tensor

from pipeline.cells import States, elman, gru, lstm
from pipeline.cells.stack import RecurrentStack

PHI = {
    "elman": elman.TANH,
    "elman_linear": elman.LINEAR,
    "elman_relu": elman.RELU,
    "elman_leaky_relu": elman.LEAKY_RELU,
}


def unrolled(name: str, layer: RecurrentStack, x_TBD: Tensor, initial: States) -> list[list[States]]:
    """Return the states of every timestep of every example, each a leaf of `retain_grad`."""
    W_ih, W_hh, b_ih, b_hh = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
    examples = []
    for b in range(x_TBD.shape[1]):
        h, c = initial.h[b], None if initial.c is None else initial.c[b]
        states = []
        for x_t in x_TBD[:, b]:
            if name == "lstm":
                h, c = lstm.advance(x_t, h, c, W_ih, W_hh, b_ih + b_hh)
                c.retain_grad()
            elif name == "gru":
                h = gru.advance(x_t, h, W_ih, W_hh, b_ih, b_hh)
            else:
                h = elman.advance(x_t, h, W_ih, W_hh, b_ih + b_hh, PHI[name])
            h.retain_grad()
            states.append(States(h, c))
        examples.append(states)
    return examples


def stacked(examples: list[list[States]], which: str, gradient: bool) -> Tensor:
    """Return the values, or the gradients, of one kind of state as (T, B, H)."""
    chosen = [[getattr(state, which) for state in states] for states in examples]
    return torch.stack([torch.stack([s.grad if gradient else s for s in states]) for states in chosen], dim=1)
