"""Everything that an unfinished trial needs to go on as if nothing had happened."""

from __future__ import annotations

import io
import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.core.training.clipping import Clipper
from pipeline.core.training.outcome import ReplicaOutcome
from pipeline.core.training.spec import TRIAL_VERSION
from pipeline.errors import PipelineError


class CheckpointError(PipelineError):
    """A checkpoint is damaged, or of another version; the trial can only start anew."""


class CheckpointSlot(Protocol):
    """A place for one trial's latest checkpoint."""

    def load(self) -> bytes | None:
        """Return the latest checkpoint, or None."""

    def save(self, data: bytes) -> None:
        """Replace the checkpoint; readers see the old or the new one, never half of one."""


@dataclass
class Progress:
    """The whole mutable state of a trial.

    Attributes:
        step: Updates made so far.
        flat_RP: Parameters.
        best_RP: Parameters at each replica's best evaluation.
        active_R: Replicas that still train.
        num_clipped_R: Updates that clipping shortened.
        outcomes: One a replica.
        carried: States before the next window of a truncated pass, (R, B, H) each; none at the start of a batch.
        activation_bytes: What the first update kept for its way back, of all replicas together.
        step_times_s: Mean time of an update, between one evaluation and the next.
        timed_step: Updates that these times are of.
        timed_s: How long those took in all.
        training_time_s: Spent in updates.
        diagnostics_time_s: Spent in traces, gradient checks and spectra.
        wall_time_s: Spent in all, over every time the trial was taken up.
    """

    step: int
    flat_RP: Tensor
    best_RP: Tensor
    active_R: Tensor
    num_clipped_R: Tensor
    outcomes: list[ReplicaOutcome]
    carried: list[Tensor]
    activation_bytes: int = 0
    step_times_s: list[float] = field(default_factory=list)
    timed_step: int = 0
    timed_s: float = 0.0
    training_time_s: float = 0.0
    diagnostics_time_s: float = 0.0
    wall_time_s: float = 0.0

    def note_step_time(self) -> None:
        """Take note of the mean time of the updates since the last time."""
        if self.step > self.timed_step:
            self.step_times_s.append((self.training_time_s - self.timed_s) / (self.step - self.timed_step))
            self.timed_step, self.timed_s = self.step, self.training_time_s

    def step_time_error_s(self) -> float | None:
        """Return the standard error of the time of an update, over the portions between evaluations; None of one."""
        times = self.step_times_s
        return statistics.stdev(times) / math.sqrt(len(times)) if len(times) > 1 else None


class Saved(NamedTuple):
    """What `unpack` finds in a checkpoint: all that `pack` was given, the optimiser and the clipper as their states."""

    progress: Progress
    optimiser: dict[str, Any]
    clipper: dict[str, Tensor]
    rows: bytes


def pack(progress: Progress, optimiser: torch.optim.Optimizer, clipper: Clipper, rows: bytes) -> bytes:
    """Return a checkpoint of the trial as bytes."""
    state: dict[str, Any] = dict(vars(progress))
    state["outcomes"] = [asdict(outcome) | {"status": str(outcome.status)} for outcome in progress.outcomes]
    state |= {"optimiser": optimiser.state_dict(), "clipper": clipper.state(), "rows": rows, "version": TRIAL_VERSION}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes, device: torch.device) -> Saved:
    """Return what `pack` was given.

    Raises:
        CheckpointError: If the checkpoint is damaged, or of another `TRIAL_VERSION`.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        version = state.pop("version")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"not a readable checkpoint: {error}") from error
    if version != TRIAL_VERSION:
        raise CheckpointError(f"a checkpoint of trial version {version}, expected {TRIAL_VERSION}")
    optimiser, clipper, rows = (state.pop(name) for name in ("optimiser", "clipper", "rows"))
    outcomes = [ReplicaOutcome(**fields) for fields in state.pop("outcomes")]
    state["carried"] = [tensor.to(device) for tensor in state["carried"]]
    for name, value in state.items():
        state[name] = value.to(device) if isinstance(value, Tensor) else value
    return Saved(Progress(outcomes=outcomes, **state), optimiser, clipper, rows)
