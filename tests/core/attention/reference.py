"""Attention of one query to a list of annotations, position by position: the formulas as written."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.attention.score import Additive, Attention, General


def score(attention: Attention, q: Tensor, k: Tensor) -> Tensor:
    """Return how well a query and an annotation match, both (H,)."""
    if isinstance(attention.spec, Additive):
        return attention.direction @ torch.tanh(attention.weight_query @ q + attention.weight_key @ k)
    return q @ attention.weight @ k if isinstance(attention.spec, General) else q @ k


def look(attention: Attention, q: Tensor, keys: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the context, (H,), and the weight of every annotation, (S,)."""
    parts = [torch.exp(score(attention, q, k)) for k in keys]
    weights = [part / sum(parts) for part in parts]
    return sum(weight * k for weight, k in zip(weights, keys, strict=True)), torch.stack(weights)
