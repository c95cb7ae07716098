"""Everything that an unfinished trial needs to go on as if nothing had happened."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.training.outcome import ReplicaOutcome
from pipeline.training.spec import TRIAL_VERSION


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
        training_time_s: Spent in updates.
        diagnostics_time_s: Spent in traces, certificates and spectra.
        wall_time_s: Spent in all, over every time the trial was taken up.
    """

    step: int
    flat_RP: Tensor
    best_RP: Tensor
    active_R: Tensor
    num_clipped_R: Tensor
    outcomes: list[ReplicaOutcome]
    training_time_s: float = 0.0
    diagnostics_time_s: float = 0.0
    wall_time_s: float = 0.0


def pack(progress: Progress, optimiser: torch.optim.Optimizer, rows: bytes) -> bytes:
    """Return a checkpoint of the trial as bytes."""
    state: dict[str, Any] = dict(vars(progress))
    state["outcomes"] = [asdict(outcome) | {"status": str(outcome.status)} for outcome in progress.outcomes]
    state |= {"optimiser": optimiser.state_dict(), "rows": rows, "version": TRIAL_VERSION}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes, device: torch.device) -> tuple[Progress, dict[str, Any], bytes]:
    """Return the progress, the optimiser's state and the rows that `pack` was given.

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
    optimiser: dict[str, Any] = state.pop("optimiser")
    rows: bytes = state.pop("rows")
    outcomes = [ReplicaOutcome(**fields) for fields in state.pop("outcomes")]
    for name, value in state.items():
        state[name] = value.to(device) if isinstance(value, Tensor) else value
    return Progress(outcomes=outcomes, **state), optimiser, rows
