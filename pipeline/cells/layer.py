"""A recurrent layer as a textbook single-network module, its weights exchangeable with torch.nn's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.cells import CELLS


class States(NamedTuple):
    """A state of the network, or a tap on it: h, and c where the cell has one."""

    h: Tensor
    c: Tensor | None = None


class RecurrentLayer(nn.Module):
    """One layer of a cell over a sequence.

    Parameters have the names, shapes and gate order of `nn.RNN`, `nn.GRU` and `nn.LSTM`, so that state dicts load
    either way. They are drawn from U(-1/√H, 1/√H), torch's rule, with the generator given.

    Args:
        cell: A key of `CELLS`.
        input_size: D.
        hidden_size: H.
        generator: Where the initial weights come from; never torch's global one.
    """

    def __init__(self, cell: str, input_size: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.cell, self.hidden_size = CELLS[cell], hidden_size
        num_rows = len(self.cell.gates) * hidden_size
        bound = hidden_size**-0.5

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.weight_ih_l0 = draw(num_rows, input_size)
        self.weight_hh_l0 = draw(num_rows, hidden_size)
        self.bias_ih_l0 = draw(num_rows)
        self.bias_hh_l0 = draw(num_rows)

    def forward(
        self, x_TBD: Tensor, initial: States | None = None, taps: States | None = None
    ) -> tuple[States, States]:
        """Return the states at every timestep, (T, B, H) each, and the final ones, (B, H) each.

        Args:
            x_TBD: Inputs.
            initial: States before the first timestep, (B, H) each; zero if None.
            taps: Added to the states, (T, B, H) each; with zeros, their gradients are dL/dh_t and dL/dc_t.
        """
        if initial is None:
            zeros = x_TBD.new_zeros(x_TBD.shape[1], self.hidden_size)
            initial = States(zeros, zeros if "c" in self.cell.states else None)
        weight = self.cell.pack(self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        tap_h, tap_c = taps if taps is not None else (None, None)
        arguments = (x_TBD, weight, initial.h, initial.c, tap_h, tap_c)
        packed = [None if argument is None else argument.unsqueeze(0) for argument in arguments]
        h, c, *_ = self.cell.function.apply(*packed, torch.is_grad_enabled())
        h_TBH, c_TBH = h.squeeze(0), c.squeeze(0) if "c" in self.cell.states else None
        return States(h_TBH, c_TBH), States(h_TBH[-1], None if c_TBH is None else c_TBH[-1])
