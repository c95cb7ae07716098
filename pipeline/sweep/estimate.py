"""What a trial will cost, before it runs: memory against what the machine has, time for the order and the dry run.

Both are rough on purpose. They are there to refuse `hidden_size: 100000` at once, and to start long trials first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import psutil

from pipeline.core.attention.score import Additive, NoAttention
from pipeline.core.cells import CELLS
from pipeline.core.models import CustomModel, Interface, check_custom, count_parameters
from pipeline.core.models.architecture import SelfAttention
from pipeline.core.training.diagnostics import NUM_JACOBIAN_EXAMPLES
from pipeline.core.training.evaluation import num_at_once
from pipeline.core.training.pack import architecture
from pipeline.core.training.spec import TrialSpec

if TYPE_CHECKING:
    from pipeline.sweep.plan import Setting

Pack: TypeAlias = "tuple[Setting, ...]"
"""Settings that are trained as one program."""

FLOATS_PER_PARAMETER = 6
"""The weight, its gradient, the clipped one, and up to three of the optimiser's."""

FLOATS_PER_STATE = 12
"""Kept for backpropagation per timestep, sequence, replica and hidden unit, where autograd keeps what it will."""

FLOATS_PER_WEIGHT = 4
"""Kept of an attention weight, or of a hidden unit of its score: before and after the function, and the gradient."""

FLOATS_PER_EVALUATED_STATE = 4
"""Held while a split is evaluated, per timestep, sequence, replica and hidden unit or number predicted."""

SECONDS_PER_TIMESTEP = 1e-5
"""Forward and backward of one timestep when the matrices are tiny."""

SECONDS_PER_UNROLLED_TIMESTEP = 1e-3
"""The same in torch's own operations."""

SECONDS_PER_PIECE = 2.5e-3
"""Forward and backward of what is run at once between two forcings of a state."""

FLOPS_PER_SECOND = 3e10
"""Of one laptop core at small matrix products in float32."""


@dataclass(frozen=True)
class Workload:
    """The sizes that a trial's cost follows from.

    Attributes:
        num_timesteps: T of the input sequence; with those of the output, where a decoder writes one.
        num_written: Those of the output alone; 0 where none is written.
        interface: Kinds and sizes of inputs and targets.
        num_data_bytes: Of the dataset's arrays.
    """

    num_timesteps: int
    interface: Interface
    num_data_bytes: int
    num_written: int = 0


