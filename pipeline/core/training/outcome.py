"""How a replica ends, and the row it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The closed list of outcomes, mildest first; each has the sentence that a reader sees."""

    OK = "ok"
    TIMED_OUT = "timed_out"
    DIVERGED = "diverged"
    ERROR = "error"

    @property
    def sentence(self) -> str:
        """What this outcome means."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.OK: "trained to its last step, or to the criterion; results are of its best step",
    Status.TIMED_OUT: "stopped by the time limit; results are of its best step",
    Status.DIVERGED: "loss, gradient or parameters stopped being finite; results are of its best step before that",
    Status.ERROR: "the program failed; there are no results",
}


@dataclass
class ReplicaOutcome:
    """What is known of one replica so far; plain numbers, so that a checkpoint can hold it.

    Losses are the dataset's; errors are shares of wrong classes, None for real targets.
    """

    seed: int
    status: str = Status.OK
    status_message: str | None = None
    diverged_step: int | None = None
    diverged_timestep: int | None = None
    diverged_quantity: str | None = None
    num_steps: int = 0
    best_step: int | None = None
    best_validation_loss: float | None = None
    best_validation_error: float | None = None
    criterion_step: int | None = None
    criterion_time_s: float | None = None
    gradient_check_error: float | None = None

    def saw_validation(self, step: int, loss: float, error: float | None, stop_on: str) -> bool:
        """Take note of an evaluation; return whether it is the best so far, in `stop_on` and, of equals, in loss."""
        best = (self.best_validation_error, self.best_validation_loss)
        mine, theirs = ((error, loss), best) if stop_on == "validation_error" else ((loss,), best[1:])
        if not math.isfinite(loss) or (self.best_step is not None and mine >= theirs):
            return False
        self.best_step, self.best_validation_loss, self.best_validation_error = step, loss, error
        return True

    def check_gradient(self, error: float) -> None:
        """Take note of how far the training gradient was from the exact one; the worst stays, and NaN is worst."""
        old = self.gradient_check_error
        self.gradient_check_error = error if old is None or math.isnan(error) or error > old else old

    def diverge(self, step: int, timestep: int | None, quantity: str, message: str) -> None:
        """Record that the update from `step` - 1 to `step` could not be made, or `step` could not be evaluated."""
        self.status, self.status_message = Status.DIVERGED, message
        self.diverged_step, self.diverged_timestep, self.diverged_quantity = step, timestep, quantity

    def row(self, test_loss: float | None, test_error: float | None, num_clipped: int) -> dict[str, Any]:
        """Return this replica's columns of the `trials` table; no test results where no evaluation was finite."""
        tested = self.best_step is not None
        return vars(self) | {
            "status": str(self.status),
            "test_loss": test_loss if tested else None,
            "test_error": test_error if tested else None,
            "reached_criterion": self.criterion_step is not None,
            "clipped_share": num_clipped / self.num_steps if self.num_steps else 0.0,
        }


@dataclass(frozen=True)
class TrialResult:
    """What a trial leaves besides the rows it wrote: one row a seed, and the worst of their outcomes."""

    rows: list[dict[str, Any]]

    @property
    def status(self) -> str:
        """The worst status over seeds."""
        order = list(Status)
        return max((Status(row["status"]) for row in self.rows), key=order.index)
