"""Clipping rules, per replica, each with the ledger of what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from pipeline.config.strict import require


class Ledger(NamedTuple):
    """What one update's clipping did, per replica; all of shape (R,)."""

    grad_norm: torch.Tensor
    clipped_grad_norm: torch.Tensor
    clip_cosine: torch.Tensor


@dataclass(frozen=True)
class NoClipping:
    """The gradient as it is: the ledger still says how large it was."""

    name: Literal["none"]

    def clip(self, grad_RP: torch.Tensor) -> tuple[torch.Tensor, Ledger]:
        """Return the gradient itself and its ledger."""
        norm = norms(grad_RP)
        return grad_RP, Ledger(norm, norm, torch.ones_like(norm))


@dataclass(frozen=True)
class GlobalNorm:
    """Clip by global norm, g ← g · min(1, δ/‖g‖), over all parameters of a replica (Pascanu et al., 2013).

    One printed version of the rule has max in place of min: it makes small gradients large and shrinks none.
    """

    name: Literal["global_norm"]
    threshold: float

    def __post_init__(self) -> None:
        require(0 < self.threshold < float("inf"), "threshold", "a finite number above 0", self.threshold)

    def clip(self, grad_RP: torch.Tensor) -> tuple[torch.Tensor, Ledger]:
        """Return `clip_by_global_norm(grad_RP, threshold)` and its ledger."""
        return clip_by_global_norm(grad_RP, self.threshold)


Clipping = NoClipping | GlobalNorm
"""The variants that studies may name."""


def clip_by_global_norm(grad_RP: torch.Tensor, threshold: float) -> tuple[torch.Tensor, Ledger]:
    """Return g · min(1, δ/‖g‖) for each replica, and the ledger.

    A norm that is not finite scales nothing: the gradient passes as it is, for the caller to see.

    Args:
        grad_RP: Gradients of R replicas, each flattened to P numbers.
        threshold: The largest norm δ that passes unchanged.
    """
    norm = norms(grad_RP)
    scale = (threshold / norm).clamp(max=1.0)
    scale = torch.where(norm.isfinite() & (norm > 0), scale, torch.ones_like(scale))
    clipped = grad_RP * scale[:, None].to(grad_RP.dtype)
    return clipped, Ledger(norm, norms(clipped), cosine(grad_RP, clipped))


def norms(vectors_RP: torch.Tensor) -> torch.Tensor:
    """Return Euclidean norms of rows, (R,), in float64: squares of float32 overflow at 1e19 and vanish at 1e-23."""
    return torch.linalg.vector_norm(vectors_RP, dim=1, dtype=torch.float64)


def cosine(first_RP: torch.Tensor, second_RP: torch.Tensor) -> torch.Tensor:
    """Return the cosine between rows, shape (R,); 1 where both are zero, NaN where one is, or is not finite."""
    dot = (first_RP.double() * second_RP).sum(dim=1)
    first, second = norms(first_RP), norms(second_RP)
    return torch.where((first == 0) & (second == 0), torch.ones_like(dot), dot / (first * second))
