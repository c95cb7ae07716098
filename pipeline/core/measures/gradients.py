"""The gradient on one batch: how large at every timestep, whether right, how fast it changes, where it is not finite.

Trained in float32, measured in float64: float32 shows 0 below 1e-45 (1e-38 with denormals flushed) where a trace
still sees 1e-300, and a vanished gradient is a number, not an absence.

Unless said otherwise, parameters (R, P) are of any precision, and inputs (B, T, D) or (B, T) and targets, as the loss
wants them, are one batch that all replicas see.

Shapes: R replicas, T timesteps, B examples, D input, H hidden, P parameters of one network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.cells.stack import FORWARD
from pipeline.core.models import Inputs, Replicas, RunOptions, StateKey, lengths_of, map_inputs, source_of
from pipeline.core.models.interface import AnyInputs
from pipeline.core.models.network import NO_OPTIONS


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
    """Return the gradient trace of every replica."""
    run = replicas.backpropagate(flat_RP.double(), in_float64(inputs), targets, trace=True, shared=True)
    states = run.grad_states
    if replicas.interface.padded:
        lengths_B = lengths_of(source_of(inputs))
        written = {"decoder"} if replicas.interface.decodes else set()  # of a module of one's own it is any name
        states = {key: grad if key.part in written else at_end(grad, lengths_B) for key, grad in states.items()}
    norms = {key: log10_norm(grad_RTBH.flatten(2)) for key, grad_RTBH in states.items()}
    return GradientTrace(norms, run.grad_RP)


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
    none is right and this says nothing. `grad_RP` is the gradient on the batch, float64.
    """
    real = in_float64(inputs)
    norm_R = grad_RP.norm(dim=1)
    direction_RP = grad_RP / torch.where(norm_R > 0, norm_R, 1.0)[:, None]

    @torch.no_grad()
    def loss_at(offset: float) -> Tensor:
        moved = replicas.named(flat_RP.double() + offset * direction_RP)
        return replicas.losses(moved, real, targets, shared=True)[0]

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
    """
    sign_P = 1.0 - 2.0 * (torch.arange(flat_RP.shape[1], device=flat_RP.device) % 2).double()
    start_RP = flat_RP.double()
    moved_RP = start_RP * (1.0 + 0.5 * torch.finfo(torch.float32).eps * sign_P)
    moved, start = (_exact_gradient(replicas, at_RP, inputs, targets) for at_RP in (moved_RP, start_RP))
    return gradient_check_error(moved, start)


FRACTIONS = (1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6)
"""α of `local_smoothness`."""


def local_smoothness(
    replicas: Replicas, before_RP: Tensor, after_RP: Tensor, inputs: Inputs, targets: Tensor
) -> Tensor:
    """Return how fast the gradient changes along an update, (R,): what its step size and its norm can be judged by.

        L = max over α of ‖∇f(θ + α d) - ∇f(θ)‖ / (α ‖d‖),   d = the update,   α = 1/6, 2/6, …, 5/6

    a lower bound of the Lipschitz constant of the gradient between θ, `before_RP`, and θ + d, `after_RP`, in float64.
    NaN where nothing was moved, or where the update or a gradient on the way is not finite.

    Source: Zhang, He, Sra and Jadbabaie (2020), "Why gradient clipping accelerates training", who estimate it so. Here
    f is always the loss on the same probe batch: neither sampling nor rounding shows in the difference of gradients.
    """
    start_RP, changes = before_RP.double(), list[Tensor]()
    update_RP = after_RP.double() - start_RP
    length_R, grad_RP = update_RP.norm(dim=1), _exact_gradient(replicas, start_RP, inputs, targets)
    for alpha in FRACTIONS:
        moved_RP = _exact_gradient(replicas, start_RP + alpha * update_RP, inputs, targets)
        changes.append((moved_RP - grad_RP).norm(dim=1) / alpha)
    smoothness_R = torch.stack(changes).amax(dim=0) / length_R  # amax passes NaN on
    return torch.where(smoothness_R.isfinite() & length_R.isfinite(), smoothness_R, torch.nan)


def _exact_gradient(replicas: Replicas, flat_RP: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
    """Return the parameters' gradient on a batch that all replicas see, (R, P), in float64."""
    return replicas.backpropagate(flat_RP, in_float64(inputs), targets, shared=True).grad_RP


class Location(NamedTuple):
    """Where a gradient stopped being finite.

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
    options: RunOptions = NO_OPTIONS,
) -> Location:
    """Return where the gradient of one replica stopped being finite.

    The backward pass meets the last layer first, and in each recurrence the timestep that it read last: T of one
    forward in time, 1 of one backward in time. The first bad state that it meets is named; if every state's gradient is
    finite, a parameter is.

    Args:
        replicas: The replica batch.
        flat_RP: Parameters at which the step was tried.
        inputs: The batch of that step, (R, B, ...).
        targets: Its targets.
        replica: Which one diverged.
        options: Of its pass.
    """
    run = replicas.backpropagate(flat_RP, inputs, targets, options, trace=True)
    num_nonfinite = int((~run.grad_RP[replica].isfinite()).sum())
    met: list[tuple[bool, int, int, int, StateKey]] = []
    for key in replicas.model.state_keys:
        grad = run.grad_states[key]
        bad = (~grad[replica].isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()  # timesteps, from 0
        if bad:  # a decoder before its encoder, the last layer first, then by how many steps back in its own order
            timestep, num_back = (
                (bad[-1], grad.shape[1] - bad[-1]) if key.direction == FORWARD else (bad[0], bad[0] + 1)
            )
            met.append((replicas.interface.decodes and key.part == "encoder", -key.layer, num_back, timestep + 1, key))
    if met:
        *_, timestep, key = min(met, key=lambda place: place[:3])
        where = [] if key.part == "recurrent" else [key.part]
        places = {(other.layer, other.direction) for other in replicas.model.state_keys if other.part == key.part}
        where += [] if len(places) == 1 else [f"layer {key.layer}", key.direction]
        suffix = f" ({', '.join(where)})" if where else ""
        return Location(timestep, f"grad_{key.quantity}{suffix}", num_nonfinite)
    for name, grad in replicas.named(run.grad_RP).items():
        if not bool(grad[replica].isfinite().all()):
            return Location(None, name, num_nonfinite)
    return Location(None, "loss", num_nonfinite)
