"""Where the first number that is not finite came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from pipeline.core.cells.stack import FORWARD
from pipeline.core.models import Inputs, Replicas, RunOptions, StateKey


class Location(NamedTuple):
    """The place of a divergence.

    Attributes:
        timestep: 1..T, or None where no timestep is to blame.
        quantity: "grad_h" or "grad_c", followed by part, layer (from 0) and direction where the network has more than
            one recurrence, as in "grad_h (layer 1, backward)"; a parameter such as "recurrent.weight_hh_l0"; or "loss".
        num_nonfinite: Entries of the parameters' gradient that are not finite.
    """

    timestep: int | None
    quantity: str
    num_nonfinite: int


def locate(
    replicas: Replicas,
    flat_RP: Tensor,
    inputs: Inputs,
    targets: Tensor,
    replica: int,
    initial: Sequence[Tensor] = (),
    num_scored: int | None = None,
) -> Location:
    """Return where the gradient of one replica stopped being finite.

    The backward pass meets the last layer first, and in each recurrence the timestep that it read last: T of one
    forward in time, 1 of one backward in time. The first bad state that it meets is named; if every state's gradient is
    finite, a parameter is.

    Args:
        replicas: The pack.
        flat_RP: Parameters at which the step was tried.
        inputs: The batch of that step, (R, B, ...).
        targets: Its targets.
        replica: Which one diverged.
        initial: States before the first timestep; see `RunOptions`.
        num_scored: How many timesteps at the end have a target; None is all.
    """
    options = RunOptions(initial=initial, num_scored=num_scored)
    run = replicas.backpropagate(flat_RP, inputs, targets, options, trace=True)
    states, grad_RP = dict(zip(replicas.model.state_keys, run.grad_states, strict=False)), run.grad_RP
    num_nonfinite = int((~grad_RP[replica].isfinite()).sum())
    met = [(*_order(key), steps, key) for key, grad in states.items() for steps in _steps_back(key, grad[replica])[:1]]
    if met:
        *_, steps, key = min(met, key=lambda place: place[:3])
        timestep = states[key].shape[1] - steps if key.direction == FORWARD else steps + 1
        return Location(timestep, f"grad_{key.quantity}{_told(replicas, key)}", num_nonfinite)
    for name, grad in replicas.named(grad_RP).items():
        if not bool(grad[replica].isfinite().all()):
            return Location(None, name, num_nonfinite)
    return Location(None, "loss", num_nonfinite)


def _order(key: StateKey) -> tuple[bool, int]:
    """Return what the backward pass meets first, rising: a decoder before its encoder, the last layer before others."""
    return key.part == "encoder", -key.layer


def _told(replicas: Replicas, key: StateKey) -> str:
    """Return which recurrence it was, where there are several: « (layer 1, backward)», « (decoder)»."""
    stack = replicas.model.stacks[key.part]
    parts = [] if key.part == "recurrent" else [key.part]
    parts += [] if len(stack.places) == 1 else [f"layer {key.layer}", key.direction]
    return f" ({', '.join(parts)})" if parts else ""


def _steps_back(key: StateKey, grad_TBH: Tensor) -> list[int]:
    """Return after how many timesteps of its own the backward pass meets numbers that are not finite, rising."""
    bad_T = ~grad_TBH.isfinite().flatten(1).all(dim=1)
    return (bad_T.flip(0) if key.direction == FORWARD else bad_T).nonzero().flatten().tolist()
