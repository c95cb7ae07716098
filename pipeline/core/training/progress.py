"""How far a trial has come and how its replicas end: all that it needs to go on as if nothing had happened."""

from __future__ import annotations

import io
import math
import statistics
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.core.training.optimisers import Optimiser
from pipeline.core.training.spec import Convergence, TrainingSpec
from pipeline.core.training.step import State
from pipeline.errors import PipelineError


class Status(StrEnum):
    """The closed list of outcomes, mildest first."""

    OK = "ok"
    """Trained to its last step, or to the criterion; results are of its best step."""
    CENSORED = "censored"
    """Stopped by a search before its last step; results are of its best step, and what would follow is not known."""
    TIMED_OUT = "timed_out"
    """Stopped by the time limit; results are of its best step."""
    DIVERGED = "diverged"
    """Loss, gradient or parameters stopped being finite, or the loss ended far above the untrained network's.

    Results are of its best step before that.
    """
    ERROR = "error"
    """The program failed; there are no results."""


@dataclass
class ReplicaOutcome:
    """What is known of one replica so far; plain numbers, so that a checkpoint can hold it.

    Losses are the dataset's; errors are shares of wrong classes, None for real targets. `exploded_step` is the first
    evaluation whose loss was far above the untrained network's, whether or not training recovered from it.
    `validation_losses` are finite and begin with that of step 0.
    """

    seed: int
    status: str = Status.OK
    status_message: str | None = None
    diverged_step: int | None = None
    diverged_timestep: int | None = None
    diverged_quantity: str | None = None
    exploded_step: int | None = None
    num_steps: int = 0
    best_step: int | None = None
    best_validation_loss: float | None = None
    best_validation_error: float | None = None
    criterion_step: int | None = None
    criterion_time_s: float | None = None
    gradient_check_error: float | None = None
    validation_losses: list[tuple[int, float]] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether it has not diverged."""
        return self.status != Status.DIVERGED

    def saw_validation(self, step: int, loss: float, error: float | None, training: TrainingSpec) -> bool:
        """Take note of an evaluation; return whether it is the best so far, in `stop_on` and, of equals, in loss."""
        if not math.isfinite(loss):
            return False
        self.validation_losses.append((step, loss))
        if self.exploded_step is None and self.explosion(training) is not None:
            self.exploded_step = step
        best = (self.best_validation_error, self.best_validation_loss)
        mine, theirs = ((error, loss), best) if training.stop_on == "validation_error" else ((loss,), best[1:])
        if self.best_step is not None and mine >= theirs:
            return False
        self.best_step, self.best_validation_loss, self.best_validation_error = step, loss, error
        return True

    def is_out_of_patience(self, training: TrainingSpec) -> bool:
        """Return whether its best evaluation is too many evaluations ago; if so, the row says it."""
        if training.patience is None or self.best_step is None:
            return False
        since = sum(step > self.best_step for step, _ in self.validation_losses)
        if since >= training.patience:
            self.status_message = f"stopped early: none of {since} evaluations was better than that of its best step"
        return since >= training.patience

    def check_gradient(self, error: float) -> None:
        """Take note of how far the training gradient was from the exact one; the worst stays, and NaN is worst."""
        old = self.gradient_check_error
        self.gradient_check_error = error if old is None or math.isnan(error) or error > old else old

    def explosion(self, training: TrainingSpec) -> int | None:
        """Return the evaluation since which the loss is above `explodes_above` times the first; None if it is not."""
        if training.explodes_above is None:
            return None
        limit, began = training.explodes_above * self.validation_losses[0][1], None
        for step, loss in reversed(self.validation_losses):
            if not loss > limit:
                break
            began = step
        return began

    def end(self, training: TrainingSpec) -> None:
        """Take note that no update follows: one whose loss is far above the untrained network's has diverged."""
        if self.is_sound and self.validation_losses and (began := self.explosion(training)) is not None:
            (_, untrained), (_, last) = self.validation_losses[0], self.validation_losses[-1]
            message = f"validation loss ended at {last:g}, {last / untrained:.3g} times the untrained network's"
            self.diverge(began, None, "validation_loss", message)

    def diverge(self, step: int, timestep: int | None, quantity: str, message: str) -> None:
        """Record that the update from `step` - 1 to `step` could not be made, or what `step` was evaluated to."""
        self.status, self.status_message = Status.DIVERGED, message
        self.diverged_step, self.diverged_timestep, self.diverged_quantity = step, timestep, quantity

    def row(
        self, test_loss: float | None, test_error: float | None, num_clipped: int, convergence: Convergence
    ) -> dict[str, Any]:
        """Return this replica's columns of the `trials` table; no test results where no evaluation was finite."""
        tested, losses = self.best_step is not None, self.validation_losses
        ended = self.criterion_step is not None or (tested and convergence.is_reached(losses))
        return {name: value for name, value in vars(self).items() if name != "validation_losses"} | {
            "status": str(self.status),
            "final_validation_loss": losses[-1][1] if losses else None,
            "beat_untrained": self.best_step > 0 if self.best_step is not None else None,
            "converged": ended if self.is_sound else None,
            "test_loss": test_loss if tested else None,
            "test_error": test_error if tested else None,
            "reached_criterion": self.criterion_step is not None,
            "clipped_share": num_clipped / self.num_steps if self.num_steps else 0.0,
        }


