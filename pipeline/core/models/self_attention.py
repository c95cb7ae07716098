"""Layers of self-attention in place of recurrent ones: every timestep attends to all others, no state is carried.

    h^0_t = W x_t + b + p_t
    h' = h + attention(h, h, h)           h^{l+1} = h' + W_2 relu(W_1 h' + b_1) + b_2

p_t, a wave of its own in each unit, lets an order be seen; it has no parameters, and goes on at any length. A network
that is not bidirectional reads forward in time: timestep t sees timesteps 1 to t only.

Source: Vaswani et al. (2017), sections 3.1-3.5; here without layer normalisation, and H units inside the ReLU layer.
Shapes: B batch, T timesteps, L layers, N heads, D input, H hidden, O output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.core.attention.multihead import MultiHeadAttended, MultiHeadAttention
from pipeline.core.cells.stack import last_of
from pipeline.core.models.architecture import ModelSpec, SelfAttention
from pipeline.core.models.initialisation import generator, linear, readout_of
from pipeline.core.models.interface import Interface
from pipeline.core.models.network import Network, NetworkRun

LONGEST_WAVE = 10_000.0
"""Timesteps per radian of the slowest wave."""


class SelfAttentionLayer(nn.Module):
    """Self-attention, then the same ReLU layer at every timestep; each is added to its inputs.

    Args:
        hidden_size: H.
        num_heads: N.
        start: Where the initial weights come from.
    """

    def __init__(self, hidden_size: int, num_heads: int, start: torch.Generator) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size, hidden_size, hidden_size, num_heads, start)
        self.inner = linear(hidden_size, hidden_size, start)
        self.outer = linear(hidden_size, hidden_size, start)

    def forward(self, h_BTH: Tensor, mask_BT: Tensor | None = None, causal: bool = False) -> MultiHeadAttended:
        """Return the layer's outputs (B, T, H), and its weights (B, N, T, T); see `MultiHeadAttention`."""
        attended_BTH, weights_BNTT = self.attention(h_BTH, h_BTH, mask_BT, causal)
        h_BTH = h_BTH + attended_BTH
        return MultiHeadAttended(h_BTH + self.outer(self.inner(h_BTH).relu()), weights_BNTT)


class SelfAttentionModel(Network):
    """Encode, attend layer by layer, read out; see `Network` for the arguments. The spec's cell is not used."""

    options = frozenset({"taps", "num_scored"})

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        assert isinstance(spec.attention, SelfAttention)  # noqa: S101 - the spec chose this class by it
        self.causal, size, num_heads = not spec.bidirectional, spec.hidden_size, spec.attention.num_heads
        start = generator(seed, "attention")
        self.projection = linear(self.input_size, size, start)
        self.layers = nn.ModuleList(SelfAttentionLayer(size, num_heads, start) for _ in range(spec.num_layers))
        self.readout = readout_of(size, interface.output_size, spec.initialisation, seed)

    def predict(self, inputs: Tensor, run: NetworkRun) -> tuple[Tensor, Tensor]:
        """Return predictions, (B, O) or (B, T, O), and the last layer's weights, (B, T, T), the mean over its heads."""
        lengths_B = self.lengths(inputs)
        h_BTH, weights = self.attend(run.tap(self.encode(inputs)), lengths_B)
        mean_BTT = weights[-1].mean(dim=1)
        if self.interface.target_at == "last":
            last_BH = last_of(h_BTH.transpose(0, 1), torch.zeros_like(h_BTH[:, 0]), lengths_B)
            return self.readout(last_BH), mean_BTT
        num_scored = run.options.num_scored
        return self.readout(h_BTH if num_scored is None else h_BTH[:, -num_scored:]), mean_BTT

    def attend(self, x_BTD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs of the last layer, (B, T, H), and the weights of every layer, (B, N, T, T) each.

        Args:
            x_BTD: Encoded inputs.
            lengths_B: After how many timesteps each example ends; None where all have T.
        """
        t_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        mask_BT = None if lengths_B is None else t_T < lengths_B[:, None]
        h_BTH = self.projection(x_BTD)
        h_BTH = h_BTH + positions(t_T, h_BTH.shape[2]).to(h_BTH.dtype)
        weights = []
        for layer in self.layers:
            h_BTH, weights_BNTT = layer(h_BTH, mask_BT, self.causal)
            weights.append(weights_BNTT)
        return h_BTH, weights


def positions(t_T: Tensor, hidden_size: int) -> Tensor:
    """Return a code of each timestep, (T, H) float64: in units 2i and 2i + 1, sin and cos of t / 10000^(2i / H)."""
    unit_H = torch.arange(hidden_size, device=t_T.device)
    even_H = (unit_H - unit_H % 2).double()
    angle_TH = t_T[:, None] / LONGEST_WAVE ** (even_H / hidden_size)
    return torch.where(unit_H % 2 == 0, angle_TH.sin(), angle_TH.cos())
