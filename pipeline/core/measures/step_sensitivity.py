"""How much one timestep of a network can turn a change of its parameters into a change of its state.

    M = max over timesteps and examples of ‖∂⁺s_t/∂θ‖

the operator norm of the immediate Jacobian: the state before timestep t is held fixed. All cells here are affine before
their nonlinearities, with W_hh h_{t-1} + b_hh and W_ih x_t + b_ih as the only ways in, and each unit's own rows enter
its own state alone. So with A and B the derivatives in the two biases,

    ∂⁺s/∂θ (∂⁺s/∂θ)ᵀ = (‖h_{t-1}‖² + 1) A Aᵀ + (‖x_t‖² + 1) B Bᵀ

is a small block for every unit, of as many rows as the cell has states. Where x_t is an embedding, trained too,
(∂s/∂x_t)(∂s/∂x_t)ᵀ is added by its trace: M is then an upper bound.

Source: the quantity is M of Aicher, Foti and Fox (2019); how it is computed is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import jacrev, vjp

from pipeline.core.cells import Cell, States, Weights
from pipeline.core.cells.stack import unstack_states
from pipeline.core.measures.timesteps import joined, joined_step, map_timesteps, states_before
from pipeline.core.models import Replicas

CHUNK_SIZE = 4096
"""Pairs of timestep and example worked at a time."""


def step_sensitivity(replicas: Replicas, flat_RP: Tensor, seen: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    """Return M of every replica, (R,); NaN where the network has more than one recurrence.

    Args:
        replicas: The pack.
        flat_RP: Its parameters.
        seen: What every place saw, as `Replicas.unroll` returns it.
        states: All states, likewise.
    """
    recurrent = replicas.model.stacks["recurrent"]
    if len(recurrent.places) > 1:
        return flat_RP.new_full((len(flat_RP),), torch.nan, dtype=torch.float64)
    (mine,) = unstack_states(states, recurrent.cell)
    before = states_before([state for state in mine if state is not None])
    norm = _squared_norm(recurrent.cell, input_is_trained=replicas.model.embedding is not None)
    squared_RTB: Tensor = map_timesteps(
        norm, replicas.weights(flat_RP, recurrent.places[0]), seen[0], before, CHUNK_SIZE
    )
    return squared_RTB.amax(dim=(1, 2)).sqrt()


def _squared_norm(cell: Cell, input_is_trained: bool) -> Callable[[Tensor, States, Weights], Tensor]:
    """Return the function of one example at one timestep that gives ‖∂⁺s_t/∂θ‖², ()."""
    step = joined_step(cell)

    def squared_norm(x_t: Tensor, before: States, weights: Weights) -> Tensor:
        H, num_states, at = len(before.h), len(cell.states), joined(before)
        every_unit = torch.eye(num_states, dtype=x_t.dtype, device=x_t.device).repeat_interleave(H, dim=1)

        def gram(name: str) -> Tensor:
            """Return A Aᵀ, A the derivative of each unit's states in its own rows of a bias, (states, states, H)."""

            def of_bias(bias: Tensor) -> Tensor:
                return step(at, x_t, weights._replace(**{name: bias}))

            pull_back = vjp(of_bias, getattr(weights, name))[1]
            rows_SGH = torch.vmap(lambda states: pull_back(states)[0])(every_unit).unflatten(1, (-1, H))
            return torch.einsum("sgh,zgh->szh", rows_SGH, rows_SGH)

        blocks_SSH = (before.h @ before.h + 1) * gram("bias_hh") + (x_t @ x_t + 1) * gram("bias_ih")
        squared = _largest_eigenvalue(blocks_SSH).amax()
        if input_is_trained:
            squared = squared + jacrev(lambda x: step(at, x, weights))(x_t).square().sum()
        return squared

    return squared_norm


def _largest_eigenvalue(blocks_SSH: Tensor) -> Tensor:
    """Return the largest eigenvalue of H symmetric blocks of one or two rows, (H,)."""
    if len(blocks_SSH) == 1:
        return blocks_SSH[0, 0]
    first, off, second = blocks_SSH[0, 0], blocks_SSH[0, 1], blocks_SSH[1, 1]
    return (first + second) / 2 + torch.hypot((first - second) / 2, off)
