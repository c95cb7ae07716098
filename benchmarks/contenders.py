"""This project's training step, for R seeds at once, on the engine of the sweeps or on the eager one.

The step is that of `benchmarks.plain`: forward, mean squared error at the last timestep, backward, clip by global norm
1, Adam.
"""

from __future__ import annotations

import torch

from benchmarks.plain import INPUT_SIZE, Step, batch
from pipeline.core.cells import CELLS, recurrence
from pipeline.core.clipping import clip_by_global_norm
from pipeline.core.models import Interface, ModelSpec, Replicas, SequenceModel


def kernel(cell: str) -> str:
    """Return what runs a cell's timesteps here, as the tables of results name it: `compiled` or `eager`."""
    return recurrence.kernel_of(CELLS[cell], torch.empty(0))


def on_eager(step: Step) -> Step:
    """Return the step with its recurrences in torch's own operations, as where there is no compiler."""

    def eager() -> None:
        before, recurrence.USE_EAGER = recurrence.USE_EAGER, True
        try:
            step()
        finally:
            recurrence.USE_EAGER = before

    return eager


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