def memory_bytes(spec: TrialSpec, work: Workload) -> int:
    """Return about how much memory the trial needs: float32 training and the float64 probe, all replicas at once."""
    num_replicas = len(spec.seeds)
    parameters = num_replicas * count_parameters(work.interface, spec.model)
    units = _units(spec, work)
    per_timestep = math.ceil(num_replicas * units * _floats_per_state(spec))
    attention = num_replicas * _attention_floats(spec, work)
    states = _num_run(spec, work) * per_timestep + attention
    training = 4 * (parameters * FLOATS_PER_PARAMETER + states * spec.training.batch_size // spec.training.accumulation)
    probe = 8 * (parameters * 2 + (work.num_timesteps * per_timestep + attention) * spec.diagnostics.probe_size)
    num_predictions = 1 if work.interface.target_at == "last" else work.num_timesteps
    per_sequence = math.ceil(work.num_timesteps * units) + num_predictions * work.interface.output_size
    at_once = num_at_once(num_replicas, per_sequence)
    evaluation = 4 * per_sequence * num_replicas * FLOATS_PER_EVALUATED_STATE * at_once
    return training + max(probe + _jacobian_bytes(spec, work), evaluation) + work.num_data_bytes


def _floats_per_state(spec: TrialSpec) -> int:
    """Return what is kept per timestep, sequence, replica and hidden unit."""
    if isinstance(spec.model, CustomModel):
        return FLOATS_PER_STATE
    cell = CELLS[spec.model.cell]
    if cell.whole_step is not None or spec.model.dropout.unrolls:
        return FLOATS_PER_STATE
    return cell.derivation.num_kept + 3 * len(cell.states)  # the states, what reaches them, and the trace


def _attention_floats(spec: TrialSpec, work: Workload) -> int:
    """Return what attention keeps per sequence and replica."""
    if isinstance(spec.model, CustomModel):
        return 0
    attention, num_read = spec.model.attention, work.num_timesteps - work.num_written
    if isinstance(attention, SelfAttention):
        return FLOATS_PER_WEIGHT * spec.model.num_layers * attention.num_heads * work.num_timesteps**2
    if isinstance(attention, NoAttention):
        return 0
    per_weight = 1 + attention.size if isinstance(attention, Additive) else 1
    return FLOATS_PER_WEIGHT * work.num_written * num_read * per_weight


def _jacobian_bytes(spec: TrialSpec, work: Workload) -> int:
    """Return the bytes of every timestep's Jacobian of one layer, where they are measured."""
    if isinstance(spec.model, CustomModel) or not {"jacobians", "lyapunov"} & set(spec.diagnostics.measures):
        return 0
    size = spec.model.hidden_size * len(CELLS[spec.model.cell].states)
    num_examples = min(NUM_JACOBIAN_EXAMPLES, spec.diagnostics.probe_size)
    return 8 * len(spec.seeds) * work.num_timesteps * num_examples * size**2


def duration_s(spec: TrialSpec, work: Workload) -> float:
    """Return about how many seconds one core needs for the trial's `max_steps`."""
    weights, batch = count_parameters(work.interface, spec.model), spec.training.batch_size * len(spec.seeds)
    flops = 3 * 2 * weights * batch  # a product forward, two backward; a multiplication and an addition each
    num_places, each = _passes(spec, work)
    if (forced := spec.training.state_forcing) is not None:
        each += SECONDS_PER_PIECE / forced.forcing.every
    per_timestep = num_places * each + flops / FLOPS_PER_SECOND
    return spec.training.max_steps * _num_run(spec, work) * per_timestep


UPDATE_S = 2.5e-3
"""Of one update, however many replicas: what Python and torch need to ask for its operations, on one core."""

OWN_UPDATE_S = 3e-4
"""Of that, what every setting of a pack needs for itself: its batch, clipping and optimiser."""

PAYS = 1.5
"""How many times the updates per second a large pack must make for its settings to be packed."""

PACKS_PER_WORKER = 2
"""At least so many, where there are the settings for it: so that no worker waits for the last pack for long."""


def packs_of(settings: Sequence[Setting], largest: int, num_workers: int, memory_limit_bytes: int | None) -> list[Pack]:
    """Return settings in packs that are each trained as one program, in the order of their first settings.

    Args:
        settings: In the order in which they are to be trained.
        largest: Most settings of a pack.
        num_workers: How many packs are trained at a time.
        memory_limit_bytes: Of all workers together; None where that is another machine's.
    """
    groups: dict[Hashable, list[Setting]] = {}
    for setting in settings:
        spec = setting.spec
        alone_s = setting.duration_s / spec.training.max_steps
        pays = not isinstance(spec.model, CustomModel) and (UPDATE_S + alone_s) / (OWN_UPDATE_S + alone_s) >= PAYS
        key = (architecture(spec), spec.training.max_steps) if pays else setting.trial_id
        groups.setdefault(key, []).append(setting)
    packs = []
    for group in groups.values():
        size = min(largest, -(-len(group) // (PACKS_PER_WORKER * num_workers if num_workers > 1 else 1)))
        if memory_limit_bytes is not None:
            size = min(size, memory_limit_bytes // (num_workers * max(setting.memory_bytes for setting in group)))
        size = max(1, size)
        packs += [tuple(group[at : at + size]) for at in range(0, len(group), size)]
    return packs


def _passes(spec: TrialSpec, work: Workload) -> tuple[int, float]:
    """Return how often a timestep is run, layer by layer (and seed by seed), and the seconds of each at least."""
    if isinstance(spec.model, CustomModel):
        layout = check_custom(spec.model, work.interface, work.num_timesteps)
        in_turn = layout.reason is not None
        return max(1, len(layout.num_timesteps)) * (len(spec.seeds) if in_turn else 1), SECONDS_PER_TIMESTEP
    num_places = spec.model.num_layers * (2 if spec.model.bidirectional else 1)
    return num_places, SECONDS_PER_UNROLLED_TIMESTEP if spec.model.dropout.unrolls else SECONDS_PER_TIMESTEP


def _units(spec: TrialSpec, work: Workload) -> float:
    """Return the hidden units of all layers and directions, per timestep."""
    if isinstance(spec.model, CustomModel):
        return check_custom(spec.model, work.interface, work.num_timesteps).num_traced / work.num_timesteps
    return spec.model.hidden_size * spec.model.num_layers * (2 if spec.model.bidirectional else 1)


def _num_run(spec: TrialSpec, work: Workload) -> int:
    """Return the timesteps that an update keeps for its way back."""
    truncation = spec.training.truncation
    return work.num_timesteps if truncation is None else min(work.num_timesteps, truncation.backward_length)


def available_memory_bytes() -> int:
    """Return how much memory this machine could still give."""
    return int(psutil.virtual_memory().available)
