"""How wrong a gradient is that was backpropagated through the newest K timesteps only.

The loss is that of the last timestep, T. The K-step gradient g_K holds the state before timestep T-K+1 fixed, as the
training by truncated backpropagation does; g_T is the full one. With s_t the states of all layers after timestep t,

    φ_k = ⟨‖∂L/∂s_{T-k}‖⟩,   M = max ‖∂⁺s_t/∂θ‖,   E(K) = M · Σ_{k=K}^{T-1} φ_k,   δ(K) = E(K) / (‖g_K‖ - E(K))

bound the bias: ‖g_K - g_T‖ ≤ E(K), and ‖g_K - g_T‖/‖g_T‖ ≤ δ(K). ⟨⟩ is over examples, L the loss of one, ∂⁺ the
immediate derivative: of one timestep, the state before it held fixed. φ falls as β^k where the past is forgotten.

Shapes: R replicas, K truncation lengths, T timesteps, B batch, H hidden, P parameters.

Source: Aicher, Foti and Fox (2019), and their code. They extrapolate Σ φ_k by a geometric tail, the stream being
endless; here the sequence ends, and every φ_k is computed. Their code measures g, too, by gradients in the states, so
that M cancels; here g is the gradient of the parameters, and M is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev, vjp

from pipeline.core.cells import Cell, States, Weights
from pipeline.core.cells.stack import unstack_states
from pipeline.core.measures.gradients import in_float64, log10_norm
from pipeline.core.measures.timesteps import joined_step, map_timesteps, states_before
from pipeline.core.models import Replicas, RunOptions, StateKey


class TruncationBias(NamedTuple):
    """The K-step gradients of R replicas against the full ones.

    Attributes:
        lengths: K, rising; the last is T.
        cosine_RK: Between g_K and g_T; NaN where either is zero.
        relative_error_RK: ‖g_K - g_T‖ / ‖g_T‖; rounding makes it no smaller than about 1e-16. NaN where g_T is zero.
        log10_phi_RK: log10 φ_K; -inf is exactly 0.
        decay_factor_R: β per timestep, from a straight line through ln φ_k for k from T/2 to T; NaN where fewer than
            two of them are finite.
        relative_bias_bound_RK: δ(K); NaN where ‖g_K‖ ≤ E(K), where β is not below 1, and of several layers.
        step_sensitivity_R: M; NaN of several layers.
    """

    lengths: tuple[int, ...]
    cosine_RK: Tensor
    relative_error_RK: Tensor
    log10_phi_RK: Tensor
    decay_factor_R: Tensor
    relative_bias_bound_RK: Tensor
    step_sensitivity_R: Tensor


def geometric_lengths(num_timesteps: int, per_doubling: int = 2) -> tuple[int, ...]:
    """Return 1 .. T evenly spaced in the logarithm, T among them; fewer where rounding makes two equal."""
    num_lengths = math.floor(per_doubling * math.log2(num_timesteps)) + 1
    lengths = {round(2 ** (index / per_doubling)) for index in range(num_lengths)}
    return tuple(sorted(lengths | {num_timesteps}))


def truncation_bias(
    replicas: Replicas, flat_RP: Tensor, inputs: Tensor, targets: Tensor, lengths: Sequence[int]
) -> TruncationBias:
    """Return how far the K-step gradients are from the full ones, and what Aicher's theory says of it.

    Args:
        replicas: The replica batch, forward in time only.
        flat_RP: Its parameters, of any precision; computed is in float64.
        inputs: (B, T, D) or (B, T), the same for all replicas.
        targets: As the loss wants them; of targets at every timestep the last one counts.
        lengths: K, from 1 to T; T is added where it is missing.

    Raises:
        ValueError: If the network runs both ways, or a length is out of range.
    """
    num_timesteps = inputs.shape[1]
    if replicas.model.stacks["recurrent"].num_directions > 1:
        raise ValueError("expected a network forward in time only: backward in time the last timestep has no past")
    if not all(1 <= length <= num_timesteps for length in lengths):
        raise ValueError(f"expected lengths from 1 to {num_timesteps}, got {list(lengths)}")
    chosen = tuple(sorted({*lengths, num_timesteps}))
    flat_RP = flat_RP.double()
    real = in_float64(inputs)
    _, seen, states = replicas.unroll(replicas.named(flat_RP), real)
    last_targets = targets if replicas.interface.target_at == "last" else targets[:, -1:]
    grads, traced = list[Tensor](), dict[StateKey, Tensor]()
    for length in chosen:  # through the newest timesteps; T comes last, with a trace
        cut = num_timesteps - length
        options = RunOptions(initial=[state[:, cut - 1] for state in states] if cut else (), num_scored=1)
        run = replicas.backpropagate(flat_RP, real[:, cut:], last_targets, options, trace=cut == 0, shared=True)
        grads.append(run.grad_RP)
        traced = run.grad_states
    grad_RKP, log10_phi_RT = torch.stack(grads, dim=1), _log10_phi(replicas, flat_RP, seen, states, traced)
    beta_R, sensitivity_R = _decay_factor(log10_phi_RT), step_sensitivity(replicas, flat_RP, seen, states)
    bound_RK = _relative_bias_bound(grad_RKP.norm(dim=2), log10_phi_RT, sensitivity_R, beta_R, chosen)
    cosine_RK, relative_error_RK = _compare(grad_RKP)
    return TruncationBias(
        lengths=chosen,
        cosine_RK=cosine_RK,
        relative_error_RK=relative_error_RK,
        log10_phi_RK=log10_phi_RT[:, [length - 1 for length in chosen]],
        decay_factor_R=beta_R,
        relative_bias_bound_RK=bound_RK,
        step_sensitivity_R=sensitivity_R,
    )


def _compare(grad_RKP: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and relative errors of the gradients against the last, scaled so that no square overflows."""
    scaled_RKP = grad_RKP / grad_RKP[:, -1:].abs().amax(dim=2, keepdim=True)
    full_R1P = scaled_RKP[:, -1:]
    norm_RK, full_norm_R1 = scaled_RKP.norm(dim=2), full_R1P.norm(dim=2)
    unit_RKP, full_unit_R1P = scaled_RKP / norm_RK[:, :, None], full_R1P / full_norm_R1[:, :, None]
    return (unit_RKP * full_unit_R1P).sum(dim=2), (scaled_RKP - full_R1P).norm(dim=2) / full_norm_R1


