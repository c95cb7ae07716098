"""An initialisation with eigenvalues on the imaginary axis, to be added to pipeline/core/models/initialisation.py."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Antisymmetric:
    """gain · (A - Aᵀ) with A Gaussian of variance 1/n.

    Source: Chang et al. (2019), "AntisymmetricRNN".
    """

    name: Literal["antisymmetric"] = "antisymmetric"
    gain: float

    def fill(self, block: Tensor, start: torch.Generator) -> None:
        """Draw the block anew."""
        drawn = torch.empty_like(block).normal_(0.0, block.shape[1] ** -0.5, generator=start)
        block.copy_(self.gain * (drawn - drawn.T))