@dataclass(frozen=True)
class TrialResult:
    """What a trial leaves besides the rows it wrote: one row per seed, and the worst of their outcomes.

    Attributes:
        rows: One per seed.
        weights: Of each seed's best step, parameter by parameter, (R, *shape) each, on the CPU.
    """

    rows: list[dict[str, Any]]
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst status over seeds."""
        order = list(Status)
        return max((Status(row["status"]) for row in self.rows), key=order.index)


@dataclass
class Progress:
    """The whole mutable state of a trial; its seconds are over every time that it was taken up.

    Attributes:
        state: What the next update starts from.
        best_RP: Parameters at each replica's best evaluation.
        num_clipped_R: Updates that were clipped.
        outcomes: One per replica.
        activation_bytes: What the first update kept for its way back, per replica.
        training_s: Spent in updates.
        diagnostics_s: Spent in traces, gradient checks and spectra.
        wall_s: Spent in all.
        step_times_s: Mean time of an update, portion by portion, as long as all replicas that began to train do.
        num_timed: How many updates these means are of.
        timed_s: Seconds that these updates took.
        num_begun: Replicas that were passed in the first update, which is not timed: it touches memory first.
        portion_step: After which update the portion under way began.
        portion_s: Of `training_s`, what had been spent then.
    """

    state: State
    best_RP: Tensor
    num_clipped_R: Tensor
    outcomes: list[ReplicaOutcome]
    activation_bytes: int = 0
    training_s: float = 0.0
    diagnostics_s: float = 0.0
    wall_s: float = 0.0
    step_times_s: list[float] = field(default_factory=list)
    num_timed: int = 0
    timed_s: float = 0.0
    num_begun: int = 0
    portion_step: int = 0
    portion_s: float = 0.0

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self.state.step

    def active(self) -> list[int]:
        """Return the replicas that still train."""
        return self.state.active_R.nonzero().flatten().tolist()

    def freeze(self, which: list[int]) -> None:
        """Train these replicas no further."""
        active_R = self.state.active_R.clone()
        active_R[which] = False
        self.state = self.state._replace(active_R=active_R)

    @property
    def num_passed(self) -> int:
        """Replicas that are passed through the network."""
        return len(self.state.active_R if self.state.passed_Q is None else self.state.passed_Q)

    def regroup(self) -> None:
        """From now on pass only replicas that still train through the network, where it pays."""
        active = self.active()
        if pays(self.state.active_R.device.type, len(active), self.num_passed):
            passed_Q = torch.tensor(active, device=self.state.active_R.device, dtype=torch.int64)
            self.state = self.state._replace(passed_Q=passed_Q)

    @property
    def step_time_s(self) -> float:
        """Seconds of an update of all replicas that began to train; before the first portion's end, of those so far."""
        return self.timed_s / self.num_timed if self.num_timed else self.training_s / max(self.step, 1)

    def note_step_time(self, portion: int) -> None:
        """Take note of the mean time of so many updates, where a portion of them ends with this one."""
        if self.step == 1:
            self.num_begun, self.portion_step, self.portion_s = self.num_passed, 1, self.training_s
        elif self.num_passed == self.num_begun and self.step - self.portion_step == portion:
            seconds = self.training_s - self.portion_s
            self.step_times_s.append(seconds / portion)
            self.num_timed, self.timed_s = self.num_timed + portion, self.timed_s + seconds
            self.portion_step, self.portion_s = self.step, self.training_s

    def time_columns(self) -> dict[str, float | None]:
        """Return columns of the `trials` table; the standard error is over timed portions, None where there is one."""
        portions, working_s = self.step_times_s, self.training_s + self.diagnostics_s
        several = len(portions) > 1
        return {
            "wall_time_s": self.wall_s,
            "training_time_s": self.training_s,
            "step_time_s": self.step_time_s,
            "step_time_error_s": statistics.stdev(portions) / math.sqrt(len(portions)) if several else None,
            "num_timed_portions": len(portions),
            "diagnostics_time_share": self.diagnostics_s / working_s if working_s else 0.0,
        }


