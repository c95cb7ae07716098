"""Multi-head attention: queries of one sequence look at keys of another, or of their own, in several subspaces at once.

    weights_us = softmax over s of q_u · k_s / √d          q = W_q x + b_q,  k = W_k y + b_k
    head_u = Σ_s weights_us v_s                            v = W_v y + b_v
    output_u = W_o [head 1; head 2; …] + b_o

x and y may be of different kinds and sizes (cross-attention): both are projected to where they can be compared. In
self-attention they are one.

Source: Vaswani et al. (2017), equation 1 and section 3.2.2. Shapes: B batch, U queries, S source positions, N heads,
H units of all heads together, d = H / N of one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core.attention.score import softmax_of, uniform_parameter
from pipeline.core.cells.products import Linear, matmul


class MultiHeadAttended(NamedTuple):
    """What attention returns: outputs (B, U, H), and weights (B, N, U, S), each row of which sums to 1, or is 0."""

    output_BUH: Tensor
    weights_BNUS: Tensor


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in `num_heads` heads.

    Args:
        query_size: Numbers of a query's timestep.
        key_size: Numbers of a source position.
        hidden_size: H; `num_heads` divides it.
        num_heads: N.
        generator: Where the initial weights come from, U(-1/√fan_in, 1/√fan_in); biases are 0.

    Raises:
        ValueError: If the heads cannot share the units equally.
    """

    def __init__(
        self, query_size: int, key_size: int, hidden_size: int, num_heads: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        if num_heads < 1 or hidden_size % num_heads:
            raise ValueError(f"num_heads: expected a divisor of hidden_size, {hidden_size}; got {num_heads}")
        self.num_heads = num_heads
        self.query = drawn_linear(query_size, hidden_size, generator)
        self.key = drawn_linear(key_size, hidden_size, generator)
        self.value = drawn_linear(key_size, hidden_size, generator)
        self.output = drawn_linear(hidden_size, hidden_size, generator)

    def forward(
        self, x_BUD: Tensor, y_BSD: Tensor, mask_BS: Tensor | None = None, causal: bool = False
    ) -> MultiHeadAttended:
        """Return outputs and weights.

        Args:
            x_BUD: What queries are made of.
            y_BSD: What keys and values are made of; `x_BUD` itself for self-attention.
            mask_BS: Which source positions are no padding; None is all. Of a source without any, every weight is 0.
            causal: Whether query u sees source positions 1 to u only.
        """
        q_BNUd, k_BNSd, v_BNSd = (self._heads(h) for h in (self.query(x_BUD), self.key(y_BSD), self.value(y_BSD)))
        score_BNUS = matmul(q_BNUd, k_BNSd.transpose(2, 3)) * q_BNUd.shape[3] ** -0.5
        seen = None if mask_BS is None else mask_BS[:, None, None]
        if causal:
            earlier_US = torch.ones(score_BNUS.shape[2:], dtype=torch.bool, device=x_BUD.device).tril()
            seen = earlier_US if seen is None else seen & earlier_US
        weights_BNUS = softmax_of(score_BNUS, seen)
        heads_BUNd = matmul(weights_BNUS, v_BNSd).transpose(1, 2)
        return MultiHeadAttended(self.output(heads_BUNd.flatten(2)), weights_BNUS)

    def _heads(self, h_BTH: Tensor) -> Tensor:
        return h_BTH.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def drawn_linear(num_inputs: int, num_outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with weights from U(-1/√num_inputs, 1/√num_inputs) and no bias to begin with."""
    linear = Linear(num_inputs, num_outputs, device="meta")  # draws nothing
    linear.weight = uniform_parameter((num_outputs, num_inputs), generator)
    linear.bias = nn.Parameter(torch.zeros(num_outputs))
    return linear
