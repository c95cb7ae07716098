"""The optimisers of a study: each a frozen variant with only its own fields, and the update that torch makes of it.

All of them are elementwise, so one optimiser on the stacked parameters of R replicas is exactly R optimisers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.config.strict import Checked, require


class _Ranges(Checked):
    """The learning rate is above 0; every other number is a decay in [0, 1)."""

    def __post_init__(self) -> None:
        numbers = {field: value for field, value in vars(self).items() if field != "name"}
        rate = numbers.pop("learning_rate")
        require(0 < rate < float("inf"), "learning_rate", "a finite number above 0", rate)
        for field, value in numbers.items():
            require(0 <= value < 1, field, "a number in [0, 1)", value)


@dataclass(frozen=True, kw_only=True)
class Sgd(_Ranges):
    """Stochastic gradient descent: θ ← θ - η g."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.SGD([parameters], lr=self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class Momentum(_Ranges):
    """Heavy ball: v ← μ v + g; θ ← θ - η v."""

    name: Literal["momentum"] = "momentum"
    learning_rate: float
    momentum: float

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.SGD([parameters], lr=self.learning_rate, momentum=self.momentum)


@dataclass(frozen=True, kw_only=True)
class RmsProp(_Ranges):
    """RMSProp: v ← ρ v + (1-ρ) g²; θ ← θ - η g / (√v + ε), with ε = 1e-8."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float
    decay: float

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.RMSprop([parameters], lr=self.learning_rate, alpha=self.decay, eps=1e-8)


@dataclass(frozen=True, kw_only=True)
class Adam(_Ranges):
    """Adam (Kingma and Ba, 2015) with bias correction and ε = 1e-8."""

    name: Literal["adam"] = "adam"
    learning_rate: float
    beta1: float
    beta2: float

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        return torch.optim.Adam([parameters], lr=self.learning_rate, betas=(self.beta1, self.beta2), eps=1e-8)


Optimiser = Sgd | Momentum | RmsProp | Adam
"""The variants that params and studies may name."""
