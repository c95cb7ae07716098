"""Layers of self-attention in place of recurrent ones: every timestep asks all others at once, no state is carried.

    h^0_t = W x_t + b + p_t
    h' = h + attention(h, h, h)           h^{l+1} = h' + W_2 relu(W_1 h' + b_1) + b_2

p_t, a wave of its own in each unit, lets an order be seen; it has no parameters, and goes on at any length. A network
that is not bidirectional reads forward in time: timestep t sees timesteps 1 to t only.

Source: Vaswani et al. (2017), sections 3.1-3.5; here without layer normalisation, and H units inside the ReLU layer.
Shapes: B batch, T timesteps, L layers, N heads, D input, H hidden, O output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.core.attention.multihead import MultiHeadAttended, MultiHeadAttention
from pipeline.core.cells.stack import RecurrentStack, last_of
from pipeline.core.models.architecture import ModelSpec, SelfAttention
from pipeline.core.models.initialisation import initialise_readout
from pipeline.core.models.interface import Interface, Prediction
from pipeline.core.models.network import Network
from pipeline.core.models.randomness import generator
from pipeline.core.models.sequence import embedded, embedding_of, lengths_of, linear

LONGEST_WAVE = 10_000.0
"""Timesteps per radian of the slowest wave."""


class SelfAttentionLayer(nn.Module):
    """Self-attention, then the same ReLU layer at every timestep; each is added to what it was given.

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
    """Encode, attend layer by layer, read out: one network without recurrence, in the place of a `SequenceModel`.

    Args:
        interface: Kinds and sizes of inputs and targets.
        spec: Sizes and heads; its cell is not used.
        seed: Where the initial weights come from; each part draws from a stream of its own.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        assert isinstance(spec.attention, SelfAttention)  # noqa: S101 - the spec chose this class by it
        self.interface, self.causal, size = interface, not spec.bidirectional, spec.hidden_size
        self.embedding = embedding_of(interface.input_size, spec.embedding_size, generator(seed, "embedding"))
        self.input_size = spec.embedding_size or interface.input_size
        start, num_heads = generator(seed, "attention"), spec.attention.num_heads
        self.projection = linear(self.input_size, size, start)
        self.layers = nn.ModuleList(SelfAttentionLayer(size, num_heads, start) for _ in range(spec.num_layers))
        self.readout = linear(size, interface.output_size, generator(seed, "readout"))
        initialise_readout(self.readout, spec.initialisation, seed)

    @staticmethod
    def num_parameters(interface: Interface, spec: ModelSpec) -> int:
        """Return the number of trained numbers of such a network, without making it; those of an embedding apart."""
        H, width = spec.hidden_size, spec.embedding_size or interface.input_size
        return H * (width + 1) + spec.num_layers * 6 * H * (H + 1) + interface.output_size * (H + 1)

    @property
    def attends(self) -> bool:
        """Whether there are weights of attention to look at: there are."""
        return True

    @property
    def stacks(self) -> dict[str, RecurrentStack]:
        """The recurrent parts by name: there is none."""
        return {}

    def tap_shapes(self, inputs: Tensor) -> list[tuple[int, int]]:
        """Return timesteps and features of each tap for inputs (…, T, D) or (…, T)."""
        return [(inputs.shape[-1 if self.interface.input_kind == "token" else -2], self.input_size)]

    def forward(
        self,
        inputs: Tensor,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        """Return predictions, and what the last layer looked at, (B, T, T), the mean over its heads.

        Args:
            inputs: (B, T, D) real vectors or (B, T) symbol ids.
            initial: None is possible: no state is carried.
            taps: One, added to what is read, (T, B, D); or none.
            num_scored: Of targets at every timestep, how many at the end are asked for; None is all.
            state_threshold: None is possible: nothing flows back through time.
        """
        x_BTD = self.encode(inputs)
        if taps:
            x_BTD = x_BTD + taps[0].transpose(0, 1)
        lengths_B = lengths_of(inputs) if self.interface.padded else None
        h_BTH, weights = self.attend(x_BTD, lengths_B)
        looked_BTT = weights[-1].mean(dim=1)
        if self.interface.target_at == "last":
            return Prediction(self.readout(last_of(h_BTH.transpose(0, 1), lengths_B)), [], looked_BTT)
        scored_BTH = h_BTH if num_scored is None else h_BTH[:, -num_scored:]
        return Prediction(self.readout(scored_BTH), [], looked_BTT)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return what is read, (B, T, D)."""
        if self.interface.input_kind == "real":
            return inputs
        return embedded(inputs, self.embedding, self.interface.input_size, self.readout.weight.dtype)

    def attend(self, x_BTD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return what the last layer puts out, (B, T, H), and the weights of every layer, (B, N, T, T) each.

        Args:
            x_BTD: What is read.
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
    """Return what tells timesteps apart, (T, H) float64: in units 2i and 2i + 1, sin and cos of t / 10000^(2i / H)."""
    unit_H = torch.arange(hidden_size, device=t_T.device)
    even_H = (unit_H - unit_H % 2).double()
    angle_TH = t_T[:, None] / LONGEST_WAVE ** (even_H / hidden_size)
    return torch.where(unit_H % 2 == 0, angle_TH.sin(), angle_TH.cos())
