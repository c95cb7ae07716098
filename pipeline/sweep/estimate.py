"""What a trial will cost, before it runs: memory against what the machine has, time for the order and the dry run.

Both are rough on purpose. They are there to refuse `hidden_size: 100000` at once, and to start long trials first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.core.cells import CELLS
from pipeline.core.models import Interface, count_parameters
from pipeline.core.training.diagnostics import NUM_JACOBIAN_EXAMPLES
from pipeline.core.training.evaluation import num_at_once
from pipeline.core.training.spec import TrialSpec

FLOATS_PER_PARAMETER = 6
"""The weight, its gradient, the clipped one, and up to three of the optimiser's."""

FLOATS_PER_STATE = 12
"""Kept for backpropagation per timestep, sequence, replica and hidden unit: states, gates and their gradients."""

FLOATS_PER_EVALUATED_STATE = 4
"""Held while a split is evaluated, per timestep, sequence, replica and hidden unit or number predicted."""

SECONDS_PER_TIMESTEP = 1e-4
"""Forward and backward of one timestep when the matrices are tiny: the price of calling a few kernels."""

FLOPS_PER_SECOND = 1e10
"""Of one laptop core at small matrix products in float32."""


@dataclass(frozen=True)
class Workload:
    """The sizes that a trial's cost follows from.

    Attributes:
        num_timesteps: T of the input sequence; with those of the output, where a decoder writes one.
        interface: Kinds and sizes of inputs and targets.
        num_data_bytes: Of the dataset's arrays.
    """

    num_timesteps: int
    interface: Interface
    num_data_bytes: int


def memory_bytes(spec: TrialSpec, work: Workload) -> int:
    """Return about how much memory the trial needs: float32 training and the float64 probe, all replicas at once."""
    num_replicas = len(spec.seeds)
    parameters = num_replicas * count_parameters(work.interface, spec.model)
    per_timestep = num_replicas * _units(spec) * FLOATS_PER_STATE
    states = _num_run(spec, work) * per_timestep * spec.training.batch_size
    training = 4 * (parameters * FLOATS_PER_PARAMETER + states)
    probe = 8 * (parameters * 2 + work.num_timesteps * per_timestep * spec.diagnostics.probe_size)
    num_predictions = 1 if work.interface.target_at == "last" else work.num_timesteps
    per_sequence = work.num_timesteps * _units(spec) + num_predictions * work.interface.output_size
    at_once = num_at_once(num_replicas, per_sequence)
    evaluation = 4 * per_sequence * num_replicas * FLOATS_PER_EVALUATED_STATE * at_once
    return training + max(probe + _jacobian_bytes(spec, work), evaluation) + work.num_data_bytes


def _jacobian_bytes(spec: TrialSpec, work: Workload) -> int:
    """Return the bytes of every timestep's Jacobian of one layer, where they are measured."""
    if not {"jacobians", "lyapunov"} & set(spec.diagnostics.measures):
        return 0
    size = spec.model.hidden_size * len(CELLS[spec.model.cell].states)
    num_examples = min(NUM_JACOBIAN_EXAMPLES, spec.diagnostics.probe_size)
    return 8 * len(spec.seeds) * work.num_timesteps * num_examples * size**2


def duration_s(spec: TrialSpec, work: Workload) -> float:
    """Return about how many seconds one core needs for the trial's `max_steps`."""
    weights, batch = count_parameters(work.interface, spec.model), spec.training.batch_size * len(spec.seeds)
    flops = 3 * 2 * weights * batch  # a product forward, two backward; a multiplication and an addition each
    num_places = _units(spec) // spec.model.hidden_size
    per_timestep = num_places * SECONDS_PER_TIMESTEP + flops / FLOPS_PER_SECOND
    return spec.training.max_steps * _num_run(spec, work) * per_timestep


def _units(spec: TrialSpec) -> int:
    """Return the hidden units of all layers and directions."""
    return spec.model.hidden_size * spec.model.num_layers * (2 if spec.model.bidirectional else 1)


def _num_run(spec: TrialSpec, work: Workload) -> int:
    """Return the timesteps that an update keeps for its way back."""
    truncation = spec.training.truncation
    return work.num_timesteps if truncation is None else min(work.num_timesteps, truncation.backward_length)


def available_memory_bytes() -> int:
    """Return how much memory this machine could still give; all that it has, where psutil is not installed."""
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # free pages leave out what caches would give
    return int(psutil.virtual_memory().available)
