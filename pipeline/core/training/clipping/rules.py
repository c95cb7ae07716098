"""The clipping rules: of each the function, then the variant that a study names.

Legend: R replicas, P parameters of one network, U units of a parameter, K numbers a unit. Rows of an (R, P) tensor
never meet. Where the norm of a replica's gradient is not finite, nothing is changed: the caller is to see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.config.strict import require
from pipeline.core.training.clipping.clipper import Clipper, Ledger, Shapes, Stateless, compare, norms
from pipeline.core.training.clipping.history import insert_sorted, percentile_of_sorted

MIN_WEIGHT_NORM = 1e-3
"""ε of `adaptive_grad_clip`: what a unit's weights count as, at least, so that a unit of zeros can learn."""


def clip_by_value(grad_RP: Tensor, threshold: float) -> tuple[Tensor, Ledger]:
    """Return g with every entry moved into [-δ, δ], and the ledger; cutting some entries and not others turns g."""
    return _where_finite(grad_RP, grad_RP.clamp(-threshold, threshold))


def clip_by_global_norm(grad_RP: Tensor, threshold: float | Tensor) -> tuple[Tensor, Ledger]:
    """Return g · min(1, δ/‖g‖) for each replica, and the ledger.

    Args:
        grad_RP: Gradients of R replicas, each flattened to P numbers.
        threshold: The largest norm δ that passes unchanged; one for all, or one a replica, (R,).
    """
    norm = norms(grad_RP)
    scale = torch.where(norm.isfinite() & (norm > 0), (threshold / norm).clamp(max=1.0), 1.0)
    clipped = grad_RP * scale[:, None].to(grad_RP.dtype)
    return clipped, compare(grad_RP, clipped, norm)


def clip_by_global_norm_max(grad_RP: Tensor, threshold: float) -> tuple[Tensor, Ledger]:
    """Return g · max(1, δ/‖g‖) for each replica, and the ledger: a misprint, see `GlobalNormMax`."""
    norm = norms(grad_RP)
    scale = torch.where(norm.isfinite() & (norm > 0), (threshold / norm).clamp(min=1.0), 1.0)
    enlarged = (grad_RP.double() * scale[:, None]).to(grad_RP.dtype)  # the scale alone may be beyond float32
    return enlarged, compare(grad_RP, enlarged, norm)


def clip_by_block_norm(grad_RP: Tensor, threshold: float, shapes: Shapes) -> tuple[Tensor, Ledger]:
    """Return g_k · min(1, δ/‖g_k‖) for each parameter tensor k of each replica, and the ledger."""
    blocks = [_shrink(block_RUK.flatten(1)[:, None], threshold) for block_RUK in _units(grad_RP, shapes)]
    return _where_finite(grad_RP, torch.cat([block.flatten(1) for block in blocks], dim=1))


def adaptive_grad_clip(grad_RP: Tensor, flat_RP: Tensor, clipping: float, shapes: Shapes) -> tuple[Tensor, Ledger]:
    """Return g_i · min(1, λ max(‖W_i‖, ε)/‖g_i‖) for each unit i of each replica, and the ledger; ε = 1e-3.

    A unit is a row of a matrix, the weights into one output unit, and an entry of a vector, its bias.

    Args:
        grad_RP: Gradients.
        flat_RP: Parameters W.
        clipping: λ, the largest ratio of ‖g_i‖ to ‖W_i‖ that passes unchanged.
        shapes: How P numbers make parameters.
    """
    blocks = [
        _shrink(grad_RUK, clipping * _unit_norms(W_RUK).clamp(min=MIN_WEIGHT_NORM))
        for grad_RUK, W_RUK in zip(_units(grad_RP, shapes), _units(flat_RP, shapes), strict=True)
    ]
    return _where_finite(grad_RP, torch.cat([block.flatten(1) for block in blocks], dim=1))


def _where_finite(grad_RP: Tensor, clipped_RP: Tensor) -> tuple[Tensor, Ledger]:
    """Return the clipped gradient of replicas whose norm is finite, the raw one of the others, and the ledger."""
    norm = norms(grad_RP)
    applied = torch.where(norm.isfinite()[:, None], clipped_RP, grad_RP)
    return applied, compare(grad_RP, applied, norm)


def _units(tensor_RP: Tensor, shapes: Shapes) -> Iterator[Tensor]:
    """Yield each parameter as (R, U, K): rows of a matrix, entries of a vector."""
    parts = tensor_RP.split([math.prod(shape) for shape in shapes.values()], dim=1)
    for part, shape in zip(parts, shapes.values(), strict=True):
        yield part.unflatten(1, (shape[0] if shape else 1, -1))


def _unit_norms(units_RUK: Tensor) -> Tensor:
    return torch.linalg.vector_norm(units_RUK, dim=2, keepdim=True, dtype=torch.float64)


def _shrink(units_RUK: Tensor, largest: float | Tensor) -> Tensor:
    """Return units scaled to a norm of at most `largest`, which is above 0."""
    return units_RUK * (largest / _unit_norms(units_RUK)).clamp(max=1.0).to(units_RUK.dtype)


