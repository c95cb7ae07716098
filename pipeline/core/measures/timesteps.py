"""A recurrence unrolled: what each timestep of it was given.

Measures of single timesteps want everything in the order in which the recurrence reads: a place that runs backward in
time is turned round first, so that timestep t always follows timestep t - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.core.cells import Cell, States, Weights
from pipeline.core.cells.stack import BACKWARD


def in_reading_order(tensor_RT: Tensor, direction: str) -> Tensor:
    """Return a (R, T, ...) tensor in the order in which a recurrence of this direction reads it."""
    return tensor_RT.flip(1) if direction == BACKWARD else tensor_RT


def states_before(states: Sequence[Tensor], initial: Sequence[Tensor] = ()) -> list[Tensor]:
    """Return s_0 .. s_{T-1}, (R, T, B, H) each.

    Args:
        states: s_1 .. s_T: h, and c where the cell has one; (R, T, B, H) each.
        initial: s_0, (R, B, H) each; none for zeros.
    """
    first = [tensor[:, None] for tensor in initial] or [torch.zeros_like(state[:, :1]) for state in states]
    return [torch.cat([start, state[:, :-1]], dim=1) for start, state in zip(first, states, strict=True)]


def joined(states: Sequence[Tensor | None]) -> Tensor:
    """Return the states of one example as one vector, (S,): h, then c where the cell has one."""
    return torch.cat([state for state in states if state is not None])


def joined_step(cell: Cell) -> Callable[[Tensor, Tensor, Weights], Tensor]:
    """Return the cell's step as a function `(s_{t-1} (S,), x_t (D,), weights) -> s_t (S,)`."""

    def step(before_S: Tensor, x_t: Tensor, weights: Weights) -> Tensor:
        return joined(cell.step(x_t, States(*before_S.chunk(len(cell.states))), weights))

    return step


def map_timesteps(
    function: Callable[[Tensor, States, Weights], Any],
    weights: Weights,
    x_RTBD: Tensor,
    before: Sequence[Tensor],
    chunk_size: int | None = None,
) -> Any:
    """Return `function(x_t, s_{t-1}, weights)` of every replica, timestep and example, (R, T, B, ...), in float64.

    Replicas are worked one by one, in memory of their own: none can touch another's last digit.

    Args:
        function: Of one example at one timestep; returns a tensor, or a dict of them.
        weights: R leading.
        x_RTBD: Inputs in reading order.
        before: s_{t-1}, (R, T, B, H) each.
        chunk_size: How many (timestep, example) pairs at a time, to bound memory; None is all.
    """

    def of_one(x_t: Tensor, states: tuple[Tensor, ...], mine: tuple[Tensor, ...]) -> Any:
        return function(x_t, States(*states), Weights(*mine))

    mapped = torch.vmap(of_one, in_dims=(0, 0, None), chunk_size=chunk_size)
    num_timesteps, num_examples = x_RTBD.shape[1:3]
    results = []
    for r in range(len(x_RTBD)):
        x, *states = (tensor[r].double().flatten(0, 1).clone() for tensor in (x_RTBD, *before))
        flat = mapped(x, tuple(states), tuple(weight[r].double().clone() for weight in weights))
        results.append(flat)
    if isinstance(results[0], dict):
        return {
            key: torch.stack([result[key] for result in results]).unflatten(1, (num_timesteps, num_examples))
            for key in results[0]
        }
    return torch.stack(results).unflatten(1, (num_timesteps, num_examples))
