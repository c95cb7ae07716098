"""A training step as one writes it with torch alone; nothing of this project is imported.

Every step is forward, mean squared error at the last timestep, backward, clip by global norm 1, Adam. A contender is a
function of no arguments that makes one step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

INPUT_SIZE = 2
SHAPES = ((32, 32, 200), (32, 128, 200), (16, 100, 400))  # B, H, T
TORCH_NN = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
TORCH_CELL = {"elman": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}

Step = Callable[[], None]


def batch(num_examples: int, num_timesteps: int) -> tuple[Tensor, Tensor]:
    """Return inputs (B, T, 2) and targets (B, 1)."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(num_examples, num_timesteps, INPUT_SIZE, generator=generator)
    return inputs, torch.rand(num_examples, 1, generator=generator)


def torch_nn(cell: str, B: int, H: int, T: int) -> Step:
    """Return the step of plain torch.nn, one seed, nothing traced."""
    recurrent, readout = TORCH_NN[cell](INPUT_SIZE, H), nn.Linear(H, 1)
    inputs, targets = batch(B, T)
    x_TBD = inputs.transpose(0, 1).contiguous()
    parameters = [*recurrent.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        outputs, _ = recurrent(x_TBD)
        nn.functional.mse_loss(readout(outputs[-1]), targets).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return step


def hand_unrolled(cell: str, B: int, H: int, T: int) -> Step:
    """Return the step of a loop over a torch.nn cell with every state's gradient retained, one seed."""
    recurrent, readout = TORCH_CELL[cell](INPUT_SIZE, H), nn.Linear(H, 1)
    inputs, targets = batch(B, T)
    parameters = [*recurrent.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        h, c, retained = torch.zeros(B, H), torch.zeros(B, H), []
        for x_t in inputs.unbind(1):
            if cell == "lstm":
                h, c = recurrent(x_t, (h, c))
                c.retain_grad()
                retained.append(c)
            else:
                h = recurrent(x_t, h)
            h.retain_grad()
            retained.append(h)
        nn.functional.mse_loss(readout(h), targets).backward()
        torch.stack([state.grad.norm() for state in retained])
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return step