class AutoClipper:
    """Remembers every norm so far, sorted, replica by replica: 8 bytes an update and replica."""

    def __init__(self, percentile: float, num_replicas: int, device: torch.device) -> None:
        self._percentile = percentile
        self._sorted_RN = torch.empty(num_replicas, 0, dtype=torch.float64, device=device)

    def clip(self, grad_RP: Tensor, flat_RP: Tensor) -> tuple[Tensor, Ledger]:
        """Remember the norms; return `clip_by_global_norm` at each replica's percentile."""
        self._sorted_RN = insert_sorted(self._sorted_RN, norms(grad_RP))
        return clip_by_global_norm(grad_RP, percentile_of_sorted(self._sorted_RN, self._percentile))

    def state(self) -> dict[str, Tensor]:
        """Return the norms, (R, N)."""
        return {"sorted_norms_RN": self._sorted_RN}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the norms up."""
        self._sorted_RN = state["sorted_norms_RN"].to(self._sorted_RN.device)


class Rule:
    """What the variants share: all but one act on the whole gradient, once it has been computed."""

    @property
    def state_threshold(self) -> float | None:
        """Largest norm of an example's dL/dh_t on its way back through time; None: not limited there."""
        return None


@dataclass(frozen=True)
class NoClipping(Rule):
    """The gradient as it is: the ledger still says how large it was."""

    name: Literal["none"]

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return the identity."""
        return Stateless(lambda grad_RP, _: (grad_RP, compare(grad_RP, grad_RP)))


@dataclass(frozen=True)
class Value(Rule):
    """Clip by value, g_j ← max(-δ, min(δ, g_j)) for every entry j (Goodfellow et al., 2016)."""

    name: Literal["value"]
    threshold: float

    def __post_init__(self) -> None:
        _require_positive("threshold", self.threshold)

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return `clip_by_value` at the threshold."""
        return Stateless(lambda grad_RP, _: clip_by_value(grad_RP, self.threshold))


@dataclass(frozen=True)
class GlobalNorm(Rule):
    """Clip by global norm, g ← g · min(1, δ/‖g‖), over all parameters of a replica (Pascanu et al., 2013)."""

    name: Literal["global_norm"]
    threshold: float

    def __post_init__(self) -> None:
        _require_positive("threshold", self.threshold)

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return `clip_by_global_norm` at the threshold."""
        return Stateless(lambda grad_RP, _: clip_by_global_norm(grad_RP, self.threshold))


@dataclass(frozen=True)
class GlobalNormMax(Rule):
    """A misprint of `global_norm`, g ← g · max(1, δ/‖g‖), as one set of lecture notes has it; here to be compared.

    It makes a gradient smaller than δ as large as δ, and never shrinks any, so it cannot stop an explosion and near
    a minimum keeps steps large. The rule that is meant has min.
    """

    name: Literal["global_norm_max"]
    threshold: float

    def __post_init__(self) -> None:
        _require_positive("threshold", self.threshold)

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return `clip_by_global_norm_max` at the threshold."""
        return Stateless(lambda grad_RP, _: clip_by_global_norm_max(grad_RP, self.threshold))


@dataclass(frozen=True)
class BlockNorm(Rule):
    """Clip by block norm, g_k ← g_k · min(1, δ/‖g_k‖) for every parameter tensor k by its own norm.

    Source: optax's `clip_by_block_rms`, with the norm in place of the root mean square.
    """

    name: Literal["block_norm"]
    threshold: float

    def __post_init__(self) -> None:
        _require_positive("threshold", self.threshold)

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return `clip_by_block_norm` at the threshold."""
        return Stateless(lambda grad_RP, _: clip_by_block_norm(grad_RP, self.threshold, shapes))


@dataclass(frozen=True)
class AutoClip(Rule):
    """Clip by global norm at the p-th percentile of all norms so far, the present one included.

    Source: Seetharaman et al. (2020), p = 10. A norm that is not finite does not enter the history.
    """

    name: Literal["autoclip"]
    percentile: float

    def __post_init__(self) -> None:
        require(0 <= self.percentile <= 100, "percentile", "a number in [0, 100]", self.percentile)

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return a clipper with an empty history."""
        return AutoClipper(self.percentile, num_replicas, device)


@dataclass(frozen=True)
class Adaptive(Rule):
    """Adaptive gradient clipping, ‖g_i‖ ≤ λ max(‖W_i‖, 1e-3) for every unit i, λ being `clipping`.

    Source: Brock et al. (2021). Their code takes a bias vector as one unit; here each of its entries belongs
    to the unit that it biases.
    """

    name: Literal["adaptive"]
    clipping: float

    def __post_init__(self) -> None:
        _require_positive("clipping", self.clipping)

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Clipper:
        """Return `adaptive_grad_clip` at the ratio."""
        return Stateless(lambda grad_RP, flat_RP: adaptive_grad_clip(grad_RP, flat_RP, self.clipping, shapes))


@dataclass(frozen=True)
class StateNorm(Rule):
    """Clip inside the recurrence: δ_t ← δ_t · min(1, δ/‖δ_t‖), δ_t = dL/dh_t of one example, before it flows to t-1.

    Mikolov (2012, section 3.2.2) limited the errors of hidden units so, there entry by entry. What this does to the
    gradient is not a scale: it can turn it. The backward pass reads `state_threshold`; the clipper changes nothing.
    """

    name: Literal["state_norm"]
    threshold: float

    def __post_init__(self) -> None:
        _require_positive("threshold", self.threshold)

    @property
    def state_threshold(self) -> float:
        """The threshold."""
        return self.threshold

    def clipper(self, shapes: Shapes, num_replicas: int, device: torch.device) -> Stateless:
        """Return the identity: `compare` gives the ledger of what the backward pass did."""
        return Stateless(lambda grad_RP, _: (grad_RP, compare(grad_RP, grad_RP)))


Clipping = NoClipping | Value | GlobalNorm | GlobalNormMax | BlockNorm | AutoClip | Adaptive | StateNorm
"""The variants that studies may name."""


def _require_positive(field: str, value: float) -> None:
    require(0 < value < math.inf, field, "a finite number above 0", value)
