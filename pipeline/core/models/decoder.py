"""A recurrent decoder: reads the token before, writes the next one, and may look at the source while it does.

    e_u = embedding of the token before
    h_u = recurrence(e_u, h_{u-1})            with what attention feeds beside e_u, if it feeds anything
    h̃_u = tanh(W_c [context_u; h_u])          h_u itself without attention
    logits_u = readout(h̃_u)

Where nothing that attention says enters the recurrence, all output positions are one fast pass; else they are steps.

Source: Sutskever, Vinyals and Le (2014) without attention; Luong, Pham and Manning (2015), equations 5 and 6, with it.
Shapes: B batch, U output positions, S source positions, H hidden, O size of the target vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core.attention.score import Attended, Attention, DecoderAttention, Feeding
from pipeline.core.cells.cell import States, at_timestep, joined_states
from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import initialise_readout, initialise_stack
from pipeline.core.models.randomness import generator
from pipeline.core.models.sequence import embedded, embedding_of, linear


class Memory(NamedTuple):
    """What a decoder knows of the source.

    Attributes:
        initial: Its states before the first token, (B, H) each, layer by layer.
        keys_BSH: Annotations of the source positions, to attend to.
        mask_BS: Which of them there are; None is all.
    """

    initial: list[States]
    keys_BSH: Tensor
    mask_BS: Tensor | None


class Decoded(NamedTuple):
    """What a decoder did.

    Attributes:
        logits_BUO: Of the next token.
        states: Of each layer, (U, B, H).
        weights_BUS: Of attention; None without.
    """

    logits_BUO: Tensor
    states: list[States]
    weights_BUS: Tensor | None


class _Carried(NamedTuple):
    """What goes from one output position to the next: states by layer, (B, H), and the attentional state (B, H)."""

    states: list[States]
    attentional_BH: Tensor


class Decoder(nn.Module):
    """A decoder as the module says.

    Args:
        num_tokens: Size of the target vocabulary.
        spec: Cell, sizes, attention.
        seed: Where the initial weights come from.
    """

    def __init__(self, num_tokens: int, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        self.num_tokens, size = num_tokens, spec.hidden_size
        self.embedding = embedding_of(num_tokens, spec.embedding_size, generator(seed, "decoder_embedding"))
        attention = spec.attention if isinstance(spec.attention, DecoderAttention) else None
        self.feeds: Feeding = "nothing" if attention is None else attention.feeds
        width = (spec.embedding_size or num_tokens) + (0 if self.feeds == "nothing" else size)
        self.stack = RecurrentStack(spec.cell, width, size, generator(seed, "decoder"), spec.num_layers)
        initialise_stack(self.stack, spec.cell, spec.initialisation, seed, part=1)
        self.attention = self.combine = None
        if attention is not None:
            self.attention = Attention(attention, size, generator(seed, "attention"))
            self.combine = linear(2 * size, size, generator(seed, "combine"))
        self.readout = linear(size, num_tokens, generator(seed, "readout"))
        initialise_readout(self.readout, spec.initialisation, seed)

    def forward(
        self,
        given_BU: Tensor,
        memory: Memory,
        taps: Sequence[States] | None = None,
        state_threshold: float | None = None,
    ) -> Decoded:
        """Return what the decoder says at every output position.

        Args:
            given_BU: The token before each.
            memory: What it knows of the source.
            taps: Added to the states of each layer, (U, B, H) each.
            state_threshold: See `RecurrentStack`.
        """
        if self.feeds != "nothing":
            return self._step_by_step(given_BU, memory, taps, state_threshold)
        run = self.stack(self._embedded(given_BU).transpose(0, 1), memory.initial, taps, state_threshold)
        output_BUH, weights_BUS = self._attend(run.outputs.transpose(0, 1), memory)
        return Decoded(self.readout(output_BUH), list(run.states), weights_BUS)

    def run_free(self, given_BU: Tensor, memory: Memory, coins_BU: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoder was given, and its most probable token, at every output position, both (B, U).

        Where a coin is true it reads the token of `given_BU`, as at the first position; else the one it just said.
        """
        carried = self._first(memory)
        read: list[Tensor] = [given_BU[:, 0]]
        said: list[Tensor] = []
        for u in range(given_BU.shape[1]):
            if u:
                read.append(torch.where(coins_BU[:, u], given_BU[:, u], said[-1].to(given_BU.dtype)))
            logits_BO, carried, _ = self._step(read[-1], carried, memory)
            said.append(logits_BO.argmax(dim=-1))
        return torch.stack(read, dim=1), torch.stack(said, dim=1)

    def _step_by_step(
        self, given_BU: Tensor, memory: Memory, taps: Sequence[States] | None, state_threshold: float | None
    ) -> Decoded:
        carried = self._first(memory)
        logits: list[Tensor] = []
        weights: list[Tensor] = []
        states: list[list[States]] = []
        for u in range(given_BU.shape[1]):
            tap_u = None if taps is None else [at_timestep(tap, u) for tap in taps]
            logits_BO, carried, weights_BS = self._step(given_BU[:, u], carried, memory, tap_u, state_threshold)
            logits.append(logits_BO)
            weights.append(weights_BS)
            states.append(carried.states)
        by_layer = [joined_states(lambda each: torch.stack(list(each)), layer) for layer in zip(*states, strict=True)]
        return Decoded(torch.stack(logits, dim=1), by_layer, torch.stack(weights, dim=1))

    def _first(self, memory: Memory) -> _Carried:
        return _Carried(memory.initial, torch.zeros_like(memory.initial[-1].h))

    def _step(
        self,
        token_B: Tensor,
        carried: _Carried,
        memory: Memory,
        taps: Sequence[States] | None = None,
        state_threshold: float | None = None,
    ) -> tuple[Tensor, _Carried, Tensor]:
        """Return the logits (B, O) after one more token, what is carried on, and the weights (B, S or, without, 0)."""
        x_BD, asked = self._embedded(token_B), None
        if self.attention is not None and self.feeds == "context":
            asked = self.attention(carried.states[-1].h[:, None].contiguous(), memory.keys_BSH, memory.mask_BS)
            x_BD = torch.cat([x_BD, asked.context_BUH[:, 0]], dim=1)
        elif self.feeds == "attentional_state":
            x_BD = torch.cat([x_BD, carried.attentional_BH], dim=1)
        run = self.stack(x_BD[None], carried.states, taps, state_threshold)
        output_BUH, weights_BUS = self._attend(run.outputs.transpose(0, 1), memory, asked)
        carried = _Carried(list(run.final), output_BUH[:, 0])
        weights_BS = token_B.new_empty(len(token_B), 0) if weights_BUS is None else weights_BUS[:, 0]
        return self.readout(output_BUH[:, 0]), carried, weights_BS

    def _attend(self, h_BUH: Tensor, memory: Memory, asked: Attended | None = None) -> tuple[Tensor, Tensor | None]:
        """Return h̃, (B, U, H), and the weights; `asked` is the answer where h_{u-1} has asked already."""
        h_BUH = h_BUH.contiguous()  # a product with a transposed view is another one in a pack
        if self.attention is None or self.combine is None:
            return h_BUH, None
        attended = asked or self.attention(h_BUH, memory.keys_BSH, memory.mask_BS)
        combined = torch.tanh(self.combine(torch.cat([attended.context_BUH, h_BUH], dim=2)))
        return combined, attended.weights_BUS

    def _embedded(self, tokens: Tensor) -> Tensor:
        return embedded(tokens, self.embedding, self.num_tokens, self.readout.weight.dtype)
