"""Sequence to sequence: an encoder reads, a decoder with parameters of its own writes.

The context is the encoder's last state, layer by layer the decoder's first one; a decoder with attention also looks at
the encoder's outputs. An encoder that reads both ways has half of the units in each direction: its two ends beside each
other are the decoder's first state, and need no matrix between them.

Source: Sutskever, Vinyals and Le (2014); Cho et al. (2014). Shapes: B batch, S source and U target length, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.core.cells.cell import States, joined_states
from pipeline.core.cells.stack import RecurrentStack, StackRun, stack_states, unstack_states
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.decoder import Decoder, Memory
from pipeline.core.models.initialisation import initialise_stack
from pipeline.core.models.interface import Interface, Prediction, Reading
from pipeline.core.models.network import Network, state_keys_of
from pipeline.core.models.randomness import generator
from pipeline.core.models.sequence import embedded, embedding_of, lengths_of


class EncoderDecoder(Network):
    """One network that maps a token sequence to another one.

    Args:
        interface: Sizes of the two vocabularies.
        spec: Cell, sizes, attention; the same for encoder and decoder.
        seed: Where the initial weights come from; each part draws from a stream of its own.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        self.interface = interface
        self.embedding = embedding_of(interface.input_size, spec.embedding_size, generator(seed, "embedding"))
        self.input_size = spec.embedding_size or interface.input_size
        size = spec.hidden_size // 2 if spec.bidirectional else spec.hidden_size
        start = generator(seed, "recurrent")
        self.encoder = RecurrentStack(spec.cell, self.input_size, size, start, spec.num_layers, spec.bidirectional)
        initialise_stack(self.encoder, spec.cell, spec.initialisation, seed)
        self.decoder = Decoder(interface.output_size, spec, seed)

    @property
    def stacks(self) -> dict[str, RecurrentStack]:
        """The recurrent parts by name."""
        return {"encoder": self.encoder, "decoder": self.decoder.stack}

    @property
    def attends(self) -> bool:
        """Whether the decoder looks at the source."""
        return self.decoder.attention is not None

    def tap_shapes(self, inputs: Reading) -> list[tuple[int, int]]:
        """Return timesteps and features of each tap."""
        lengths = {"encoder": inputs.source.shape[-1], "decoder": inputs.given.shape[-1]}
        states = [(lengths[key.part], self.stacks[key.part].hidden_size) for key in self.state_keys]
        return [*states, (lengths["encoder"], self.input_size)]

    def forward(
        self,
        inputs: Reading,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        """Return logits at every output position, and what encoder and decoder went through.

        Args:
            inputs: The source, (B, S), and what the decoder is given, (B, U).
            initial: None is possible: an encoder begins with zeros.
            taps: Added to the states and to what is read, (T, B, features) each, in the order of `tap_keys`; or none.
            num_scored: Every position is scored.
            state_threshold: See `RecurrentStack`.
        """
        encoder_taps, decoder_taps, input_tap = self._split(taps)
        run, memory = self._encode(inputs.source, encoder_taps, input_tap, state_threshold)
        decoded = self.decoder(inputs.given, memory, decoder_taps, state_threshold)
        states = [*stack_states(run.states), *stack_states(decoded.states)]
        return Prediction(decoded.logits_BUO, states, decoded.weights_BUS)

    def run_free(self, inputs: Reading, coins_BU: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoder was given and what it said, (B, U) each; see `Decoder.run_free`."""
        _, memory = self._encode(inputs.source, None, None, None)
        return self.decoder.run_free(inputs.given, memory, coins_BU)

    def _encode(
        self,
        source_BS: Tensor,
        taps: list[States] | None,
        input_tap: Tensor | None,
        state_threshold: float | None,
    ) -> tuple[StackRun, Memory]:
        dtype = self.decoder.readout.weight.dtype
        x_SBD = embedded(source_BS, self.embedding, self.interface.input_size, dtype).transpose(0, 1)
        x_SBD = x_SBD if input_tap is None else x_SBD + input_tap
        lengths_B = lengths_of(source_BS) if self.interface.padded else None
        run = self.encoder(x_SBD, None, taps, state_threshold, lengths_B)
        keys_BSH = run.outputs.transpose(0, 1).contiguous()
        return run, Memory(self._ends(run), keys_BSH, self.interface.mask(source_BS))

    def _ends(self, run: StackRun) -> list[States]:
        """Return the last states layer by layer, the directions beside each other."""
        width = self.encoder.num_directions
        layers = [run.final[at : at + width] for at in range(0, len(run.final), width)]
        return [joined_states(lambda ends: torch.cat(list(ends), dim=1), layer) for layer in layers]

    def _split(self, taps: Sequence[Tensor]) -> tuple[list[States] | None, list[States] | None, Tensor | None]:
        if not taps:
            return None, None, None
        *states, input_tap = taps
        num_encoder = len(state_keys_of("encoder", self.encoder))
        cell = self.encoder.cell
        return unstack_states(states[:num_encoder], cell), unstack_states(states[num_encoder:], cell), input_tap