def _log10_phi(
    replicas: Replicas,
    flat_RP: Tensor,
    seen: Sequence[Tensor],
    states: Sequence[Tensor],
    traced: Mapping[StateKey, Tensor],
) -> Tensor:
    """Return log10 φ_k for k = 1 .. T, (R, T)."""
    stack, cuts = replicas.model.stacks["recurrent"], []
    for place, x_RTBD, mine in zip(stack.places, seen, unstack_states(states, stack.cell), strict=True):
        grad_h_RTBH = traced[StateKey(place.layer, place.direction, "h")]
        cuts.append(_cut_gradients(stack.cell, replicas.weights(flat_RP, place), x_RTBD, mine, grad_h_RTBH))
    log10_norm_RTB = log10_norm(torch.cat(cuts, dim=3))  # of 1/B times the loss of an example
    return torch.logsumexp(log10_norm_RTB * math.log(10.0), dim=2) / math.log(10.0)


def _cut_gradients(cell: Cell, weights: Weights, x_RTBD: Tensor, states: States, grad_h_RTBH: Tensor) -> Tensor:
    """Return dL/ds_{T-k} of one place for k = 1 .. T, (R, T, B, S), as from a state that is cut off there.

    The trace has the gradient along all paths, also those within a timestep: from c_t to h_t, and up to the next layer.
    A state that is cut has none of these. What reaches it comes from timestep t+1 alone: dL/dh_{t+1} of the trace and
    the gradient of a c_{t+1} that is cut itself, through one step.
    """

    def pull_back(before: Tensor, x_t: Tensor, mine: Weights, grad: Tensor) -> Tensor:
        return vjp(lambda at: joined_step(cell)(at, x_t, mine), before)[1](grad)[0]

    each = torch.vmap(torch.vmap(pull_back, in_dims=(0, 0, None, 0)))
    before_RTBS = torch.cat(states_before(states.tensors()), dim=3)
    grad_c = [torch.zeros_like(state[:, 0]) for state in states.tensors()[1:]]
    cuts: list[Tensor] = []
    for t in reversed(range(x_RTBD.shape[1])):
        grad = torch.cat([grad_h_RTBH[:, t], *grad_c], dim=2)
        cuts.append(each(before_RTBS[:, t], x_RTBD[:, t], weights, grad))
        grad_c = list(cuts[-1].chunk(len(cell.states), dim=2)[1:])
    return torch.stack(cuts, dim=1)


def _decay_factor(log10_phi_RT: Tensor) -> Tensor:
    """Return β, (R,): e to the slope of ln φ_k over k from T/2 to T, by least squares where it is finite."""
    num_timesteps = log10_phi_RT.shape[1]
    lag_T = torch.arange(1, num_timesteps + 1, dtype=log10_phi_RT.dtype, device=log10_phi_RT.device)
    used_RT = (lag_T >= num_timesteps / 2) & ~log10_phi_RT.isneginf()
    count_R1 = used_RT.sum(dim=1, keepdim=True)
    y_RT, x_RT = torch.where(used_RT, log10_phi_RT, 0.0), torch.where(used_RT, lag_T, 0.0)
    x_RT = torch.where(used_RT, x_RT - x_RT.sum(dim=1, keepdim=True) / count_R1, 0.0)
    slope_R = (x_RT * y_RT).sum(dim=1) / (x_RT * x_RT).sum(dim=1)
    return _powers_of_ten(slope_R)


