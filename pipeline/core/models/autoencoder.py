"""An autoencoder of frame sequences: an encoder reads them, a few numbers remain, a decoder draws them again.

    code = W_e (last state of the encoder)              `code_size` numbers
    frame_t = readout(recurrence(code, h_{t-1}))        the code at every timestep; the decoder reads no frame

Source: Srivastava, Mansimov and Salakhutdinov (2015), the unconditioned decoder. They copy the whole state; here the
code between makes it low-dimensional. Shapes: B batch, T timesteps, D pixels of a frame, H hidden, C code.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import generator, initialise_readout, initialise_stack, linear
from pipeline.core.models.interface import Interface
from pipeline.core.models.network import Network, NetworkRun


class Autoencoder(Network):
    """One network that draws its inputs again, through a code; see `Network` for the arguments."""

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        assert spec.code_size is not None  # noqa: S101 - `check_model` has seen to it
        size, start = spec.hidden_size, generator(seed, "recurrent")
        self.encoder = RecurrentStack(spec.cell, interface.input_size, size, start, spec.num_layers)
        self.code = linear(size, spec.code_size, generator(seed, "code"))
        self.decoder = RecurrentStack(spec.cell, spec.code_size, size, generator(seed, "decoder"), spec.num_layers)
        self.readout = linear(size, interface.output_size, generator(seed, "readout"))
        for part, stack in enumerate(self.stacks.values()):
            initialise_stack(stack, spec.initialisation, seed, part)
        initialise_readout(self.readout, spec.initialisation, seed)

    def predict(self, inputs: Tensor, run: NetworkRun) -> tuple[Tensor, None]:
        """Return the frames drawn, (B, T, D)."""
        x_TBD = run.tap(inputs).transpose(0, 1)
        code_BC = self.code(run.recur("encoder", x_TBD).final[-1].h)
        drawn = run.recur("decoder", code_BC.expand(len(x_TBD), *code_BC.shape))
        return self.readout(drawn.outputs.contiguous()).transpose(0, 1), None
