"""Recurrences that are time steps of a differential equation of second order: y is seen, z drives it.

In `States` h is y and c is z. The step Δt and the constants of the equations are those that the authors published for
one task; a cell with others is a line in `CELLS`.
"""

from __future__ import annotations

import torch
from torch import Tensor, sigmoid, tanh

from pipeline.core.cells.cell import H_AND_X, X_ONLY, Cell, Named, States, Stepped, Weights

CORNN_STEP, CORNN_STIFFNESS, CORNN_DAMPING = 0.06, 66.0, 15.0
"""Δt, γ and ε for the adding problem."""

UNICORNN_STEP, UNICORNN_STIFFNESS = 0.19, 30.65
"""Δt and α for permuted digits, pixel by pixel."""

LEM_STEP = 0.0242
"""Δt for the adding problem."""


def cornn(dt: float = CORNN_STEP, gamma: float = CORNN_STIFFNESS, epsilon: float = CORNN_DAMPING) -> Cell:
    """Return the coupled oscillatory network.

        z_t = z_{t-1} + Δt (tanh(W y_{t-1} + 𝒲 z_{t-1} + V x_t + b) - γ y_{t-1} - ε z_{t-1})
        y_t = y_{t-1} + Δt z_t

    Closed form: at zero weights the determinant of the map of a unit's (y, z) is 1 - Δt ε. Source: Rusch and Mishra
    (2021), as in their code, where the damping is explicit.
    """

    def pointwise(a: Named, s: Named) -> Stepped:
        z = s.c + dt * (tanh(a.z) - gamma * s.h - epsilon * s.c)
        return (s.h + dt * z, z), {}

    return Cell(gates={"z": H_AND_X}, states=("h", "c"), pointwise=pointwise, num_feeding=2)


def unicornn(dt: float = UNICORNN_STEP, alpha: float = UNICORNN_STIFFNESS) -> Cell:
    """Return the undamped independent oscillators: Hamilton's equations, stepped symplectically.

        z_t = z_{t-1} - Δ (tanh(w · y_{t-1} + V x_t + b) + α y_{t-1})
        y_t = y_{t-1} + Δ z_t,   Δ = Δt σ̂(c),  σ̂(c) = ½ + ½ tanh(c/2)

    Closed form: the determinant of the map of a unit's (y, z) is 1. Source: Rusch and Mishra (2021), one layer;
    w ~ U(0, 1) and c ~ U(-0.1, 0.1), as in their code.
    """

    def pointwise(a: Named, s: Named) -> Stepped:
        z = s.c - a.step * (tanh(a.w * s.h + a.z) + alpha * s.h)
        return (s.h + a.step * z, z), {}

    def prepare(weights: Weights) -> Weights:
        w, c = weights.weight_u
        return weights._replace(weight_u=torch.stack([w, dt * sigmoid(c)]))

    def start(H: int, generator: torch.Generator) -> Tensor:
        w, c = torch.rand(2, H, generator=generator)
        return torch.stack([w, 0.2 * c - 0.1])

    return Cell(
        gates={"z": X_ONLY},
        states=("h", "c"),
        pointwise=pointwise,
        per_unit=("w", "step"),
        prepare=prepare,
        start=start,
    )


def lem(dt: float = LEM_STEP) -> Cell:
    """Return the long expressive memory: two gates are time steps, so that units have time scales of their own.

        Δ1, Δ2 = Δt σ(W y_{t-1} + V x_t + b)
        z_t = (1 - Δ1) z_{t-1} + Δ1 tanh(W_z y_{t-1} + V_z x_t + b_z)
        y_t = (1 - Δ2) y_{t-1} + Δ2 tanh(W_y z_t + V_y x_t + b_y)

    Closed form: at zero weights both states fall as (1 - Δt/2)^k. The gates that are measured are Δ1 and Δ2; Δ2 keeps
    what is seen where it is shut. Source: Rusch et al. (2022), as in their code.
    """

    def whole_step(x_t: Tensor, before: States, weights: Weights, taps: States) -> Stepped:
        assert before.c is not None and taps.c is not None  # noqa: S101, PT018 - the cell has both states
        W_1, W_2, W_z, W_y = weights.weight_hh.chunk(4)
        of_1, of_2, of_z, of_y = (weights.weight_ih @ x_t + weights.bias_ih + weights.bias_hh).chunk(4)
        step_1, step_2 = dt * sigmoid(W_1 @ before.h + of_1), dt * sigmoid(W_2 @ before.h + of_2)
        z = before.c + step_1 * (tanh(W_z @ before.h + of_z) - before.c) + taps.c
        y = before.h + step_2 * (tanh(W_y @ z + of_y) - before.h) + taps.h
        return (y, z), {"1": step_1, "2": step_2}

    return Cell(
        gates=dict.fromkeys("12zy", H_AND_X),
        states=("h", "c"),
        whole_step=whole_step,
        keep_gate="2",
        keeps_when_open=False,
    )


CELLS = {"cornn": cornn(), "unicornn": unicornn(), "lem": lem()}
