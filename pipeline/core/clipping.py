"""Clipping of gradients: each rule is a function and, below it, the frozen dataclass that a study names.

A rule has the two methods of an optax transformation: `init(params) -> state` and
`update(grad_RP, state, params) -> (clipped_RP, state)`. Defining a subclass of `ClippingRule` is all that makes a rule
known to studies; docs/examples/clipping_rule.py is a complete new one. What is the same for all of them, the ledger of
each update and what happens to a gradient that is not finite, is in `clip`.

Shapes: R replicas, P parameters of one network, U units of a parameter, K numbers per unit, N updates so far. Rows of
an (R, P) tensor never meet. Norms and scales are in float64, each entry is rounded once: squares of float32 overflow
at 1e19 and vanish at 1e-23, and the scale that shortens 3e38 to 1e-6 is a denormal number in it.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.config.strict import Checked, require

Params = Mapping[str, Tensor]
"""Views of the R networks' parameters by name, (R, *shape) each, in the order of the P numbers of a gradient."""
State = tuple[Tensor, ...]
"""What a rule remembers of earlier updates; a checkpoint keeps it."""


class ClippingRule(Checked, ABC):
    """A rule and its configuration. `name` is the one that a study says."""

    name: str

    @property
    def state_threshold(self) -> float | None:
        """Largest norm of an example's dL/dh_t on its way back through time; None: not limited there."""
        return None

    def init(self, params: Params) -> State:
        """Return the state before the first update: nothing, for a rule that remembers nothing."""
        return ()

    @abstractmethod
    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return the clipped gradient, (R, P), and the state after this update; rows are independent.

        Args:
            grad_RP: Gradients; a row whose norm is not finite may come out as anything, see `clip`.
            state: As `init` or the update before returned it; not to be changed in place.
            params: What the gradient is of.
        """


class Ledger(NamedTuple):
    """What one update's clipping did, per replica; all of shape (R,), float64."""

    grad_norm: Tensor
    clipped_grad_norm: Tensor
    clip_cosine: Tensor

    @property
    def is_clipped(self) -> Tensor:
        """Which updates were clipped: those whose applied gradient is shorter than the gradient was, (R,)."""
        return self.clipped_grad_norm < self.grad_norm


def clip(rule: ClippingRule, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State, Ledger]:
    """Return the gradient to apply, (R, P), the rule's new state, and the ledger of the update.

    A gradient whose norm is not finite is applied as it is: the trial is to see it.
    """
    clipped_RP, state = rule.update(grad_RP, state, params)
    if clipped_RP is not grad_RP:
        clipped_RP = torch.where(norms(grad_RP).isfinite()[:, None], clipped_RP, grad_RP)
    return clipped_RP, state, compare(grad_RP, clipped_RP)


def compare(grad_RP: Tensor, applied_RP: Tensor) -> Ledger:
    """Return the ledger of an update that applied `applied_RP` where the gradient was `grad_RP`, (R, P) each.

    The cosine is 1 where one and the same tensor is given as both and where both are zero, NaN where one of them is, or
    is not finite.
    """
    norm_R = norms(grad_RP)
    if applied_RP is grad_RP:
        return Ledger(norm_R, norm_R, torch.ones_like(norm_R))
    applied_norm_R, dot_R = norms(applied_RP), (grad_RP.double() * applied_RP).sum(dim=1)
    both_zero_R = (norm_R == 0) & (applied_norm_R == 0)
    return Ledger(norm_R, applied_norm_R, torch.where(both_zero_R, 1.0, dot_R / (norm_R * applied_norm_R)))


def norms(vectors_RP: Tensor) -> Tensor:
    """Return Euclidean norms of rows, (R,), in float64."""
    return torch.linalg.vector_norm(vectors_RP, dim=1, dtype=torch.float64)


def scaled(vectors: Tensor, scale: Tensor) -> Tensor:
    """Return vectors times a float64 scale, in their own precision: each entry is rounded once, the scale never."""
    return (vectors * scale).to(vectors.dtype)


@dataclass(frozen=True, kw_only=True)
class _Threshold(Checked):
    """What most rules are configured by."""

    threshold: float

    def __post_init__(self) -> None:
        require(0 < self.threshold < math.inf, "threshold", "a finite number above 0", self.threshold)


