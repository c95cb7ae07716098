"""A recurrence unrolled from zero states: what each timestep of it was given.

Measures of single timesteps want everything in the order in which the recurrence reads: timestep t after t - 1.

Shapes: R replicas, T timesteps, B batch, D input, H hidden, S = H · (number of states).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.core.cells import Cell, States, Weights


def states_before(states: Sequence[Tensor]) -> list[Tensor]:
    """Return s_0 .. s_{T-1} of s_1 .. s_T, (R, T, B, H) each; s_0 is zero."""
    return [torch.cat([torch.zeros_like(state[:, :1]), state[:, :-1]], dim=1) for state in states]


def joined_step(cell: Cell) -> Callable[[Tensor, Tensor, Weights], Tensor]:
    """Return the cell's step as a function `(s_{t-1} (S,), x_t (D,), weights) -> s_t (S,)`."""

    def step(before_S: Tensor, x_t: Tensor, weights: Weights) -> Tensor:
        return torch.cat(cell.step(x_t, States(*before_S.chunk(len(cell.states))), weights).tensors())

    return step


def map_timesteps(
    function: Callable[[Tensor, States, Weights], Any],
    weights: Weights,
    x_RTBD: Tensor,
    states: Sequence[Tensor],
    chunk_size: int | None = None,
) -> Any:
    """Return `function(x_t, s_{t-1}, weights)` of every replica, timestep and example, (R, T, B, ...), in float64.

    Replicas are worked one by one, in memory of their own: none can touch another's last digit.

    Args:
        function: Of one example at one timestep; returns a tensor, or a dict of them.
        weights: R leading.
        x_RTBD: Inputs in reading order.
        states: s_1 .. s_T in reading order: h, and c where the cell has one; (R, T, B, H) each.
        chunk_size: How many (timestep, example) pairs at a time, to bound memory; None is all.
    """

    def of_one(x_t: Tensor, before: tuple[Tensor, ...], mine: tuple[Tensor, ...]) -> Any:
        return function(x_t, States(*before), Weights(*mine))

    mapped = torch.vmap(of_one, in_dims=(0, 0, None), chunk_size=chunk_size)
    results = []
    for r in range(len(x_RTBD)):
        x, *before = (tensor[r].double().flatten(0, 1).clone() for tensor in (x_RTBD, *states_before(states)))
        results.append(mapped(x, tuple(before), tuple(weight[r].double().clone() for weight in weights)))

    def beside(of_each: list[Tensor]) -> Tensor:
        return torch.stack(of_each).unflatten(1, x_RTBD.shape[1:3])

    if isinstance(results[0], dict):
        return {key: beside([result[key] for result in results]) for key in results[0]}
    return beside(results)