def _powers_of_ten(exponents_R: Tensor) -> Tensor:
    """Return 10^x, replica by replica: torch takes another function for what is left over behind the last vector."""
    return torch.stack([10.0**each for each in exponents_R])


def _relative_bias_bound(
    norm_RK: Tensor, log10_phi_RT: Tensor, sensitivity_R: Tensor, beta_R: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Return δ(K), (R, K)."""
    phi_RT = _powers_of_ten(log10_phi_RT)
    phi_RT[:, -1] = 0.0  # of the state before the first timestep, which no parameter enters
    tail_RT = phi_RT.flip(1).cumsum(dim=1).flip(1)
    error_RK = sensitivity_R[:, None] * tail_RT[:, [length - 1 for length in lengths]]
    known_RK = (norm_RK > error_RK) & norm_RK.isfinite() & ~(beta_R >= 1)[:, None]
    return torch.where(known_RK, error_RK / (norm_RK - error_RK), torch.nan)


CHUNK_SIZE = 4096
"""Pairs of timestep and example that `step_sensitivity` works on at a time."""


def step_sensitivity(replicas: Replicas, flat_RP: Tensor, seen: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    """Return M of every replica, (R,); NaN where the network has more than one recurrence, or a cell of another form.

        M = max over timesteps and examples of ‖∂⁺s_t/∂θ‖

    the operator norm of the immediate Jacobian: the state before timestep t is held fixed. Most cells are affine
    before their nonlinearities, with W_hh h_{t-1} + b_hh and W_ih x_t + b_ih as the only ways in, and each unit's own
    rows enter its own state alone. So with A and B the derivatives in the two biases,

        ∂⁺s/∂θ (∂⁺s/∂θ)ᵀ = (‖h_{t-1}‖² + 1) A Aᵀ + (‖x_t‖² + 1) B Bᵀ

    is a small block for every unit, of as many rows as the cell has states. Where x_t is an embedding, trained too,
    (∂s/∂x_t)(∂s/∂x_t)ᵀ is added by its trace: M is then an upper bound. How it is computed is ours.

    `seen` and `states` are as `Replicas.unroll` returns them.
    """
    recurrent = replicas.model.stacks["recurrent"]
    cell = recurrent.cell
    if len(recurrent.places) > 1 or cell.pointwise is None or cell.prepare or cell.per_unit or cell.shared_map:
        return flat_RP.new_full((len(flat_RP),), torch.nan, dtype=torch.float64)
    norm = _squared_norm(recurrent.cell, input_is_trained=replicas.model.embedding is not None)
    weights = replicas.weights(flat_RP, recurrent.places[0])
    squared_RTB: Tensor = map_timesteps(norm, weights, seen[0], states, CHUNK_SIZE)
    return squared_RTB.amax(dim=(1, 2)).sqrt()


def _squared_norm(cell: Cell, input_is_trained: bool) -> Callable[[Tensor, States, Weights], Tensor]:
    """Return the function of one example at one timestep that gives ‖∂⁺s_t/∂θ‖², ()."""
    step = joined_step(cell)

    def squared_norm(x_t: Tensor, before: States, weights: Weights) -> Tensor:
        H, num_states, at = len(before.h), len(cell.states), torch.cat(before.tensors())
        every_unit = torch.eye(num_states, dtype=x_t.dtype, device=x_t.device).repeat_interleave(H, dim=1)

        def gram(name: str) -> Tensor:
            """Return A Aᵀ, A the derivative of each unit's states in its own rows of a bias, (states, states, H)."""

            def of_bias(bias: Tensor) -> Tensor:
                return step(at, x_t, weights._replace(**{name: bias}))

            pull_back = vjp(of_bias, getattr(weights, name))[1]
            rows_SGH = torch.vmap(lambda states: pull_back(states)[0])(every_unit).unflatten(1, (-1, H))
            return torch.einsum("sgh,zgh->szh", rows_SGH, rows_SGH)

        blocks_SSH = (x_t @ x_t + 1) * gram("bias_ih")
        if cell.fed_by_h:
            feeding = torch.cat(before.tensors()[: cell.num_feeding])
            blocks_SSH = blocks_SSH + (feeding @ feeding + 1) * gram("bias_hh")
        squared = _largest_eigenvalue(blocks_SSH).amax()
        if input_is_trained:
            squared = squared + jacrev(lambda x: step(at, x, weights))(x_t).square().sum()
        return squared

    return squared_norm


def _largest_eigenvalue(blocks_SSH: Tensor) -> Tensor:
    """Return the largest eigenvalue of H symmetric blocks of as many rows as there are states, (H,)."""
    if len(blocks_SSH) == 1:
        return blocks_SSH[0, 0]
    if len(blocks_SSH) > 2:
        return torch.linalg.eigvalsh(blocks_SSH.movedim(2, 0))[:, -1]
    first, off, second = blocks_SSH[0, 0], blocks_SSH[0, 1], blocks_SSH[1, 1]
    return (first + second) / 2 + torch.hypot((first - second) / 2, off)
