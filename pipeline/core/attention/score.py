"""Soft attention of a decoder: score, softmax, weighted sum, and what of it enters the recurrence.

    weight_us = softmax over s of score(q_u, k_s)          source positions that are padding weigh 0
    context_u = Σ_s weight_us k_s

Scores, with q the decoder's state and k_s the annotation of source position s:

    dot       q · k_s
    general   q · W k_s
    additive  v · tanh(W_q q + W_k k_s)

Source: Luong, Pham and Manning (2015), whose *concat* is the additive score of Bahdanau, Cho and Bengio (2015). Shapes:
B batch, U queries, S source positions, H units of a query and of an annotation. Of a source that is all padding nothing
is seen: every weight is 0, and so is the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.config.strict import Checked, require
from pipeline.core.cells.products import mapped, matmul

Feeding = Literal["nothing", "attentional_state", "context"]
"""What enters the recurrence beside the previous token.

nothing: the query is h_u, and the context changes the output alone (Luong); attentional_state: the same, and h̃_u enters
step u + 1 (Luong's input feeding); context: the query is h_{u-1}, and the context enters step u (Bahdanau; Xu).
"""


@dataclass(frozen=True, kw_only=True)
class NoAttention(Checked):
    """The decoder sees the source through its first state alone."""

    name: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class Dot(Checked):
    """Score q · k_s."""

    name: Literal["dot"] = "dot"
    feeds: Feeding


@dataclass(frozen=True, kw_only=True)
class General(Checked):
    """Score q · W k_s."""

    name: Literal["general"] = "general"
    feeds: Feeding


@dataclass(frozen=True, kw_only=True)
class Additive(Checked):
    """Score v · tanh(W_q q + W_k k_s), with `size` hidden units."""

    name: Literal["additive"] = "additive"
    feeds: Feeding
    size: int

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "an integer of at least 1", self.size)


NO_ATTENTION = NoAttention()

DecoderAttention = Dot | General | Additive


class Attended(NamedTuple):
    """What attention returns: contexts (B, U, H) and weights (B, U, S), each row of which sums to 1, or is 0."""

    context_BUH: Tensor
    weights_BUS: Tensor


class Attention(nn.Module):
    """Attention of queries to annotations, both of `size` units.

    Args:
        spec: Which score.
        size: H.
        generator: Where the initial weights come from, U(-1/√fan_in, 1/√fan_in).
    """

    def __init__(self, spec: DecoderAttention, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        if isinstance(spec, General):
            self.weight = uniform_parameter((size, size), generator)
        if isinstance(spec, Additive):
            self.weight_query = uniform_parameter((spec.size, size), generator)
            self.weight_key = uniform_parameter((spec.size, size), generator)
            self.direction = uniform_parameter((spec.size,), generator)

    def forward(
        self,
        query_BUH: Tensor,
        keys_BSH: Tensor,
        mask_BS: Tensor | None = None,
        projected_BSK: Tensor | None = None,
    ) -> Attended:
        """Return contexts and weights.

        Args:
            query_BUH: States of the decoder.
            keys_BSH: Annotations of the source.
            mask_BS: Which source positions are no padding; None is all.
            projected_BSK: `project(keys_BSH)`, for a decoder that asks again and again; None has it made here.
        """
        projected_BSK = self.project(keys_BSH) if projected_BSK is None else projected_BSK
        weights_BUS = softmax_of(self.score(query_BUH, projected_BSK), None if mask_BS is None else mask_BS[:, None])
        return Attended(matmul(weights_BUS, keys_BSH), weights_BUS)

    def project(self, keys_BSH: Tensor) -> Tensor:
        """Return what the score reads of the annotations, which is the same for every query."""
        if isinstance(self.spec, Additive):
            return mapped(keys_BSH, self.weight_key)
        return mapped(keys_BSH, self.weight) if isinstance(self.spec, General) else keys_BSH

    def score(self, query_BUH: Tensor, projected_BSK: Tensor) -> Tensor:
        """Return how well each query and projected annotation match, (B, U, S)."""
        if isinstance(self.spec, Additive):
            query = mapped(query_BUH, self.weight_query)
            # not @: a product with a vector of a replica batch is another one
            return (torch.tanh(query[:, :, None] + projected_BSK[:, None]) * self.direction).sum(dim=3)
        return matmul(query_BUH, projected_BSK.transpose(1, 2))


def softmax_of(scores: Tensor, seen: Tensor | None) -> Tensor:
    """Return the softmax of scores (…, S) over the source positions that are seen, and 0 at the others.

    Where none is seen, every weight and every gradient is 0: a softmax over nothing would be NaN in both.

    Args:
        scores: Of queries and source positions.
        seen: Which positions count, of a shape that broadcasts to that of the scores; None is all.
    """
    if seen is None:
        return scores.softmax(dim=-1)
    nothing = ~seen.any(dim=-1, keepdim=True)
    return scores.masked_fill(~(seen | nothing), -torch.inf).softmax(dim=-1).masked_fill(nothing, 0.0)


def uniform_parameter(shape: tuple[int, ...], generator: torch.Generator) -> nn.Parameter:
    """Return a parameter drawn from U(-1/√n, 1/√n), n being its last axis."""
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
