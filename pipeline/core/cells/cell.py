"""What a network must know of a cell; each cell's own file makes one of these.

Shapes: D input, H hidden, G rows of all gates together (H rows each). No batch, no time, no replicas: `step` and
`gate_values` are one example at one timestep, as the textbook has it, and serve as the reference of the fast loops and
for Jacobians.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class States(NamedTuple):
    """A state of the network, a tap on it, or a gradient in it: h, and c where the cell has one."""

    h: Tensor
    c: Tensor | None = None


def joined_states(join: Callable[[Sequence[Tensor]], Tensor], states: Sequence[States]) -> States:
    """Return one state made of several: `join` of all h, and of all c where there are any."""
    c = [state.c for state in states if state.c is not None]
    return States(join([state.h for state in states]), join(c) if c else None)


def at_timestep(states: States, t: int) -> States:
    """Return one timestep of states at every timestep, (1, …) of (T, …)."""
    return States(states.h[t : t + 1], None if states.c is None else states.c[t : t + 1])


class Weights(NamedTuple):
    """The parameters of one layer and direction, with the names, shapes and gate order of torch.nn.

    Attributes:
        weight_ih: (G, D).
        weight_hh: (G, H).
        bias_ih: (G,).
        bias_hh: (G,); added to `bias_ih`, except where a gate needs them apart (n of the GRU).
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


@dataclass(frozen=True)
class Cell:
    """A recurrent cell.

    Attributes:
        gates: Names of the blocks of H rows in `weight_hh`, in order.
        states: ("h",), or ("h", "c") where a cell state is carried beside h.
        pack: Returns the weights as one matrix [W_hh | W_ih | b], as `function` wants it.
        function: The autograd function of the whole sequence (see `recurrence`).
        step: (x_t (D,), states before, weights) -> states after: one timestep of one example.
        gate_values: The same arguments -> the value (H,) of every gate that opens and closes, by name; None where the
            cell has none.
        keep_gate: The gate that says how much of the past is kept: f of the LSTM, z of the GRU.
        derivative: φ'(a) in terms of h = φ(a), where h_t = φ(W_hh h_{t-1} + …); None for gated cells.
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    pack: Callable[[Weights], Tensor]
    function: type[torch.autograd.Function]
    step: Callable[[Tensor, States, Weights], States]
    gate_values: Callable[[Tensor, States, Weights], Mapping[str, Tensor]] | None = None
    keep_gate: str | None = None
    derivative: Callable[[Tensor], Tensor] | None = None


def pack_summed(weights: Weights) -> Tensor:
    """Return [W_hh | W_ih | b_ih + b_hh], (G, H + D + 1)."""
    return torch.cat([weights.weight_hh, weights.weight_ih, (weights.bias_ih + weights.bias_hh)[:, None]], dim=1)
