"""What every clipping rule gives to the trial: a clipper, and the ledger of each update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
"""Parameter name to shape, of one network, in the order of its P numbers."""


class Ledger(NamedTuple):
    """What one update's clipping did, per replica; all of shape (R,), float64."""

    grad_norm: Tensor
    clipped_grad_norm: Tensor
    clip_cosine: Tensor


class Clipper(Protocol):
    """A rule at work on one trial's replicas, with whatever it remembers of earlier updates."""

    def clip(self, grad_RP: Tensor, flat_RP: Tensor) -> tuple[Tensor, Ledger]:
        """Return the gradient to apply, (R, P), and the ledger, for one update of the parameters `flat_RP`."""

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must keep; empty where nothing is remembered."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned, as if never interrupted."""


class Stateless:
    """A clipper that remembers nothing.

    Args:
        rule: A function of (gradient, parameters), (R, P) each, to the gradient to apply and the ledger.
    """

    def __init__(self, rule: Callable[[Tensor, Tensor], tuple[Tensor, Ledger]]) -> None:
        self._rule = rule

    def clip(self, grad_RP: Tensor, flat_RP: Tensor) -> tuple[Tensor, Ledger]:
        """Return what the function returns."""
        return self._rule(grad_RP, flat_RP)

    def state(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing up."""


def compare(raw_RP: Tensor, applied_RP: Tensor, raw_norm: Tensor | None = None) -> Ledger:
    """Return the ledger of an update that applied `applied_RP` where the gradient was `raw_RP`, (R, P) each.

    The cosine is that of `cosine`, and 1 where one and the same tensor is given as both.

    Args:
        raw_RP: Gradients before clipping.
        applied_RP: Gradients after it.
        raw_norm: `norms(raw_RP)`, where the caller has them already.
    """
    raw_norm = norms(raw_RP) if raw_norm is None else raw_norm
    if applied_RP is raw_RP:
        return Ledger(raw_norm, raw_norm, torch.ones_like(raw_norm))
    applied_norm = norms(applied_RP)
    return Ledger(raw_norm, applied_norm, _cosine(raw_RP, applied_RP, raw_norm, applied_norm))


def norms(vectors_RP: Tensor) -> Tensor:
    """Return Euclidean norms of rows, (R,), in float64: squares of float32 overflow at 1e19 and vanish at 1e-23."""
    return torch.linalg.vector_norm(vectors_RP, dim=1, dtype=torch.float64)


def cosine(first_RP: Tensor, second_RP: Tensor) -> Tensor:
    """Return the cosine between rows, shape (R,); 1 where both are zero, NaN where one is, or is not finite."""
    return _cosine(first_RP, second_RP, norms(first_RP), norms(second_RP))


def _cosine(first_RP: Tensor, second_RP: Tensor, first_norm: Tensor, second_norm: Tensor) -> Tensor:
    dot = (first_RP.double() * second_RP).sum(dim=1)
    return torch.where((first_norm == 0) & (second_norm == 0), 1.0, dot / (first_norm * second_norm))
