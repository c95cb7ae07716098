"""The recurrent cells by name. A new cell is one file with its two loops and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.cells import elman, gru, lstm
from pipeline.cells.recurrence import BackwardLoop, ForwardLoop, recurrence

Pack = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Cell:
    """What a recurrent layer must know of its cell.

    Attributes:
        gates: Names of the blocks of H rows in `weight_hh`, in order.
        states: ("h",), or ("h", "c") where a cell state is carried beside h.
        pack: Maps (weight_ih, weight_hh, bias_ih, bias_hh), as torch.nn names them, to [W_hh | W_ih | b].
        function: The autograd function of the whole sequence (see `recurrence`).
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    pack: Pack
    function: type[torch.autograd.Function]


def _pack_summed(weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    return torch.cat([weight_hh, weight_ih, (bias_ih + bias_hh)[:, None]], dim=1)


def _pack_gru(weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    H, D = weight_hh.shape[1], weight_ih.shape[1]
    gates = _pack_summed(weight_ih[: 2 * H], weight_hh[: 2 * H], bias_ih[: 2 * H], bias_hh[: 2 * H])
    n_h = torch.cat([weight_hh[2 * H :], weight_hh.new_zeros(H, D), bias_hh[2 * H :, None]], dim=1)
    n_x = torch.cat([weight_hh.new_zeros(H, H), weight_ih[2 * H :], bias_ih[2 * H :, None]], dim=1)
    return torch.cat([gates, n_h, n_x], dim=0)


def _elman(nonlinearity: elman.Nonlinearity) -> Cell:
    return Cell(("h",), ("h",), _pack_summed, recurrence(*elman.loops(nonlinearity), num_states=1))


_LSTM_LOOPS: tuple[ForwardLoop, BackwardLoop] = (lstm.forward, lstm.backward)
_GRU_LOOPS: tuple[ForwardLoop, BackwardLoop] = (gru.forward, gru.backward)

CELLS: dict[str, Cell] = {
    "elman": _elman(elman.TANH),
    "elman_linear": _elman(elman.LINEAR),
    "elman_relu": _elman(elman.RELU),
    "elman_leaky_relu": _elman(elman.LEAKY_RELU),
    "lstm": Cell(("i", "f", "g", "o"), ("h", "c"), _pack_summed, recurrence(*_LSTM_LOOPS, num_states=2)),
    "gru": Cell(("r", "z", "n"), ("h",), _pack_gru, recurrence(*_GRU_LOOPS, num_states=1)),
}
"""Every cell that a spec may name."""

__all__ = ["CELLS", "Cell"]
