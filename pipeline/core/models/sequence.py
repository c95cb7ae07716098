"""Recurrent layers between an input encoding and a linear readout, at the last or at every timestep."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.cells.stack import RecurrentStack
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.initialisation import generator, initialise_readout, initialise_stack, linear
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
        self.readout = linear(self.recurrent.output_size, interface.output_size, generator(seed, "readout"))
        initialise_stack(self.recurrent, spec.initialisation, seed)
        initialise_readout(self.readout, spec.initialisation, seed)

    def predict(self, inputs: Tensor, run: NetworkRun) -> tuple[Tensor, None]:
        """Return predictions, (B, O) or (B, T, O)."""
        x_BTD = run.tap(self.encode(inputs))
        recurrent = run.recur("recurrent", x_BTD.transpose(0, 1), lengths_B=self.lengths(inputs))
        if self.interface.target_at == "last":
            ends = [state.h for state in recurrent.final[-self.recurrent.num_directions :]]
            return self.readout(torch.cat(ends, dim=1)), None
        num_scored = run.options.num_scored
        scored = recurrent.outputs if num_scored is None else recurrent.outputs[-num_scored:]
        values = self.readout(scored.contiguous())  # in a replica batch a product with a transposed view is another one
        return values.transpose(0, 1), None