@dataclass(frozen=True, kw_only=True)
class NoClipping(ClippingRule):
    """The gradient as it is: the ledger still says how large it was."""

    name: Literal["none"] = "none"

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return the gradient itself."""
        return grad_RP, state


def clip_by_value(grad_RP: Tensor, threshold: float) -> Tensor:
    """Return g with every entry moved into [-δ, δ]; cutting some entries and not others changes its direction."""
    most = min(threshold, torch.finfo(grad_RP.dtype).max)  # no finite entry is beyond
    return grad_RP.clamp(-most, most)


@dataclass(frozen=True, kw_only=True)
class Value(_Threshold, ClippingRule):
    """Clip by value, g_j ← max(-δ, min(δ, g_j)) for every entry j (Goodfellow et al., 2016)."""

    name: Literal["value"] = "value"

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return `clip_by_value` at the threshold."""
        return clip_by_value(grad_RP, self.threshold), state


def clip_by_global_norm(grad_RP: Tensor, threshold: float | Tensor) -> Tensor:
    """Return g · min(1, δ/‖g‖) for each replica.

    Args:
        grad_RP: Gradients of R replicas, each flattened to P numbers.
        threshold: The largest norm δ that passes unchanged; one for all, or one per replica, (R,).
    """
    norm_R = norms(grad_RP)
    scale_R = torch.where(norm_R > 0, (threshold / norm_R).clamp(max=1.0), 1.0)  # AutoClip's threshold may be 0, too
    return scaled(grad_RP, scale_R[:, None])


@dataclass(frozen=True, kw_only=True)
class GlobalNorm(_Threshold, ClippingRule):
    """Clip by global norm, g ← g · min(1, δ/‖g‖), over all parameters of a replica (Pascanu et al., 2013)."""

    name: Literal["global_norm"] = "global_norm"

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return `clip_by_global_norm` at the threshold."""
        return clip_by_global_norm(grad_RP, self.threshold), state


def clip_by_global_norm_max(grad_RP: Tensor, threshold: float) -> Tensor:
    """Return g · max(1, δ/‖g‖) for each replica: a misprint, see `GlobalNormMax`."""
    norm_R = norms(grad_RP)
    scale_R = torch.where(norm_R > 0, (threshold / norm_R).clamp(1.0, sys.float_info.max), 1.0)  # 0 times it is 0
    return scaled(grad_RP, scale_R[:, None])


@dataclass(frozen=True, kw_only=True)
class GlobalNormMax(_Threshold, ClippingRule):
    """A misprint of `global_norm`, g ← g · max(1, δ/‖g‖), as one set of lecture notes has it; here to be compared.

    It makes a gradient smaller than δ as large as δ, and never shrinks any, so it cannot stop an explosion and near
    a minimum keeps steps large. The rule that is meant has min.
    """

    name: Literal["global_norm_max"] = "global_norm_max"

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return `clip_by_global_norm_max` at the threshold."""
        return clip_by_global_norm_max(grad_RP, self.threshold), state


def clip_by_block_norm(grad_RP: Tensor, threshold: float, params: Params) -> Tensor:
    """Return g_k · min(1, δ/‖g_k‖) for each parameter tensor k of each replica."""
    blocks = [_shrink(block[:, None], threshold) for block in grad_RP.split(_sizes(params), dim=1)]
    return torch.cat([block.flatten(1) for block in blocks], dim=1)


@dataclass(frozen=True, kw_only=True)
class BlockNorm(_Threshold, ClippingRule):
    """Clip by block norm, g_k ← g_k · min(1, δ/‖g_k‖) for every parameter tensor k by its own norm.

    Source: optax's `clip_by_block_rms`, with the norm in place of the root mean square.
    """

    name: Literal["block_norm"] = "block_norm"

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return `clip_by_block_norm` at the threshold."""
        return clip_by_block_norm(grad_RP, self.threshold, params), state


MIN_WEIGHT_NORM = 1e-3
"""ε of `adaptive_grad_clip`: what a unit's weights count as, at least, so that a unit of zeros can learn."""


def adaptive_grad_clip(grad_RP: Tensor, params: Params, clipping: float) -> Tensor:
    """Return g_i · min(1, λ max(‖W_i‖, ε)/‖g_i‖) for each unit i of each replica; ε = 1e-3.

    A unit is a row of a matrix, the weights into one output unit, and an entry of a vector, its bias.

    Args:
        grad_RP: Gradients.
        params: Parameters W.
        clipping: λ, the largest ratio of ‖g_i‖ to ‖W_i‖ that passes unchanged.
    """
    blocks = []
    for grad, W in zip(grad_RP.split(_sizes(params), dim=1), params.values(), strict=True):
        num_units = W.shape[1] if W.dim() > 1 else 1
        grad_RUK, W_RUK = grad.unflatten(1, (num_units, -1)), W.reshape(len(W), num_units, -1)
        blocks.append(_shrink(grad_RUK, clipping * _unit_norms(W_RUK).clamp(min=MIN_WEIGHT_NORM)).flatten(1))
    return torch.cat(blocks, dim=1)


