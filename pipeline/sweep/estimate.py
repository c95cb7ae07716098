"""What a trial will cost, before it runs: memory against what the machine has, time for the order and the dry run.

Both are rough on purpose. They are there to refuse `hidden_size: 100000` at once, and to start long trials first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.cells import CELLS
from pipeline.models import Interface, count_parameters
from pipeline.training.spec import TrialSpec

FLOATS_PER_PARAMETER = 6
"""The weight, its gradient, the clipped one, and up to three of the optimiser's."""

FLOATS_PER_STATE = 12
"""Kept for backpropagation per timestep, sequence, replica and hidden unit: states, gates and their gradients."""

SECONDS_PER_TIMESTEP = 1e-4
"""Forward and backward of one timestep when the matrices are tiny: the price of calling a few kernels."""

FLOPS_PER_SECOND = 1e10
"""Of one laptop core at small matrix products in float32."""


@dataclass(frozen=True)
class Workload:
    """The sizes that a trial's cost follows from.

    Attributes:
        num_timesteps: T of the input sequence.
        interface: Kinds and sizes of inputs and targets.
        num_data_bytes: Of the dataset's arrays.
    """

    num_timesteps: int
    interface: Interface
    num_data_bytes: int


def memory_bytes(spec: TrialSpec, work: Workload) -> int:
    """Return about how much memory the trial needs: float32 training and the float64 probe, all replicas at once."""
    num_replicas, hidden = len(spec.seeds), spec.model.hidden_size
    parameters = num_replicas * count_parameters(work.interface, spec.model.cell, hidden, spec.model.embedding_size)
    states = work.num_timesteps * num_replicas * hidden * FLOATS_PER_STATE
    training = 4 * (parameters * FLOATS_PER_PARAMETER + states * spec.training.batch_size)
    probe = 8 * (parameters * 2 + states * spec.diagnostics.probe_size)
    return training + probe + work.num_data_bytes


def duration_s(spec: TrialSpec, work: Workload) -> float:
    """Return about how many seconds one core needs for the trial's `max_steps`."""
    embedding_size = spec.model.embedding_size
    num_features = work.interface.input_size if embedding_size is None else embedding_size
    hidden, batch = spec.model.hidden_size, spec.training.batch_size * len(spec.seeds)
    products = len(CELLS[spec.model.cell].gates) * hidden * (hidden + num_features) * batch
    flops = 3 * 2 * products  # a product forward, two backward; a multiplication and an addition each
    return spec.training.max_steps * work.num_timesteps * (SECONDS_PER_TIMESTEP + flops / FLOPS_PER_SECOND)


def available_memory_bytes() -> int:
    """Return how much memory this machine could still give; all that it has, where psutil is not installed."""
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # free pages leave out what caches would give
    return int(psutil.virtual_memory().available)
