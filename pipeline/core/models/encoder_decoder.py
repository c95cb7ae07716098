"""Sequence to sequence: an encoder reads, a decoder with parameters of its own writes, token by token.

    e_u = embedding of the token before
    h_u = recurrence(e_u, h_{u-1})            with what attention feeds beside e_u, if it feeds anything
    h̃_u = tanh(W_c [context_u; h_u])          h_u itself without attention
    logits_u = readout(h̃_u)

Where nothing of attention enters the recurrence, all output positions are one fast pass; else they are steps.

The encoder's last state is, layer by layer, the decoder's first one; a decoder with attention also looks at the
encoder's outputs. An encoder that reads both ways has half of the units in each direction: its two ends beside each
other are the decoder's first state, and need no matrix between them.

Source: Sutskever, Vinyals and Le (2014) and Cho et al. (2014) without attention; Luong, Pham and Manning (2015),
equations 5 and 6, with it. Shapes: B batch, S source and U target length, H hidden, O size of the target vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.core.attention.score import Attended, Attention, DecoderAttention, Feeding
from pipeline.core.cells import CELLS, States
from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import (
    embedding_of,
    generator,
    initialise_stack,
    linear,
    readout_of,
)
from pipeline.core.models.interface import Interface, Seq2SeqInputs
from pipeline.core.models.network import Network, NetworkRun, embedded


class Memory(NamedTuple):
    """What recurrent layers have of a source when they begin.

    Attributes:
        initial: Their states before the first step, (B, H) each, layer by layer.
        keys_BSH: Annotations of the source positions, to attend to.
        mask_BS: Which positions are no padding; None is all.
        projected_BSK: What the score reads of the annotations, where it has been worked out; None: at every look.
    """

    initial: Sequence[States]
    keys_BSH: Tensor
    mask_BS: Tensor | None
    projected_BSK: Tensor | None = None


class Step(NamedTuple):
    """Where recurrent layers are after a step: their states, h̃ (B, H), and the attention weights (B, S) if any."""

    states: Sequence[States]
    output_BH: Tensor
    weights_BS: Tensor | None


class AttendingStack(nn.Module):
    """Recurrent layers whose last state looks at a source at every step, if they have attention.

    Args:
        part: The name under which the network runs them, and that of the stream of their initial weights.
        width: Of what they read, without what attention feeds beside it.
        spec: Cell, sizes, attention.
        seed: Where the initial weights come from.
        place: Of this part among those of its network.
    """

    def __init__(self, part: str, width: int, spec: ModelSpec, seed: int, place: int = 0) -> None:
        super().__init__()
        self.part, self.size = part, spec.hidden_size * CELLS[spec.cell].num_outputs
        attention = spec.attention if isinstance(spec.attention, DecoderAttention) else None
        self.feeds: Feeding = "nothing" if attention is None else attention.feeds
        width += 0 if self.feeds == "nothing" else self.size
        self.stack = RecurrentStack(spec.cell, width, spec.hidden_size, generator(seed, part), spec.num_layers)
        initialise_stack(self.stack, spec.initialisation, seed, part=place)
        self.attention = self.combine = None
        if attention is not None:
            self.attention = Attention(attention, self.size, generator(seed, "attention"))
            self.combine = linear(2 * self.size, self.size, generator(seed, "combine"))

    def read(self, x_BUD: Tensor, memory: Memory, run: NetworkRun) -> tuple[Tensor, Tensor | None]:
        """Return h̃ at every step, (B, U, H), and the attention weights, (B, U, S), or None.

        Where nothing of attention enters the recurrence, all steps are one fast pass.
        """
        if self.feeds == "nothing":
            recurrent = run.recur(self.part, x_BUD.transpose(0, 1), memory.initial)
            return self._look(recurrent.outputs.transpose(0, 1), memory)
        memory, step = self.begin(memory)
        steps = [step := self.step(x_BD, step, memory, run) for x_BD in x_BUD.unbind(1)]
        return stacked(steps)

    def begin(self, memory: Memory) -> tuple[Memory, Step]:
        """Return the memory with what every step needs of it, and where the layers are before the first step."""
        nothing_BH = torch.zeros_like(self.stack.cell.seen(memory.initial[-1]))
        if self.attention is not None:
            memory = memory._replace(projected_BSK=self.attention.project(memory.keys_BSH))
        return memory, Step(memory.initial, nothing_BH, None)

    def step(self, x_BD: Tensor, before: Step, memory: Memory, run: NetworkRun) -> Step:
        """Return where the layers are one step later, any of attention being fed."""
        attended = None
        if self.attention is not None and self.feeds == "context":
            query_B1H = self.stack.cell.seen(before.states[-1])[:, None].contiguous()
            attended = self.attention(query_B1H, *memory[1:])
            x_BD = torch.cat([x_BD, attended.context_BUH[:, 0]], dim=1)
        elif self.feeds == "attentional_state":
            x_BD = torch.cat([x_BD, before.output_BH], dim=1)
        recurrent = run.recur(self.part, x_BD[None], before.states)
        output_B1H, weights_B1S = self._look(recurrent.outputs.transpose(0, 1), memory, attended)
        return Step(recurrent.final, output_B1H[:, 0], None if weights_B1S is None else weights_B1S[:, 0])

    def _look(self, h_BUH: Tensor, memory: Memory, attended: Attended | None = None) -> tuple[Tensor, Tensor | None]:
        """Return h̃, (B, U, H), and the weights; `attended` is from the query h_{u-1}, None for the query h_u."""
        h_BUH = h_BUH.contiguous()  # a product with a transposed view of a replica batch is another one
        if self.attention is None or self.combine is None:
            return h_BUH, None
        attended = attended or self.attention(h_BUH, *memory[1:])
        combined = torch.tanh(self.combine(torch.cat([attended.context_BUH, h_BUH], dim=2)))
        return combined, attended.weights_BUS


def stacked(steps: Sequence[Step]) -> tuple[Tensor, Tensor | None]:
    """Return h̃ of all steps, (B, U, H), and their weights, (B, U, S), or None."""
    weights = [step.weights_BS for step in steps if step.weights_BS is not None]
    return torch.stack([step.output_BH for step in steps], dim=1), torch.stack(weights, dim=1) if weights else None


class Decoder(AttendingStack):
    """Recurrent layers that write one token at a time, with or without attention to the source.

    Args:
        num_tokens: Size of the target vocabulary.
        spec: Cell, sizes, attention.
        seed: Where the initial weights come from.
    """

    def __init__(self, num_tokens: int, spec: ModelSpec, seed: int) -> None:
        super().__init__("decoder", spec.embedding_size or num_tokens, spec, seed, place=1)
        self.num_tokens = num_tokens
        self.embedding = embedding_of(num_tokens, spec.embedding_size, generator(seed, "decoder_embedding"))
        self.readout = readout_of(self.size, num_tokens, spec.initialisation, seed)

    def forward(self, inputs_BU: Tensor, memory: Memory, run: NetworkRun) -> tuple[Tensor, Tensor | None]:
        """Return the logits at every output position, (B, U, O), and the attention weights, (B, U, S), or None.

        Args:
            inputs_BU: The token before each.
            memory: What it has of the source.
            run: Runs its layers; its coins say which of the tokens are read, and not those that were written.
        """
        if run.options.coins is not None:
            return self._write(inputs_BU, run.options.coins, memory, run)
        output_BUH, weights_BUS = self.read(self._embedded(inputs_BU), memory, run)
        return self.readout(output_BUH), weights_BUS

    def _write(
        self, inputs_BU: Tensor, coins_BU: Tensor, memory: Memory, run: NetworkRun
    ) -> tuple[Tensor, Tensor | None]:
        """Return the same as `forward`, where a token that was written is read again unless a coin says otherwise."""
        memory, step = self.begin(memory)
        read, steps, logits = list[Tensor](), list[Step](), list[Tensor]()
        for u, token_B in enumerate(inputs_BU.unbind(1)):
            if u > 0:
                written_B = logits[-1].argmax(dim=-1).to(token_B.dtype)
                token_B = torch.where(coins_BU[:, u], token_B, written_B)
            step = self.step(self._embedded(token_B), step, memory, run)
            read.append(token_B)
            steps.append(step)
            logits.append(self.readout(step.output_BH))
        run.decoder_inputs = torch.stack(read, dim=1)
        return torch.stack(logits, dim=1), stacked(steps)[1]

    def _embedded(self, tokens: Tensor) -> Tensor:
        return embedded(tokens, self.embedding, self.num_tokens, self.readout.weight.dtype)


class Seq2SeqNetwork(Network):
    """A network whose decoder, its last part, writes tokens from what `read` returns of the source."""

    options = Network.options | {"coins"}
    decoder: Decoder

    @abstractmethod
    def read(self, source: Tensor, run: NetworkRun) -> Memory:
        """Return what the decoder is to have of the source."""

    def predict(self, inputs: Seq2SeqInputs, run: NetworkRun) -> tuple[Tensor, Tensor | None]:
        """Return logits at every output position, (B, U, O), and attention weights, (B, U, S)."""
        logits_BUO, weights_BUS = self.decoder(inputs.decoder_inputs, self.read(inputs.source, run), run)
        return logits_BUO, weights_BUS


class EncoderDecoder(Seq2SeqNetwork):
    """One network that maps a token sequence to another one; see `Network` for the arguments.

    Encoder and decoder have the same cell and number of layers.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        size = spec.hidden_size // 2 if spec.bidirectional else spec.hidden_size
        start = generator(seed, "recurrent")
        self.encoder = RecurrentStack(spec.cell, self.input_size, size, start, spec.num_layers, spec.bidirectional)
        initialise_stack(self.encoder, spec.initialisation, seed)
        self.decoder = Decoder(interface.output_size, spec, seed)

    def read(self, source: Tensor, run: NetworkRun) -> Memory:
        """Return what the encoder makes of symbol ids, (B, S)."""
        x_BSD = run.tap(self.encode(source))
        encoded = run.recur("encoder", x_BSD.transpose(0, 1), lengths_B=self.lengths(source))
        width = self.encoder.num_directions
        layers = [encoded.final[at : at + width] for at in range(0, len(encoded.final), width)]
        keys_BSH = encoded.outputs.transpose(0, 1).contiguous()
        return Memory([States.concatenate(ends, dim=1) for ends in layers], keys_BSH, self.interface.mask(source))
