"""The linear recurrent unit: every unit a complex number that turns and decays at a rate of its own.

    s_t = λ · s_{t-1} + γ · (B x_t + b),   λ = exp(-exp ν + i exp θ)

In `States` h is the real part of s and c the imaginary one; what comes next sees both, so that a readout of either is
Re(C s). Trained are ν, θ and log γ.

Closed form: |∂s_t/∂s_{t-k}| = |λ|^k, exactly, whatever the inputs.

Source: Orvieto et al. (2023), appendix A. They add D x_t to what is seen, and have no b. |λ|² ~ U(r_min², r_max²), the
phase ~ U(0, 2π), and γ = √(1 - |λ|²) at the start; B ~ N(0, 1/(2D)) is `ScaledGaussian`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, cos, exp, sin

from pipeline.core.cells.cell import X_ONLY, Cell, Named, Stepped, Weights

SMALLEST_MODULUS, LARGEST_MODULUS = 0.9, 0.999
"""r_min and r_max, for images pixel by pixel."""


def lru(r_min: float = SMALLEST_MODULUS, r_max: float = LARGEST_MODULUS) -> Cell:
    """Return the linear recurrent unit whose |λ| begin between `r_min` and `r_max`."""

    def pointwise(a: Named, s: Named) -> Stepped:
        real = a.lambda_re * s.h - a.lambda_im * s.c + a.gamma * a.re
        imaginary = a.lambda_re * s.c + a.lambda_im * s.h + a.gamma * a.im
        return (real, imaginary), {}

    def prepare(weights: Weights) -> Weights:
        nu, theta, log_gamma = weights.weight_u
        modulus, phase = exp(-exp(nu)), exp(theta)
        per_unit = torch.stack([modulus * cos(phase), modulus * sin(phase), exp(log_gamma)])
        return weights._replace(weight_u=per_unit)

    def start(H: int, generator: torch.Generator) -> Tensor:
        ring, turn = 1 - torch.rand(2, H, dtype=torch.float64, generator=generator)  # in (0, 1], for the logarithms
        squared = r_min**2 + ring * (r_max**2 - r_min**2)
        return torch.stack(
            [(-0.5 * squared.log()).log(), (2 * math.pi * turn).log(), 0.5 * (1 - squared).log()]
        ).float()

    return Cell(
        gates={"re": X_ONLY, "im": X_ONLY},
        states=("h", "c"),
        pointwise=pointwise,
        per_unit=("lambda_re", "lambda_im", "gamma"),
        num_outputs=2,
        prepare=prepare,
        start=start,
    )


CELLS = {"lru": lru()}