@dataclass(frozen=True, kw_only=True)
class Adaptive(ClippingRule):
    """Adaptive gradient clipping, ‖g_i‖ ≤ λ max(‖W_i‖, 1e-3) for every unit i, λ being `clipping`.

    Source: Brock et al. (2021). Their code takes a bias vector as one unit; here each of its entries belongs
    to the unit that it biases.
    """

    name: Literal["adaptive"] = "adaptive"
    clipping: float

    def __post_init__(self) -> None:
        require(0 < self.clipping < math.inf, "clipping", "a finite number above 0", self.clipping)

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return `adaptive_grad_clip` at the ratio."""
        return adaptive_grad_clip(grad_RP, params, self.clipping), state


def _sizes(params: Params) -> list[int]:
    return [param[0].numel() for param in params.values()]


def _unit_norms(units_RUK: Tensor) -> Tensor:
    return torch.linalg.vector_norm(units_RUK, dim=2, keepdim=True, dtype=torch.float64)


def _shrink(units_RUK: Tensor, largest: float | Tensor) -> Tensor:
    """Return units scaled to a norm of at most `largest`, which is above 0."""
    return scaled(units_RUK, (largest / _unit_norms(units_RUK)).clamp(max=1.0))


@dataclass(frozen=True, kw_only=True)
class AutoClip(ClippingRule):
    """Clip by global norm at the p-th percentile of all norms so far, the present one included.

    It remembers them sorted, replica by replica: 8 bytes per update and replica.

    Source: Seetharaman et al. (2020), p = 10. A norm that is not finite does not enter the history.
    """

    name: Literal["autoclip"] = "autoclip"
    percentile: float

    def __post_init__(self) -> None:
        require(0 <= self.percentile <= 100, "percentile", "a number in [0, 100]", self.percentile)

    def init(self, params: Params) -> State:
        """Return an empty history, (R, 0)."""
        some = next(iter(params.values()))
        return (some.new_empty((len(some), 0), dtype=torch.float64),)

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return `clip_by_global_norm` at each replica's percentile, and the history with the present norms."""
        sorted_RN = insert_sorted(state[0], norms(grad_RP))
        return clip_by_global_norm(grad_RP, percentile_of_sorted(sorted_RN, self.percentile)), (sorted_RN,)


def insert_sorted(sorted_RN: Tensor, values_R: Tensor) -> Tensor:
    """Return each row with its value inserted in order, (R, N+1); one that is not finite goes last, as infinity.

    Entry i of a new row is the value, held between the entries i-1 and i of the old row.
    """
    values_R = torch.where(values_R.isfinite(), values_R, math.inf)
    below, above = pad(sorted_RN, (1, 0), value=-math.inf), pad(sorted_RN, (0, 1), value=math.inf)
    return torch.clamp(values_R[:, None], below, above)


def percentile_of_sorted(sorted_RN: Tensor, percentile: float) -> Tensor:
    """Return a percentile of the finite numbers of each row, (R,), linear between them; NaN where there are none.

    It equals `numpy.percentile` to the last bit, so it is worked out in numpy's order.

    Args:
        sorted_RN: As `insert_sorted` returns it, float64, N at least 1.
        percentile: In [0, 100].
    """
    last_R1 = torch.searchsorted(sorted_RN, torch.full_like(sorted_RN[:, :1], math.inf)) - 1
    place_R1 = last_R1.double() * (percentile / 100)
    left_R1 = place_R1.floor().long().clamp(min=0)
    right_R1 = (left_R1 + 1).minimum(last_R1).clamp(min=0)
    left, right = sorted_RN.gather(1, left_R1), sorted_RN.gather(1, right_R1)
    share, gap = place_R1 - left_R1, right - left
    return torch.where(share < 0.5, left + gap * share, right - gap * (1 - share)).squeeze(1)


@dataclass(frozen=True, kw_only=True)
class StateNorm(_Threshold, ClippingRule):
    """Clip inside the recurrence: δ_t ← δ_t · min(1, δ/‖δ_t‖), δ_t = dL/dh_t of one example, before it flows to t-1.

    Mikolov (2012, section 3.2.2) limited the errors of hidden units so, there entry by entry. What this does to the
    gradient is not a scale: it can change its direction. The backward pass does it, with `state_threshold`; `update`
    changes nothing.
    """

    name: Literal["state_norm"] = "state_norm"

    @property
    def state_threshold(self) -> float:
        """The threshold."""
        return self.threshold

    def update(self, grad_RP: Tensor, state: State, params: Params) -> tuple[Tensor, State]:
        """Return the gradient itself."""
        return grad_RP, state
