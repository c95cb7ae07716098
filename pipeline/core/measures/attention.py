"""Where attention looks: how spread out, whether where it should, and whether at what is alike.

Weights are (…, B, U, S), and every measure but the entropy is a mean over all examples and output tokens that it is
defined for, (…): leading axes (replicas, layers, heads) are kept. What a weight is compared with has no such axes.
Padded source positions weigh 0. All in float64; NaN where no token has a value, and where a weight is NaN.

Shapes: B examples, U output tokens, S source positions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_nats(weights: Tensor) -> Tensor:
    """Return -Σ_s w_us ln w_us of every output token, (…, U): 0 for one position alone, ln S for all equally."""
    return torch.special.entr(weights.double()).sum(dim=-1)


def alignment_error(weights: Tensor, aligned_BUS: Tensor) -> Tensor:
    """Return the share of aligned output tokens whose largest weight lies outside their alignment; a tie is an error.

    Args:
        weights: (…, B, U, S).
        aligned_BUS: Which source positions a token is made from; for some tokens there is none.
    """
    inside = weights.double().masked_fill(~aligned_BUS, -torch.inf).amax(dim=-1)
    outside = weights.double().masked_fill(aligned_BUS, -torch.inf).amax(dim=-1)
    wrong = torch.where((inside + outside).isnan(), torch.nan, (outside >= inside).double())
    return mean_over_tokens(wrong, aligned_BUS.any(dim=-1))


def alignment_share(weights: Tensor, aligned_BUS: Tensor) -> Tensor:
    """Return how much of the weight of an aligned output token lies inside its alignment, from 0 to 1.

    Args:
        weights: (…, B, U, S).
        aligned_BUS: As for `alignment_error`.
    """
    return mean_over_tokens(_mass(weights, aligned_BUS), aligned_BUS.any(dim=-1))


def rank_correlation(weights: Tensor, similarity_BUS: Tensor, mask_BS: Tensor | None = None) -> Tensor:
    """Return Spearman's correlation over source positions between weight and similarity, from -1 to 1.

    It is Pearson's of the ranks, where ties share the mean of theirs. A token whose weights or similarities all tie has
    none.

    Args:
        weights: (…, B, U, S).
        similarity_BUS: How alike the content of an output and a source position is, on any scale.
        mask_BS: Which source positions are ranked; None is all.
    """
    mask_BUS = torch.ones_like(similarity_BUS, dtype=torch.bool)
    if mask_BS is not None:
        mask_BUS = mask_BUS & mask_BS[:, None]
    x, y = (_centred_ranks(values.double(), mask_BUS) for values in (weights, similarity_BUS))
    scale = (x.square().sum(dim=-1) * y.square().sum(dim=-1)).sqrt()
    return mean_over_tokens((x * y).sum(dim=-1) / scale, scale != 0)


def within_class_share(weights: Tensor, same_BSS: Tensor) -> Tensor:
    """Return the weight that self-attention gives to *other* positions of the asking one's class, relative to chance.

        Σ weights on others of the class / Σ (number of them / number of positions)

    over the positions that have such others: 1 for equal weights everywhere, 0 for a position that sees itself alone.

    Args:
        weights: (…, B, S, S).
        same_BSS: Whether two positions are of one class; each is of its own, padding of none.
    """
    itself = torch.eye(same_BSS.shape[-1], dtype=torch.bool, device=same_BSS.device)
    others_BSS = same_BSS & ~itself
    num_positions_B = same_BSS.diagonal(dim1=1, dim2=2).sum(dim=1)
    chance_BS = others_BSS.sum(dim=-1) / num_positions_B[:, None]
    chosen_BS = others_BSS.any(dim=-1)
    return mean_over_tokens(_mass(weights, others_BSS), chosen_BS) / mean_over_tokens(chance_BS.double(), chosen_BS)


def _mass(weights: Tensor, chosen_BUS: Tensor) -> Tensor:
    """Return the weight inside `chosen_BUS`, (…, B, U); NaN weights count wherever they are."""
    return (weights.double() * chosen_BUS).sum(dim=-1)


def _centred_ranks(values: Tensor, mask_BUS: Tensor) -> Tensor:
    """Return ranks from 1 less their mean, 0 where masked: rank_i = ½ + Σ_j [x_j < x_i] + ½ Σ_j [x_j = x_i]."""
    own, other, counted = values[..., :, None], values[..., None, :], mask_BUS[..., None, :]
    below, level = ((compared & counted).sum(dim=-1).double() for compared in (other < own, other == own))
    rank = 0.5 + below + 0.5 * level
    mean = (mask_BUS.double().sum(dim=-1, keepdim=True) + 1) / 2
    return torch.where(mask_BUS, torch.where(values.isnan(), torch.nan, rank - mean), 0.0)


def mean_over_tokens(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean over the tokens (B, U) that are chosen, (…)."""
    total = torch.where(chosen, values, 0.0).sum(dim=(-2, -1))
    return total / chosen.sum(dim=(-2, -1))
