"""Jacobians of single timesteps, and the singular values of their products.

    jacobian_t = ∂s_t/∂s_{t-1},    ∂s_T/∂s_{T-k} = jacobian_T · jacobian_{T-1} · … · jacobian_{T-k+1}

with s = h, or (h, c) where the cell has both; rows are outputs. Products are scaled by powers of two as they grow, so
no lag is too long for them. Singular values far below the largest one are lost in a product, however it is scaled; they
are the large ones of the inverse. So the smallest comes from the product of the inverses, the median from whichever of
the two resolves it, and a number that neither resolves is NaN.

Shapes: R replicas, T timesteps, B batch, H hidden, S = H · (number of states) rows.

Source: Pascanu, Mikolov and Bengio (2013), for what the products say; the inverse is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev

from pipeline.core.cells import Cell, States, Weights
from pipeline.core.measures.timesteps import joined_step, map_timesteps

QUANTITIES = ("largest", "median", "smallest", "condition")
ENTRIES_IN_FLIGHT = 2**23
"""How many intermediate numbers `step_jacobians` holds at a time, beside its result."""
RELATIVE_ERROR = 1e-3
"""Of a singular value beyond which it counts as not resolved."""
_EPSILON = torch.finfo(torch.float64).eps


def step_jacobians(cell: Cell, weights: Weights, x_RTBD: Tensor, states: Sequence[Tensor]) -> Tensor:
    """Return ∂s_t/∂s_{t-1} of every timestep and example of an unrolled recurrence, (R, T, B, S, S), in float64.

    Weights, inputs and states are as those of `map_timesteps`.
    """

    def jacobian(x_t: Tensor, before: States, mine: Weights) -> Tensor:
        return jacrev(joined_step(cell))(torch.cat(before.tensors()), x_t, mine)

    rows, columns = states[0].shape[3] * len(states), weights.weight_hh.shape[1]
    chunk_size = max(1, ENTRIES_IN_FLIGHT // (rows * max(rows, columns)))
    jacobians: Tensor = map_timesteps(jacobian, weights, x_RTBD, states, chunk_size)
    return jacobians


def singular_values_by_lag(jacobians_RTBSS: Tensor, lags: Sequence[int]) -> dict[str, Tensor]:
    """Return singular values of ∂s_T/∂s_{T-k}, their log10 averaged over examples, (R, lags) by quantity.

    "largest", "smallest", "condition" (largest over smallest) and "median", of an even number of rows the geometric
    mean of the middle two. -inf is exactly 0, as where every unit of a ReLU is off. NaN is a number that float64 does
    not resolve, or one that is not finite to begin with.

    Args:
        jacobians_RTBSS: As `step_jacobians` returns them.
        lags: k, from 1 to T.

    Raises:
        ValueError: If a lag is out of range.
    """
    num_timesteps = jacobians_RTBSS.shape[1]
    if not all(1 <= lag <= num_timesteps for lag in lags):
        raise ValueError(f"expected lags from 1 to {num_timesteps}, got {list(lags)}")
    replicas = [_of_replica(jacobians.double().clone(), lags) for jacobians in jacobians_RTBSS]
    return {quantity: torch.stack([values[quantity] for values in replicas]) for quantity in QUANTITIES}


class _Product(NamedTuple):
    """matrix · 2^exponent, (B, S, S) and (B,)."""

    matrix_BSS: Tensor
    exponent_B: Tensor

    def times(self, left_BSS: Tensor | None = None, right_BSS: Tensor | None = None) -> _Product:
        product = self.matrix_BSS if left_BSS is None else left_BSS @ self.matrix_BSS
        product = product if right_BSS is None else product @ right_BSS
        exponent_B = torch.frexp(product.abs().amax(dim=(1, 2))).exponent.double().clamp_(-1000, 1000)
        return _Product(product * torch.exp2(-exponent_B)[:, None, None], self.exponent_B + exponent_B)

    def log10_singular_values(self, num_factors: int) -> Tensor:
        """Return them falling, (B, S), NaN where they may be off by more than `RELATIVE_ERROR`."""
        finite_B = self.matrix_BSS.isfinite().all(dim=2).all(dim=1)
        values_BS = torch.linalg.svdvals(torch.where(finite_B[:, None, None], self.matrix_BSS, 0.0))
        rounding = _EPSILON * num_factors * math.sqrt(values_BS.shape[1])
        resolved_BS = (values_BS * RELATIVE_ERROR >= values_BS[:, :1] * rounding) & finite_B[:, None]
        logs_BS = values_BS.log10() + math.log10(2.0) * self.exponent_B[:, None]
        return torch.where(resolved_BS, logs_BS, torch.nan)


def _of_replica(jacobians_TBSS: Tensor, lags: Sequence[int]) -> dict[str, Tensor]:
    num_timesteps, num_examples, size, _ = jacobians_TBSS.shape
    zero_B = jacobians_TBSS.new_zeros(num_examples)
    one_BSS = torch.eye(size, dtype=zero_B.dtype, device=zero_B.device).expand(num_examples, size, size)
    forth = back = _Product(one_BSS, zero_B)
    error_B, rank_B = zero_B, torch.full_like(zero_B, size)
    found: dict[int, Tensor] = {}
    for lag in range(1, max(lags) + 1):
        jacobian_BSS = jacobians_TBSS[num_timesteps - lag]
        inverse = _inverse(jacobian_BSS)
        error_B, rank_B = error_B + inverse.error_B, torch.minimum(rank_B, inverse.rank_B)
        forth, back = forth.times(right_BSS=jacobian_BSS), back.times(left_BSS=inverse.matrix_BSS)
        if lag in lags:
            backwards_BS = torch.where(
                (error_B <= RELATIVE_ERROR)[:, None], -back.log10_singular_values(lag).flip(1), torch.nan
            )
            found[lag] = _quantities(forth.log10_singular_values(lag), backwards_BS, rank_B)
    table = torch.stack([found[lag].mean(dim=1) for lag in lags], dim=1)
    return dict(zip(QUANTITIES, table, strict=True))


def _quantities(forwards_BS: Tensor, backwards_BS: Tensor, rank_B: Tensor) -> Tensor:
    """Return the four quantities, (4, B), from falling log10 singular values of either product."""
    size = forwards_BS.shape[1]
    known_BS = torch.where(forwards_BS.isnan(), backwards_BS, forwards_BS)
    zero_BS = torch.arange(size, device=known_BS.device) >= rank_B[:, None]
    values_BS = torch.where(zero_BS & ~forwards_BS[:, :1].isnan(), -torch.inf, known_BS)
    middle_B = values_BS[:, (size - 1) // 2 : size // 2 + 1].mean(dim=1)
    largest_B, smallest_B = values_BS[:, 0], values_BS[:, -1]
    return torch.stack([largest_B, middle_B, smallest_B, largest_B - smallest_B])


class _Inverse(NamedTuple):
    """Inverses (B, S, S), how far off they may be, relative (B,), and the rank of what was inverted, at most (B,)."""

    matrix_BSS: Tensor
    error_B: Tensor
    rank_B: Tensor


def _inverse(jacobian_BSS: Tensor) -> _Inverse:
    """Return the inverses; NaN, with an error of inf, where a matrix is exactly singular.

    Rows are scaled to 1 before the matrix is judged: a gate that is nearly shut makes a small row, which costs no
    accuracy.
    """
    largest_BS1 = jacobian_BSS.abs().amax(dim=2, keepdim=True)
    scale_BS1 = torch.where((largest_BS1 > 0) & largest_BS1.isfinite(), largest_BS1, 1.0)
    scaled_BSS = jacobian_BSS / scale_BS1
    inverse_BSS, info_B = torch.linalg.inv_ex(scaled_BSS)
    singular_B, num_rows_B = info_B > 0, (largest_BS1 != 0).sum(dim=(1, 2)).double()
    condition_B = torch.linalg.matrix_norm(scaled_BSS) * torch.linalg.matrix_norm(inverse_BSS)
    return _Inverse(
        torch.where(singular_B[:, None, None], torch.nan, inverse_BSS / scale_BS1.mT),
        torch.where(singular_B | condition_B.isnan(), torch.inf, condition_B * _EPSILON),
        torch.where(singular_B, num_rows_B.clamp(max=jacobian_BSS.shape[1] - 1), num_rows_B),
    )
