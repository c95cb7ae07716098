"""The gradient at every timestep, exactly: dL/dh_t and dL/dc_t of a fixed probe batch, in float64.

Trained in float32, measured in float64: float32 shows 0 below 1e-45 (1e-38 with denormals flushed) where the trace
still sees 1e-300, and a vanished gradient is a number, not an absence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.models import Inputs, Replicas, Seq2SeqInputs, StateKey, lengths_of, map_inputs
from pipeline.core.models.interface import AnyInputs


class GradientTrace(NamedTuple):
    """A trace of R replicas.

    Attributes:
        log10_norms: By state, and of what is read, in the order of the model's `tap_keys`: log10 ‖dL/ds_t‖ over the
            probe batch (Frobenius), (R, T); -inf is exactly 0. Of sequences that differ in length the last timestep is
            the end of each, so that T - t is how far back a state lies.
        grad_RP: The parameters' gradient on the same batch, float64.
    """

    log10_norms: dict[StateKey, Tensor]
    grad_RP: Tensor


def trace_gradients(replicas: Replicas, flat_RP: Tensor, inputs: Inputs, targets: Tensor) -> GradientTrace:
    """Return the gradient trace of every replica on one batch that all of them see.

    Args:
        replicas: The pack.
        flat_RP: Its parameters, of any precision.
        inputs: (B, T, D) or (B, T).
        targets: As the loss wants them.
    """
    real = in_float64(inputs)
    states, grad_RP = replicas.state_gradients(flat_RP.double(), real, targets, shared=True)
    if replicas.interface.padded:
        lengths_B = lengths_of(inputs.source if isinstance(inputs, Seq2SeqInputs) else inputs)
        states = {key: grad if key.part == "decoder" else at_end(grad, lengths_B) for key, grad in states.items()}
    norms = {key: log10_norm(grad_RTBH.flatten(2)) for key, grad_RTBH in states.items()}
    return GradientTrace(norms, grad_RP)


def at_end(grad_RTBH: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the gradients with each sequence moved to the end of the time axis, zeros before it.

    Args:
        grad_RTBH: Padding follows each sequence.
        lengths_B: Timesteps of each.
    """
    num_timesteps = grad_RTBH.shape[1]
    source_TB = torch.arange(num_timesteps, device=lengths_B.device)[:, None] - (num_timesteps - lengths_B)
    moved = grad_RTBH.gather(1, source_TB.clamp_min(0)[None, :, :, None].expand_as(grad_RTBH))
    return torch.where((source_TB >= 0)[None, :, :, None], moved, 0.0)


def in_float64(inputs: AnyInputs) -> AnyInputs:
    """Return real inputs in float64; symbol ids as they are."""
    return map_inputs(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, inputs)


def log10_norm(vectors: Tensor) -> Tensor:
    """Return log10 of Euclidean norms over the last axis, right where the squares would underflow or overflow."""
    largest = vectors.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    logs = (vectors / scale).norm(dim=-1).log10() + scale.squeeze(-1).log10()
    return torch.where(largest.squeeze(-1).isinf(), torch.inf, logs)


EPSILONS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Steps of the finite differences: too large a one sees curvature, too small a one rounding."""


def finite_difference_error(
    replicas: Replicas, flat_RP: Tensor, grad_RP: Tensor, inputs: Inputs, targets: Tensor
) -> Tensor:
    """Return how far the gradient is from central differences of the loss along it, relative, (R,).

    [L(θ + εu) - L(θ - εu)] / 2ε with u = g/‖g‖ should be ‖g‖: a witness that no backward pass takes part in. The best
    of several ε counts, since too large a one sees curvature and too small a one rounding; where the gradient explodes,
    none is right and this says nothing.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        grad_RP: Their gradient on the batch, float64.
        inputs: (B, T, D) or (B, T), the same for all replicas.
        targets: As the loss wants them.
    """
    real = in_float64(inputs)
    norm_R = grad_RP.norm(dim=1)
    direction_RP = grad_RP / torch.where(norm_R > 0, norm_R, 1.0)[:, None]

    @torch.no_grad()
    def loss_at(offset: float) -> Tensor:
        return replicas.losses(replicas.named(flat_RP.double() + offset * direction_RP), real, targets, shared=True)

    slopes = [(loss_at(epsilon) - loss_at(-epsilon)) / (2 * epsilon) for epsilon in EPSILONS]
    error_R = torch.stack([(slope_R - norm_R).abs() for slope_R in slopes]).amin(dim=0)
    return torch.where(norm_R > 0, error_R / norm_R, error_R)


def gradient_check_error(fast_RP: Tensor, exact_RP: Tensor) -> Tensor:
    """Return ‖fast - exact‖ / ‖exact‖ for every replica, (R,): how far the training path's gradient strays.

    0 where both are zero; inf where only the exact one is.
    """
    difference = (fast_RP.double() - exact_RP).norm(dim=1)
    return torch.where(difference == 0, difference, difference / exact_RP.norm(dim=1))


def rounding_error(replicas: Replicas, flat_RP: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
    """Return how far the exact gradient moves when every weight moves by half a unit of float32's last place, (R,).

    Relative, as `gradient_check_error`; signs alternate along the parameters. Where a network is chaotic this is large:
    no float32 gradient can be near the float64 one. It says nothing of whether the gradient is right.

    Args:
        replicas: The pack.
        flat_RP: Parameters.
        inputs: (B, T, D) or (B, T), the same for all replicas.
        targets: As the loss wants them.
    """
    sign_P = 1.0 - 2.0 * (torch.arange(flat_RP.shape[1], device=flat_RP.device) % 2).double()
    start_RP = flat_RP.double()
    moved_RP = start_RP * (1.0 + 0.5 * torch.finfo(torch.float32).eps * sign_P)
    ends = [replicas.gradients(at_RP, in_float64(inputs), targets, shared=True)[1] for at_RP in (moved_RP, start_RP)]
    return gradient_check_error(*ends)
