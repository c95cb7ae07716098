"""The long short-term memory: a cell state that passes through gates only, by multiplication and addition.

    i, f, o = σ(W h_{t-1} + V x_t + b)          input, forget and output gate
    g       = tanh(W_g h_{t-1} + V_g x_t + b_g)  candidate
    c_t     = f · c_{t-1} + i · g
    h_t     = o · tanh(c_t)

Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000). Rows in the order i, f, g, o.
"""

from __future__ import annotations

from torch import nn, sigmoid, tanh

from pipeline.core.cells.cell import H_AND_X, Cell, Named, Stepped


def lstm(a: Named, s: Named) -> Stepped:
    """Return h_t and c_t, and the gates that open and close."""
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * s.c + i * g
    return (o * tanh(c), c), {"i": i, "f": f, "o": o}


CELLS = {
    "lstm": Cell(
        gates=dict.fromkeys("ifgo", H_AND_X),
        states=("h", "c"),
        pointwise=lstm,
        keep_gate="f",
        torch_class=nn.LSTM,
    )
}
