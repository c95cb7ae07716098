"""An LSTM autoencoder of frame sequences: an encoder reads them, a few numbers remain, a decoder draws them again.

    code = W_e (last state of the encoder)              `code_size` numbers
    frame_t = readout(recurrence(code, h_{t-1}))        the code at every timestep; the decoder reads no frame

Source: Srivastava, Mansimov and Salakhutdinov (2015), the unconditioned decoder. They copy the whole state; the code
between is what makes it low-dimensional. Shapes: B batch, T timesteps, D pixels of a frame, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.core.cells.stack import RecurrentStack, stack_states, unstack_states
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import initialise_readout, initialise_stack
from pipeline.core.models.interface import Interface, Prediction
from pipeline.core.models.network import Network
from pipeline.core.models.randomness import generator
from pipeline.core.models.sequence import linear


class Autoencoder(Network):
    """One network that says again what it was shown, through a code.

    Args:
        interface: Size of a frame.
        spec: Cell, sizes, `code_size`.
        seed: Where the initial weights come from.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__()
        assert spec.code_size is not None  # noqa: S101 - `check_model` has seen to it
        self.interface, size = interface, spec.hidden_size
        start = generator(seed, "recurrent")
        self.encoder = RecurrentStack(spec.cell, interface.input_size, size, start, spec.num_layers)
        self.code = linear(size, spec.code_size, generator(seed, "code"))
        self.decoder = RecurrentStack(spec.cell, spec.code_size, size, generator(seed, "decoder"), spec.num_layers)
        self.readout = linear(size, interface.output_size, generator(seed, "readout"))
        for part, stack in enumerate(self.stacks.values()):
            initialise_stack(stack, spec.cell, spec.initialisation, seed, part)
        initialise_readout(self.readout, spec.initialisation, seed)

    @property
    def stacks(self) -> dict[str, RecurrentStack]:
        """The recurrent parts by name."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def tap_shapes(self, inputs: Tensor) -> list[tuple[int, int]]:
        """Return timesteps and features of each tap."""
        *_, num_timesteps, num_inputs = inputs.shape
        return [*[(num_timesteps, self.encoder.hidden_size) for _ in self.state_keys], (num_timesteps, num_inputs)]

    def forward(
        self,
        inputs: Tensor,
        initial: Sequence[Tensor] = (),
        taps: Sequence[Tensor] = (),
        num_scored: int | None = None,
        state_threshold: float | None = None,
    ) -> Prediction:
        """Return the frames drawn, (B, T, D); arguments as those of `SequenceModel`, every frame is scored."""
        x_TBD, encoder_taps, decoder_taps = inputs.transpose(0, 1), None, None
        if taps:
            *states, input_tap = taps
            half, cell = len(states) // 2, self.encoder.cell
            encoder_taps, decoder_taps = unstack_states(states[:half], cell), unstack_states(states[half:], cell)
            x_TBD = x_TBD + input_tap
        read = self.encoder(x_TBD, None, encoder_taps, state_threshold)
        code_BC = self.code(read.final[-1].h)
        drawn = self.decoder(code_BC.expand(len(x_TBD), *code_BC.shape), None, decoder_taps, state_threshold)
        states_of_both = [*stack_states(read.states), *stack_states(drawn.states)]
        return Prediction(self.readout(drawn.outputs.contiguous()).transpose(0, 1), states_of_both)
