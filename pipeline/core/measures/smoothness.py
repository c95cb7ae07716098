"""How fast the gradient changes along an update, against which its step size and its norm can be judged.

    L = max over α of ‖∇f(θ + α d) - ∇f(θ)‖ / (α ‖d‖),   d = the update,   α = 1/6, 2/6, …, 5/6

a lower bound of the Lipschitz constant of the gradient on the segment; f is the loss on the probe batch.

Source: Zhang, He, Sra and Jadbabaie (2020), "Why gradient clipping accelerates training", who estimate it so. Here f is
always the loss on the same probe batch, in float64: neither sampling nor rounding shows in the difference of gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.measures.gradient_trace import in_float64
from pipeline.core.models import Inputs, Replicas

FRACTIONS = (1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6)


def local_smoothness(
    replicas: Replicas, before_RP: Tensor, after_RP: Tensor, inputs: Inputs, targets: Tensor
) -> Tensor:
    """Return the local smoothness of the loss between the parameters before and after an update, (R,), in float64.

    NaN where nothing was moved, or where the update or a gradient on the way is not finite.

    Args:
        replicas: The pack.
        before_RP: θ, of any precision.
        after_RP: θ + d.
        inputs: (B, T, D) or (B, T), the same for all replicas.
        targets: As the loss wants them.
    """
    start_RP, real = before_RP.double(), in_float64(inputs)
    update_RP = after_RP.double() - start_RP
    length_R = update_RP.norm(dim=1)

    def gradient(at_RP: Tensor) -> Tensor:
        return replicas.gradients(at_RP, real, targets, shared=True)[1]

    grad_RP = gradient(start_RP)
    changes = [(gradient(start_RP + alpha * update_RP) - grad_RP).norm(dim=1) / alpha for alpha in FRACTIONS]
    smoothness_R = torch.stack(changes).amax(dim=0) / length_R  # amax passes NaN on
    return torch.where(smoothness_R.isfinite() & length_R.isfinite(), smoothness_R, torch.nan)