def pays(device: str, num_active: int, num_passed: int) -> bool:
    """Return whether to pass active replicas alone from now on: on a GPU each number of them is a graph to capture."""
    return 0 < num_active < num_passed and (device != "cuda" or 2 * num_active <= num_passed)


class CheckpointError(PipelineError):
    """A checkpoint is damaged, or of other code; the trial can only start anew."""


class CheckpointSlot(Protocol):
    """A place for one trial's latest checkpoint."""

    def load(self) -> bytes | None:
        """Return the latest checkpoint, or None."""

    def save(self, data: bytes) -> None:
        """Replace the checkpoint; readers see the old or the new one, never half of one."""


def pack(progress: Progress, rows: bytes, code: str) -> bytes:
    """Return a checkpoint as bytes: the progress, the rows written so far, and the digest of the code that made them.

    All of it is plain values and tensors.
    """
    content = {
        "code": code,
        "progress": vars(progress)
        | {
            "state": progress.state._asdict() | {"optimiser": progress.state.optimiser.state_dict()},
            "outcomes": [vars(outcome) | {"status": str(outcome.status)} for outcome in progress.outcomes],
        },
        "rows": rows,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def unpack(data: bytes, optimiser: Optimiser, device: torch.device, code: str) -> tuple[Progress, bytes]:
    """Return progress and rows that `pack` was given, on the device; the optimiser is made anew with its moments.

    Raises:
        CheckpointError: If the checkpoint is damaged, or of other code than that of the digest `code`.
    """
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        made_by, rows = content["code"], content["rows"]
        plain: Any = Progress(**content["progress"])  # its parts are plain values still
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"not a readable checkpoint: {error}") from error
    if made_by != code:
        raise CheckpointError(f"a checkpoint of other code, digest {made_by}, expected {code}")
    state = plain.state
    flat_RP = state["flat_RP"].to(device)
    at_work = optimiser.over(flat_RP)
    at_work.load_state_dict(state["optimiser"])
    progress = replace(
        plain,
        state=State(
            step=state["step"],
            flat_RP=flat_RP,
            active_R=state["active_R"].to(device),
            optimiser=at_work,
            clipping=tuple(tensor.to(device) for tensor in state["clipping"]),
            carried=[tensor.to(device) for tensor in state["carried"]],
            passed_Q=None if state["passed_Q"] is None else state["passed_Q"].to(device),
        ),
        best_RP=plain.best_RP.to(device),
        num_clipped_R=plain.num_clipped_R.to(device),
        outcomes=[ReplicaOutcome(**fields) for fields in plain.outcomes],
    )
    return progress, rows
