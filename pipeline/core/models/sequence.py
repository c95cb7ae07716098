"""Recurrent layers alone: with a linear readout at the last or every timestep, or through a code, to draw frames again.

Shapes: B batch, T timesteps, D input, O output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import generator, initialise_stack, linear, readout_of
from pipeline.core.models.interface import Interface
from pipeline.core.models.network import Network, NetworkRun


class SequenceModel(Network):
    """Encode, recur, read out; see `Network` for the arguments.

    Where the target stands at the last timestep, a bidirectional network reads out the last state of each direction.
    """

    options = Network.options | {"initial", "num_scored"}

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        start = generator(seed, "recurrent")
        self.recurrent = RecurrentStack(
            spec.cell, self.input_size, spec.hidden_size, start, spec.num_layers, spec.bidirectional
        )
        self.readout = readout_of(self.recurrent.output_size, interface.output_size, spec.initialisation, seed)
        initialise_stack(self.recurrent, spec.initialisation, seed)

    def predict(self, inputs: Tensor, run: NetworkRun) -> tuple[Tensor, None]:
        """Return predictions, (B, O) or (B, T, O)."""
        x_BTD = run.tap(self.encode(inputs))
        recurrent = run.recur("recurrent", x_BTD.transpose(0, 1), lengths_B=self.lengths(inputs))
        if self.interface.target_at == "last":
            ends = [self.recurrent.cell.seen(each) for each in recurrent.final[-self.recurrent.num_directions :]]
            return self.readout(torch.cat(ends, dim=1)), None
        num_scored = run.options.num_scored
        scored = recurrent.outputs if num_scored is None else recurrent.outputs[-num_scored:]
        values = self.readout(scored.contiguous())  # in a replica batch a product with a transposed view is another one
        return values.transpose(0, 1), None


class Autoencoder(Network):
    """Read frames, keep a few numbers of them, draw the frames again; see `Network` for the arguments.

        code = W_e (last state of the encoder)              `code_size` numbers, C
        frame_t = readout(recurrence(code, h_{t-1}))        the code at every timestep; the decoder reads no frame

    Source: Srivastava, Mansimov and Salakhutdinov (2015), the unconditioned decoder. They copy the whole state; here
    the code between makes it low-dimensional.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        assert spec.code_size is not None  # noqa: S101 - `check_model` has seen to it
        size, start = spec.hidden_size, generator(seed, "recurrent")
        self.encoder = RecurrentStack(spec.cell, interface.input_size, size, start, spec.num_layers)
        self.code = linear(self.encoder.output_size, spec.code_size, generator(seed, "code"))
        self.decoder = RecurrentStack(spec.cell, spec.code_size, size, generator(seed, "decoder"), spec.num_layers)
        self.readout = readout_of(self.decoder.output_size, interface.output_size, spec.initialisation, seed)
        for part, stack in enumerate(self.stacks.values()):
            initialise_stack(stack, spec.initialisation, seed, part)

    def predict(self, inputs: Tensor, run: NetworkRun) -> tuple[Tensor, None]:
        """Return the frames drawn, (B, T, D)."""
        x_TBD = run.tap(inputs).transpose(0, 1)
        code_BC = self.code(self.encoder.cell.seen(run.recur("encoder", x_TBD).final[-1]))
        drawn = run.recur("decoder", code_BC.expand(len(x_TBD), *code_BC.shape))
        return self.readout(drawn.outputs.contiguous()).transpose(0, 1), None
