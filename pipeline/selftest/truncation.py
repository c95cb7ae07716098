"""Truncated backpropagation with k2 over the whole sequence: its updates' gradients sum to the full gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from pipeline.core.models import RunOptions
from pipeline.core.training.truncation import Truncation, Windows
from pipeline.selftest.check import Check, absolute, at_least
from pipeline.selftest.networks import draw, replicas_of

NUM_TIMESTEPS = 12
SHORT = 3
SOURCE = "Williams and Peng (1990); the sum of the losses is the loss"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    for k1 in (1, 5, NUM_TIMESTEPS):
        name = f"TBPTT: relative error of its summed gradients, k1={k1}, k2=T={NUM_TIMESTEPS}"
        yield Check(name, 0.0, partial(_relative_error, k1, NUM_TIMESTEPS), absolute(1e-12), SOURCE)
    name = f"TBPTT: the same where k2 cuts the past off, k1=1, k2={SHORT}"
    yield Check(name, 1e-2, partial(_relative_error, 1, SHORT), at_least(), SOURCE)


def _relative_error(k1: int, k2: int) -> float:
    """Return how far the gradients of a sequence's updates, at fixed weights, are from the full gradient."""
    replicas = replicas_of("lstm", 6, input_size=2, num_layers=2, target_at="every")
    flat_RP = 3 * replicas.flat_RP.double()  # weights large enough that the past matters
    inputs, targets = draw(1, 4, NUM_TIMESTEPS, 2), draw(1, 4, NUM_TIMESTEPS, 1, seed=1)
    windows = Windows(Truncation(k1, k2), NUM_TIMESTEPS, "every")
    summed_RP, carried = torch.zeros_like(flat_RP), list[Tensor]()
    for step in range(windows.per_batch):
        window = windows.at(step)
        num_scored = window.num_scored or NUM_TIMESTEPS
        run = replicas.backpropagate(
            flat_RP,
            inputs[:, :, window.start : window.stop],
            targets[:, :, window.stop - num_scored : window.stop],
            RunOptions(initial=carried, num_scored=num_scored),
        )
        summed_RP += run.grad_RP * num_scored / NUM_TIMESTEPS  # each loss is the mean over its own timesteps
        carried = [state[:, window.carry - 1] for state in run.states] if window.carry else carried
    full_RP = replicas.gradients(flat_RP, inputs, targets)[1]
    return ((summed_RP - full_RP).norm() / full_RP.norm()).item()
