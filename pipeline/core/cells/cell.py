"""What a network must know of a cell; each cell's own file declares one of these.

Shapes: D input, H hidden, G rows of all gates together (H rows each). `step` and `gate_values` are of one example at
one timestep, as in the textbook, without batch, time or replicas: they are the reference of the fast loops, and what
Jacobians are taken of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core.cells.recurrence import BackwardLoop, ForwardLoop, recurrence


class States(NamedTuple):
    """A state of the network, a tap on it, or a gradient in it: h, and c where the cell has one."""

    h: Tensor
    c: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the states that the cell has, in the order in which it declares them."""
        return tuple(state for state in self if state is not None)

    def map(self, function: Callable[[Tensor], Tensor]) -> States:
        """Return `function` of each state that the cell has."""
        return States(*map(function, self.tensors()))

    @staticmethod
    def concatenate(states: Sequence[States], dim: int) -> States:
        """Return the states of one cell beside each other along `dim`."""
        return States(*(torch.cat(each, dim=dim) for each in zip(*(s.tensors() for s in states), strict=True)))


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


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A recurrent cell.

    Attributes:
        gates: Names of the blocks of H rows in `weight_hh`, in order.
        states: ("h",), or ("h", "c") where a cell state is carried beside h.
        fuse: Returns the weights as one matrix [W_hh | W_ih | b], as the loops want it.
        forward: The loop forward in time.
        backward: The loop backward in time.
        step: (x_t (D,), states before, weights) -> states after: one timestep of one example. Where there is a cell
            state, a tap on c_t, (H,), may follow: it is added before h_t is made of it.
        gate_values: The same arguments -> the value (H,) of every gate that opens and closes, by name; None where the
            cell has none.
        keep_gate: The gate that says how much of the past is kept: f of the LSTM, z of the GRU.
        derivative: φ'(a) in terms of h = φ(a), where h_t = φ(W_hh h_{t-1} + …); None for gated cells.
        torch_class: (input size, hidden size, ...) -> the same cell of torch.nn; None where torch has none.
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    fuse: Callable[[Weights], Tensor]
    forward: ForwardLoop
    backward: BackwardLoop
    step: Callable[..., States]
    gate_values: Callable[[Tensor, States, Weights], dict[str, Tensor]] | None = None
    keep_gate: str | None = None
    derivative: Callable[[Tensor], Tensor] | None = None
    torch_class: Callable[..., nn.RNNBase] | None = None

    @functools.cached_property
    def function(self) -> type[torch.autograd.Function]:
        """The autograd function of a whole sequence, made of the two loops; see `recurrence`."""

        def unroll(
            x: Tensor, h_0: Tensor, c_0: Tensor | None, tap_h: Tensor | None, tap_c: Tensor | None, *parameters: Tensor
        ) -> tuple[Tensor, ...]:
            return self.unroll(x, States(h_0, c_0), Weights(*parameters), tap_h, tap_c).tensors()

        return recurrence(self.forward, self.backward, unroll, len(self.states), len(self.gates))

    def unroll(
        self, x_TBD: Tensor, start: States, weights: Weights, tap_h: Tensor | None = None, tap_c: Tensor | None = None
    ) -> States:
        """Return the states at every timestep, (T, B, H), by the textbook's step, in ordinary operations.

        It is what the fast loops compute, slower, and can be differentiated as often and in any way that torch knows.

        Args:
            x_TBD: Inputs.
            start: States before the first timestep, (B, H).
            weights: Of one replica.
            tap_h: Added to h_t, (T, B, H).
            tap_c: Added to c_t, (T, B, H).
        """

        def of_one(x_t: Tensor, before: tuple[Tensor, ...], *tap: Tensor) -> tuple[Tensor, ...]:
            return self.step(x_t, States(*before), weights, *tap).tensors()

        batched, before, found = torch.vmap(of_one), start.tensors(), []
        for t, x_t in enumerate(x_TBD.unbind(0)):
            h, *c = batched(x_t, before, *([] if tap_c is None else [tap_c[t]]))
            before = (h if tap_h is None else h + tap_h[t], *c)
            found.append(before)
        return States(*(torch.stack(each) for each in zip(*found, strict=True)))


def fuse_summed(weights: Weights) -> Tensor:
    """Return [W_hh | W_ih | b_ih + b_hh], (G, H + D + 1)."""
    return torch.cat([weights.weight_hh, weights.weight_ih, (weights.bias_ih + weights.bias_hh)[:, None]], dim=1)
