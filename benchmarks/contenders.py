"""One training step of the same network, three ways: this project's, torch.nn's, and a loop that keeps gradients.

Every step is forward, mean squared error at the last timestep, backward, clip by global norm 1, Adam. A contender is a
function of no arguments that makes one step; it serves `num_replicas` seeds in it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.core.clipping import clip_by_global_norm
from pipeline.core.models import Interface, ModelSpec, Replicas, SequenceModel

INPUT_SIZE = 2
TORCH_NN = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
TORCH_CELL = {"elman": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}

Step = Callable[[], None]


def batch(num_examples: int, num_timesteps: int) -> tuple[Tensor, Tensor]:
    """Return inputs (B, T, 2) and targets (B, 1)."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(num_examples, num_timesteps, INPUT_SIZE, generator=generator)
    return inputs, torch.rand(num_examples, 1, generator=generator)


def ours(cell: str, B: int, H: int, T: int, num_replicas: int, trace: bool) -> Step:
    """Return this project's step for R replicas at once; with `trace`, every dL/dh_t's norm is computed as well."""
    interface = Interface(
        input_kind="real", input_size=INPUT_SIZE, target_at="last", target_kind="value", output_size=1
    )
    replicas = Replicas(
        [SequenceModel(interface, ModelSpec.plain(cell=cell, hidden_size=H), seed) for seed in range(num_replicas)]
    )
    inputs, targets = (tensor.expand(num_replicas, *tensor.shape).contiguous() for tensor in batch(B, T))
    flat = replicas.flat_RP
    optimiser = torch.optim.Adam([flat], lr=1e-3)

    def step() -> None:
        if trace:
            run = replicas.backpropagate(flat, inputs, targets, trace=True)
            grad = run.grad_RP
            for grad_RTBH in run.grad_states.values():
                grad_RTBH.norm(dim=(2, 3))
        else:
            grad = replicas.backpropagate(flat, inputs, targets).grad_RP
        flat.grad = clip_by_global_norm(grad, 1.0)
        optimiser.step()

    return step


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
