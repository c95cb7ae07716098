"""Singular values and eigenvalues of the recurrent weights, gate by gate."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models import Replicas


def recurrent_blocks(replicas: Replicas, flat_RP: Tensor) -> dict[str, Tensor]:
    """Return each gate's square block of W_hh, (R, H, H) by gate name, in float64."""
    weight_RGH = replicas.named(flat_RP)["recurrent.weight_hh_l0"].double()
    gates = replicas.model.recurrent.cell.gates
    return dict(zip(gates, weight_RGH.chunk(len(gates), dim=1), strict=True))


def sigma_max(block_RHH: Tensor) -> Tensor:
    """Return the largest singular value, (R,): the most that one multiplication can lengthen a vector."""
    return torch.linalg.matrix_norm(block_RHH, ord=2)


def eigenvalues(block_RHH: Tensor) -> Tensor:
    """Return the eigenvalues by falling modulus, complex, (R, H).

    Conjugate pairs share a modulus: the imaginary part orders them, so that the order is a function of the matrix.
    """
    values = torch.linalg.eigvals(block_RHH)
    by_imaginary = values.gather(1, values.imag.argsort(dim=1, stable=True))
    return by_imaginary.gather(1, by_imaginary.abs().argsort(dim=1, descending=True, stable=True))


def spectral_radius(block_RHH: Tensor) -> Tensor:
    """Return the largest modulus of an eigenvalue, (R,): the rate at which many multiplications lengthen."""
    return torch.linalg.eigvals(block_RHH).abs().amax(dim=1)
