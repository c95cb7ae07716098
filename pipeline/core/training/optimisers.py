"""The optimisers of a study: each a frozen variant with only its own fields, and the update that torch makes of it.

All of them are elementwise, so one optimiser on the stacked parameters of R replicas is exactly R optimisers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.config.strict import require


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: θ ← θ - η g."""

    name: Literal["sgd"]
    learning_rate: float

    def __post_init__(self) -> None:
        _require_rate(self.learning_rate)

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.SGD([parameters], lr=self.learning_rate)


@dataclass(frozen=True)
class Momentum:
    """Heavy ball: v ← μ v + g; θ ← θ - η v."""

    name: Literal["momentum"]
    learning_rate: float
    momentum: float

    def __post_init__(self) -> None:
        _require_rate(self.learning_rate)
        _require_decay("momentum", self.momentum)

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.SGD([parameters], lr=self.learning_rate, momentum=self.momentum)


@dataclass(frozen=True)
class RmsProp:
    """RMSProp: v ← ρ v + (1-ρ) g²; θ ← θ - η g / (√v + ε), with ε = 1e-8."""

    name: Literal["rmsprop"]
    learning_rate: float
    decay: float

    def __post_init__(self) -> None:
        _require_rate(self.learning_rate)
        _require_decay("decay", self.decay)

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.RMSprop([parameters], lr=self.learning_rate, alpha=self.decay, eps=1e-8)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015) with bias correction and ε = 1e-8."""

    name: Literal["adam"]
    learning_rate: float
    beta1: float
    beta2: float

    def __post_init__(self) -> None:
        _require_rate(self.learning_rate)
        _require_decay("beta1", self.beta1)
        _require_decay("beta2", self.beta2)

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.Adam([parameters], lr=self.learning_rate, betas=(self.beta1, self.beta2), eps=1e-8)


Optimiser = Sgd | Momentum | RmsProp | Adam
"""The variants that params and studies may name."""


def _require_rate(learning_rate: float) -> None:
    require(0 < learning_rate < float("inf"), "learning_rate", "a finite number above 0", learning_rate)


def _require_decay(field: str, value: float) -> None:
    require(0 <= value < 1, field, "a number in [0, 1)", value)
