"""Singular values and eigenvalues of the recurrent weights, gate by gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.cells.stack import Place
from pipeline.core.models import Replicas


class Block(NamedTuple):
    """Which square block of recurrent weights: of which part of the network, at which place, of which gate.

    Where another state than h feeds a gate too, that block is named after both.
    """

    part: str
    place: Place
    gate: str


def recurrent_blocks(replicas: Replicas, flat_RP: Tensor) -> dict[Block, Tensor]:
    """Return each gate's square block of W_hh, (R, H, H), in float64, parts and places in order."""
    blocks: dict[Block, Tensor] = {}
    for part, place, cell, weight_hh in replicas.model.hidden_weights(replicas.named(flat_RP)):
        for (gate, state), block_RHH in cell.recurrent_blocks(weight_hh.double()).items():
            name = gate if state == cell.states[0] else f"{gate}_{state}"
            blocks[Block(part, place, name)] = block_RHH
    return blocks


def sigma_max(block_RHH: Tensor) -> Tensor:
    """Return the largest singular value, (R,): the most that one multiplication can lengthen a vector."""
    return _each(lambda block: torch.linalg.matrix_norm(block, ord=2), block_RHH)


def eigenvalues(block_RHH: Tensor) -> Tensor:
    """Return the eigenvalues by falling modulus, complex, (R, H).

    Conjugate pairs share a modulus: the imaginary part orders them, so that the order is a function of the matrix.
    """

    def in_order(block_HH: Tensor) -> Tensor:  # Python's abs is one function; a vector's ends may round otherwise
        values = sorted(torch.linalg.eigvals(block_HH).tolist(), key=lambda value: (-abs(value), value.imag))
        return torch.tensor(values, dtype=torch.complex128)

    return _each(in_order, block_RHH)


def spectral_radius(block_RHH: Tensor) -> Tensor:
    """Return the largest modulus of an eigenvalue, (R,): the rate at which many multiplications lengthen."""
    return _each(lambda block: torch.linalg.eigvals(block).abs().amax(), block_RHH)


def _each(function: Callable[[Tensor], Tensor], block_RHH: Tensor) -> Tensor:
    """Return `function` of each matrix, stacked.

    Each is copied to memory of its own: LAPACK's last digits depend on how its input is aligned, and a replica's
    numbers must not depend on its position in the batch.
    """
    return torch.stack([function(block.clone()) for block in block_RHH])
