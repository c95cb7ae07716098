"""A recurrent additive network: `ran.py`, to be saved in pipeline/core/cells."""

from torch import sigmoid, tanh

from pipeline.core.cells.cell import H_AND_X, X_ONLY, Cell, Named, Stepped


def ran(a: Named, s: Named) -> Stepped:
    """Return h_t and c_t of a cell state that adds what it lets in, and its gates (Lee, Levy, Zettlemoyer, 2017)."""
    i, f = sigmoid(a.i), sigmoid(a.f)  # of the pre-activations W h_{t-1} + V x_t + b
    c = f * s.c + i * a.n
    return (tanh(c), c), {"i": i, "f": f}


CELLS = {"ran": Cell(gates={"i": H_AND_X, "f": H_AND_X, "n": X_ONLY}, states=("h", "c"), pointwise=ran, keep_gate="f")}
