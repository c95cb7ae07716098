"""How open the gates stand, how often they are shut or wide open, and how long the past survives them.

Shapes: R replicas, T timesteps, B batch, H hidden.

Source: Karpathy, Johnson and Fei-Fei (2015) call a gate left-saturated below 0.1 and right-saturated above 0.9 and
show the share of time that each unit spends there; here it is the share over units, timesteps and examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.cells import Cell, Weights
from pipeline.core.measures.timesteps import map_timesteps

NUM_BINS = 20
LEFT_SATURATED = 0.1
RIGHT_SATURATED = 0.9


class GateStatistic(NamedTuple):
    """One number of one gate.

    Attributes:
        gate: Name, as the cell has it.
        quantity: "density", "mean", "left_saturated" or "right_saturated"; of the keeping gate also "kept", the mean
            share that it keeps, and "half_life".
        position: The middle of the bin of a density; else 0.
        value_R: Of every replica; density per unit of the gate's range, so that it integrates to 1; shares in [0, 1];
            half-life in timesteps. NaN where any value of the gate is.
    """

    gate: str
    quantity: str
    position: float
    value_R: Tensor


def gate_values(cell: Cell, weights: Weights, x_RTBD: Tensor, states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return every gate of an unrolled recurrence, (R, T, B, H) by name, in float64.

    Weights, inputs and states are as those of `map_timesteps`.

    Raises:
        ValueError: If the cell has no gates.
    """
    if not cell.gate_names:
        raise ValueError(f"expected a cell with gates, got one of {', '.join(cell.gates)} alone")
    values: dict[str, Tensor] = map_timesteps(cell.gate_values, weights, x_RTBD, states)
    return values


def gate_statistics(
    values: Mapping[str, Tensor], keep_gate: str | None, keeps_when_open: bool = True
) -> list[GateStatistic]:
    """Return the statistics of every gate over units, timesteps and examples.

    Args:
        values: (R, T, B, H) by gate.
        keep_gate: The gate that has a half-life too, if any.
        keeps_when_open: Whether that gate keeps the past where it is open.
    """
    rows = []
    for gate, value_RTBH in values.items():
        flat_RN = value_RTBH.flatten(1)
        rows += [
            GateStatistic(gate, "density", (index + 0.5) / NUM_BINS, density_R)
            for index, density_R in enumerate(_density(flat_RN).unbind(1))
        ]
        rows += [
            GateStatistic(gate, "mean", 0.0, flat_RN.mean(dim=1)),
            GateStatistic(gate, "left_saturated", 0.0, _share(flat_RN < LEFT_SATURATED, flat_RN)),
            GateStatistic(gate, "right_saturated", 0.0, _share(flat_RN > RIGHT_SATURATED, flat_RN)),
        ]
    if keep_gate is not None:
        kept_RTBH = values[keep_gate] if keeps_when_open else 1 - values[keep_gate]
        rows.append(GateStatistic(keep_gate, "kept", 0.0, kept_RTBH.flatten(1).mean(dim=1)))
        rows.append(GateStatistic(keep_gate, "half_life", 0.0, half_life(kept_RTBH)))
    return rows


def half_life(keep_RTBH: Tensor) -> Tensor:
    """Return after how many timesteps half of the past is left, (R,): the median over units of ln 2 / -ln f̄.

    f̄ is a unit's keeping gate, averaged over timesteps and examples: 1 gives inf, 0 gives 0. Of an even number of units
    the median is the lower one of the two in the middle.
    """
    mean_RH = keep_RTBH.mean(dim=(1, 2))
    return (math.log(2.0) / mean_RH.log().abs()).median(dim=1).values


def retention(keep_RTBH: Tensor) -> Tensor:
    """Return what the keeping gate alone leaves of the past after k = 1 .. T timesteps, (R, T).

        log10 (geometric mean over units and examples of f_T · f_{T-1} · … · f_{T-k+1})

    -inf where a gate is exactly 0.
    """
    return keep_RTBH.log10().mean(dim=(2, 3)).flip(1).cumsum(dim=1)


def _density(flat_RN: Tensor) -> Tensor:
    """Return the density over equal bins of [0, 1], (R, bins); 1 itself counts in the last one."""
    known_RN = flat_RN.nan_to_num()
    index_RN = (known_RN * NUM_BINS).long().clamp_(0, NUM_BINS - 1)
    counts_RK = known_RN.new_zeros(len(flat_RN), NUM_BINS).scatter_add_(1, index_RN, torch.ones_like(known_RN))
    density_RK = counts_RK * (NUM_BINS / flat_RN.shape[1])
    return torch.where(flat_RN.isnan().any(dim=1, keepdim=True), torch.nan, density_RK)


def _share(chosen_RN: Tensor, flat_RN: Tensor) -> Tensor:
    return torch.where(flat_RN.isnan().any(dim=1), torch.nan, chosen_RN.double().mean(dim=1))
