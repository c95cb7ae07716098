"""An Elman network with the softsign nonlinearity: `elman_softsign.py`, to be saved in pipeline/core/cells."""

import torch

from pipeline.core.cells.elman import Nonlinearity, cell_of

SOFTSIGN = Nonlinearity(
    function=torch.nn.functional.softsign,  # h = a / (1 + |a|)
    apply_=lambda a: a.div_(1 + a.abs()),
    backward=lambda grad, h, out: torch.mul(grad, (1 - h.abs()).square(), out=out),  # φ'(a), in terms of h
    derivative=lambda h: (1 - h.abs()).square(),
)
CELLS = {"elman_softsign": cell_of(SOFTSIGN)}
