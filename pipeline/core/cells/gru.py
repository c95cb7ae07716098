"""The gated recurrent unit, in PyTorch's form: the reset gate acts after the matrix product.

    r, z = σ(W h_{t-1} + V x_t + b)                               reset and update gate
    n    = tanh(V_n x_t + b_in + r · (W_n h_{t-1} + b_hn))         candidate
    h_t  = (1 - z) · n + z · h_{t-1}

Source: Cho et al. (2014), who reset before the product; this form is theirs of version 1, and cuDNN's.
"""

from __future__ import annotations

from torch import nn, sigmoid, tanh

from pipeline.core.cells.cell import APART, H_AND_X, Cell, Named, Stepped


def gru(a: Named, s: Named) -> Stepped:
    """Return h_t, and the gates that open and close."""
    r, z = sigmoid(a.r), sigmoid(a.z)
    n = tanh(a.n_x + r * a.n_h)
    return (n + z * (s.h - n),), {"r": r, "z": z}


CELLS = {"gru": Cell(gates={"r": H_AND_X, "z": H_AND_X, "n": APART}, pointwise=gru, keep_gate="z", torch_class=nn.GRU)}
