"""The gated recurrent unit, in PyTorch's form, and its kin: one gate shares between the state and a candidate.

    r, z = σ(W h_{t-1} + V x_t + b)                               reset and update gate
    n    = tanh(V_n x_t + b_in + r · (W_n h_{t-1} + b_hn))         candidate
    h_t  = (1 - z) · n + z · h_{t-1}

Source: Cho et al. (2014), who reset before the product; this form is theirs of version 1, and cuDNN's. What the others
change is beside each; the pre-activation of a gate is written ã.
"""

from __future__ import annotations

from torch import Tensor, nn, sigmoid, tanh

from pipeline.core.cells.cell import APART, H_AND_X, X_ONLY, Cell, Named, States, Stepped, Weights


def gru(a: Named, s: Named) -> Stepped:
    """Return h_t, and the gates that open and close."""
    r, z = sigmoid(a.r), sigmoid(a.z)
    n = tanh(a.n_x + r * a.n_h)
    return (n + z * (s.h - n),), {"r": r, "z": z}


def reset_before(x_t: Tensor, before: States, weights: Weights, taps: States) -> Stepped:
    """Return the step of the GRU that resets the state before the matrix product.

        n = tanh(W_n (r · h_{t-1}) + V_n x_t + b_n)

    Source: Cho et al. (2014), version 3.
    """
    W_r, W_z, W_n = weights.weight_hh.chunk(3)
    of_r, of_z, of_n = (weights.weight_ih @ x_t + weights.bias_ih + weights.bias_hh).chunk(3)
    r, z = sigmoid(W_r @ before.h + of_r), sigmoid(W_z @ before.h + of_z)
    n = tanh(W_n @ (r * before.h) + of_n)
    return (n + z * (before.h - n) + taps.h,), {"r": r, "z": z}


def ugrnn(a: Named, s: Named) -> Stepped:
    """Return the step of the update gate RNN, the GRU without its reset gate.

        h_t = z · h_{t-1} + (1 - z) · tanh(h̃),  z = σ(z̃)

    Closed form: at zero weights ∂h_t/∂h_{t-k} = σ(b_z)^k. Source: Collins, Sohl-Dickstein and Sussillo (2017), whose
    g is z and whose c is h̃.
    """
    z, h = sigmoid(a.z), tanh(a.h)
    return (h + z * (s.h - h),), {"z": z}


def min_gru(a: Named, s: Named) -> Stepped:
    """Return the step of the minGRU, whose gate and candidate see the input alone: units do not mix over time.

        h_t = (1 - z) · h_{t-1} + z · h̃,  z = σ(z̃)

    Closed form: at zero weights ∂h_t/∂h_{t-k} = 2^-k. Its gate keeps where it is shut. Source: Feng et al. (2024).
    """
    z = sigmoid(a.z)
    return (s.h + z * (a.h - s.h),), {"z": z}


def min_lstm(a: Named, s: Named) -> Stepped:
    """Return the step of the minLSTM, whose gates and candidate see the input alone, and whose gates sum to 1.

        h_t = f' · h_{t-1} + i' · h̃,  f' = σ(f̃) / (σ(f̃) + σ(ĩ)),  i' = 1 - f'

    Closed form: at zero weights ∂h_t/∂h_{t-k} = 2^-k. The gates that are measured are f' and i'. Source: Feng et al.
    (2024).
    """
    f, i = sigmoid(a.f), sigmoid(a.i)
    keep = f / (f + i)
    return (a.h + keep * (s.h - a.h),), {"f": keep, "i": 1 - keep}


GRU_GATES = dict.fromkeys("rzn", H_AND_X)
CELLS = {
    "gru": Cell(gates=GRU_GATES | {"n": APART}, pointwise=gru, keep_gate="z", torch_class=nn.GRU),
    "gru_reset_before": Cell(gates=GRU_GATES, whole_step=reset_before, keep_gate="z"),
    "ugrnn": Cell(gates=dict.fromkeys("hz", H_AND_X), pointwise=ugrnn, keep_gate="z"),
    "min_gru": Cell(gates=dict.fromkeys("zh", X_ONLY), pointwise=min_gru, keep_gate="z", keeps_when_open=False),
    "min_lstm": Cell(gates=dict.fromkeys("fih", X_ONLY), pointwise=min_lstm, keep_gate="f"),
}
