"""A network that generates a series: it is shown where the series begins, and then reads nothing.

    o_t = W h_t + b                              what it says at timestep t, of the series at t + 1
    h_t ← h_t + α W⁺ (x_{t+1} - o_t)             forcing, after it has said it

W⁺ is the pseudo-inverse: of all states that say x_{t+1} the one with α = 1 is the nearest to h_t. The gradient that
flows back to h_t through a forced state is multiplied by I - α W⁺W: none is left along what was forced with α = 1.

Forcing every τ timesteps with α = 1 is sparse teacher forcing (Mikhaeil, Monfared and Durstewitz, 2022, who replace the
whole state, or its first units), at every timestep with α below 1 generalised teacher forcing (Hess et al., 2023, after
Doya, 1992). Shapes: T timesteps, B batch, D numbers of the series, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.cells import States
from pipeline.core.cells.products import matmul
from pipeline.core.models.architecture import ModelSpec
from pipeline.core.models.interface import Interface
from pipeline.core.models.network import NetworkRun, StateForcing
from pipeline.core.models.sequence import SequenceModel


class GeneratingModel(SequenceModel):
    """Generate, forced as the options of the pass say; see `Network` for the arguments.

    Without an option it makes forecasts: it is forced every `spec.generates` timesteps, so that it never says more than
    so many of them without a look at the series.
    """

    options = (SequenceModel.options | {"forcing"}) - {"initial"}
    generates = True

    def __init__(self, interface: Interface, spec: ModelSpec, seed: int) -> None:
        super().__init__(interface, spec, seed)
        assert spec.generates is not None  # noqa: S101 - `network_class` has seen to it
        self.forecasts = StateForcing(every=spec.generates, share=1.0)

    def predict(self, inputs: Tensor, run: NetworkRun) -> tuple[Tensor, None]:
        """Return what it says at every scored timestep, (B, T, D); it sees the first input, and where it is forced."""
        x_TBD = run.tap(inputs).transpose(0, 1)
        weight, bias = self.readout.weight, self.readout.bias
        inverse_DH = torch.linalg.solve(matmul(weight, weight.T), weight)  # W⁺, transposed
        every, share = run.options.forcing or self.forecasts
        num_timesteps, nothing = len(x_TBD), torch.zeros_like(x_TBD)
        zeros = x_TBD.new_zeros(x_TBD.shape[1], self.recurrent.hidden_size)
        states = [States(*(zeros for _ in self.recurrent.cell.states)) for _ in self.recurrent.places]
        said, missing, taken = [], x_TBD[0] - bias, 1.0
        for start in range(0, num_timesteps, every):
            forced = states[-1].h + taken * matmul(missing, inverse_DH)
            states[-1] = states[-1]._replace(h=forced)
            piece = run.recur("recurrent", nothing[start : start + every], states)
            said.append(self.readout(piece.outputs.contiguous()))
            states, stop = list(piece.final), start + every
            if stop < num_timesteps:
                missing, taken = x_TBD[stop] - said[-1][-1], share
        num_scored = run.options.num_scored or num_timesteps
        return torch.cat(said)[-num_scored:].transpose(0, 1), None
