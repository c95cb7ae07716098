"""The long short-term memory and its kin: a state that passes through gates only, by multiplication and addition.

    i, f, o = σ(W h_{t-1} + V x_t + b)          input, forget and output gate
    g       = tanh(W_g h_{t-1} + V_g x_t + b_g)  candidate
    c_t     = f · c_{t-1} + i · g
    h_t     = o · tanh(c_t)

Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000). Rows in the order i, f, g, o.
What the others change is beside each; W h_{t-1} + V x_t + b of a gate is its pre-activation, written ã.
"""

from __future__ import annotations

import torch
from torch import Tensor, exp, log1p, nn, sigmoid, tanh

from pipeline.core.cells.cell import H_AND_X, Cell, Named, States, Stepped, Weights

JANET_SHIFT = 1.0
"""β of the JANET."""

EPSILON = 1e-5
"""Added to a variance before its root is divided by, as torch.nn does."""

NORMALISED = (*(f"of_h_{gate}" for gate in "ifgo"), *(f"of_x_{gate}" for gate in "ifgo"), "of_c", "shift_c")
"""Rows of `weight_u` of the LSTM with layer normalisation: the gains α, and the β of c."""


def lstm(a: Named, s: Named) -> Stepped:
    """Return h_t and c_t, and the gates that open and close."""
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * s.c + i * g
    return (o * tanh(c), c), {"i": i, "f": f, "o": o}


def peephole(a: Named, s: Named) -> Stepped:
    """Return the step of the LSTM whose gates see the cell state, each unit its own.

        i, f = σ(ã + p · c_{t-1}),  o = σ(õ + p_o · c_t)

    Closed form: p = 0 is the LSTM. Source: Gers and Schmidhuber (2000).
    """
    i, f, g = sigmoid(a.i + a.p_i * s.c), sigmoid(a.f + a.p_f * s.c), tanh(a.g)
    c = f * s.c + i * g
    o = sigmoid(a.o + a.p_o * c)
    return (o * tanh(c), c), {"i": i, "f": f, "o": o}


def coupled(a: Named, s: Named) -> Stepped:
    """Return the step of the LSTM that takes in as much as it forgets, i = 1 - f.

    Closed form: c_t lies between c_{t-1} and g. Source: Greff et al. (2017), "CIFG".
    """
    f, g, o = sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = g + f * (s.c - g)
    return (o * tanh(c), c), {"f": f, "o": o}


def janet(beta: float = JANET_SHIFT) -> Cell:
    """Return the LSTM of a forget gate alone.

        h_t = σ(f̃) · h_{t-1} + (1 - σ(f̃ - β)) · tanh(g̃)

    Closed form: at zero weights ∂h_t/∂h_{t-1} = σ(b_f). Source: van der Westhuizen and Lasenby (2018); b_f by chrono.
    """

    def pointwise(a: Named, s: Named) -> Stepped:
        f = sigmoid(a.f)
        return (f * s.h + sigmoid(beta - a.f) * tanh(a.g),), {"f": f}

    return Cell(gates=dict.fromkeys("fg", H_AND_X), pointwise=pointwise, keep_gate="f")


def slstm(a: Named, s: Named) -> Stepped:
    """Return the step of the sLSTM, whose input gate is an exponential; n normalises and m keeps all of it finite.

        m_t = max(log σ(f̃) + m_{t-1}, ĩ)
        i'  = exp(ĩ - m_t),  f' = exp(log σ(f̃) + m_{t-1} - m_t)
        c_t = f' · c_{t-1} + i' · tanh(g̃),  n_t = f' · n_{t-1} + i',  h_t = σ(õ) · c_t / n_t

    Closed form: h does not depend on m. A unit with n = 0 has nothing to keep, whatever its m: its m_t is ĩ, as at the
    first timestep of the authors' code. The gate f that is measured is σ(f̃), not f', which m scales.

    Source: Beck et al. (2024), of one head; recurrent weights 0, and b_f falling from 5 to -7, by a power law.
    """
    log_f, o = a.f.clamp_max(0.0) - log1p(exp(-a.f.abs())), sigmoid(a.o)
    kept = torch.where(s.n == 0.0, a.i, log_f + s.m)
    m = torch.maximum(kept, a.i)
    i, f = exp(a.i - m), exp(kept - m)
    c, n = f * s.c + i * tanh(a.g), f * s.n + i
    return (o * c / n, c, n, m), {"f": sigmoid(a.f), "o": o}


def layer_norm(x_t: Tensor, before: States, weights: Weights, taps: States) -> Stepped:
    """Return the step of the LSTM with layer normalisation of both maps, all gates together, and of the cell state.

        ã   = LN(W h_{t-1}) + LN(V x_t) + b,  h_t = o · tanh(LN(c_t) + β_c)
        LN(y) = α · (y - mean) / √(variance + ε)

    Source: Ba, Kiros and Hinton (2016), supplement; gains begin at 1, β_c at 0.
    """
    gain, (gain_c, shift_c) = weights.weight_u[:8].reshape(2, -1), weights.weight_u[8:]
    of_h, of_x = normalised(weights.weight_hh @ before.h), normalised(weights.weight_ih @ x_t)
    a = gain[0] * of_h + weights.bias_hh + gain[1] * of_x + weights.bias_ih
    i, f, g, o = a.chunk(4)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    assert before.c is not None and taps.c is not None  # noqa: S101, PT018 - the cell has both states
    c = f * before.c + i * g + taps.c
    h = o * tanh(gain_c * normalised(c) + shift_c) + taps.h
    return (h, c), {"i": i, "f": f, "o": o}


def normalised(y: Tensor) -> Tensor:
    """Return a vector with mean 0 and variance 1."""
    y = y - y.mean()
    return y / (y.square().mean() + EPSILON).sqrt()


def gains(H: int, start: torch.Generator) -> Tensor:
    """Return gains of 1 and a shift of 0."""
    return torch.cat([torch.ones(len(NORMALISED) - 1, H), torch.zeros(1, H)])


LSTM_GATES = dict.fromkeys("ifgo", H_AND_X)
CELLS = {
    "lstm": Cell(gates=LSTM_GATES, states=("h", "c"), pointwise=lstm, keep_gate="f", torch_class=nn.LSTM),
    "lstm_peephole": Cell(
        gates=LSTM_GATES,
        states=("h", "c"),
        pointwise=peephole,
        per_unit=("p_i", "p_f", "p_o"),
        keep_gate="f",
    ),
    "lstm_coupled": Cell(gates=dict.fromkeys("fgo", H_AND_X), states=("h", "c"), pointwise=coupled, keep_gate="f"),
    "lstm_layer_norm": Cell(
        gates=LSTM_GATES,
        states=("h", "c"),
        whole_step=layer_norm,
        per_unit=NORMALISED,
        start=gains,
        keep_gate="f",
    ),
    "janet": janet(),
    "slstm": Cell(gates=LSTM_GATES, states=("h", "c", "n", "m"), pointwise=slstm, keep_gate="f"),
}
