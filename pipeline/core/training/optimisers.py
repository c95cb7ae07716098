"""The optimisers of a study and how their learning rate changes: each a frozen variant with only its own fields.

The updates are torch's. All of them are elementwise, so one optimiser on the stacked parameters of R replicas is
exactly R optimisers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.config.strict import Checked, require


class _Ranges(Checked):
    """The learning rate is at least 0 (0 trains nothing: a control); every other number is a decay in [0, 1)."""

    def __post_init__(self) -> None:
        numbers = {field: value for field, value in vars(self).items() if field != "name"}
        rate = numbers.pop("learning_rate")
        require(0 <= rate < float("inf"), "learning_rate", "a finite number of at least 0", rate)
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


@dataclass(frozen=True, kw_only=True)
class AdamW(_Ranges):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): θ ← θ - η λ θ besides, of every parameter."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float
    beta1: float
    beta2: float
    weight_decay: float

    def over(self, parameters: torch.Tensor) -> torch.optim.Optimizer:
        """Return the torch optimiser of `parameters`."""
        betas, decay = (self.beta1, self.beta2), self.weight_decay
        return torch.optim.AdamW([parameters], lr=self.learning_rate, betas=betas, eps=1e-8, weight_decay=decay)


Optimiser = Sgd | Momentum | RmsProp | Adam | AdamW
"""The variants that params and studies may name."""


class _Warmup(Checked):
    """The learning rate rises evenly over the first `warmup_steps` updates, the first of them with 1/warmup_steps."""

    warmup_steps: int

    def __post_init__(self) -> None:
        require(self.warmup_steps >= 0, "warmup_steps", "an integer of at least 0", self.warmup_steps)

    def factor(self, step: int, max_steps: int) -> float:
        """Return what the learning rate is multiplied by in the update after `step` others, of `max_steps` in all."""
        risen = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return risen * self.after_warmup(step - self.warmup_steps, max(1, max_steps - 1 - self.warmup_steps))

    def after_warmup(self, step: int, last: int) -> float:
        """Return the factor at `step` counted from the end of the warm-up (below 0 within it), to the `last` one."""
        return 1.0


class _Falling(_Warmup):
    """After the warm-up the learning rate falls to the share `final` of it at the last update."""

    final: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.final <= 1, "final", "a share of the learning rate, in [0, 1]", self.final)


@dataclass(frozen=True, kw_only=True)
class ConstantRate(_Warmup):
    """η after the warm-up."""

    name: Literal["constant"] = "constant"
    warmup_steps: int


@dataclass(frozen=True, kw_only=True)
class LinearRate(_Falling):
    """After the warm-up from η to `final` · η at the last update, evenly."""

    name: Literal["linear"] = "linear"
    warmup_steps: int
    final: float

    def after_warmup(self, step: int, last: int) -> float:  # noqa: D102
        return 1.0 - (1.0 - self.final) * max(0, step) / last


@dataclass(frozen=True, kw_only=True)
class CosineRate(_Falling):
    """After the warm-up from η to `final` · η at the last update, along half a cosine (Loshchilov and Hutter, 2017)."""

    name: Literal["cosine"] = "cosine"
    warmup_steps: int
    final: float

    def after_warmup(self, step: int, last: int) -> float:  # noqa: D102
        return self.final + (1.0 - self.final) * (1.0 + math.cos(math.pi * max(0, step) / last)) / 2


@dataclass(frozen=True, kw_only=True)
class StepRate(_Warmup):
    """After the warm-up η · `decay` ** (the times that `every` updates have been made)."""

    name: Literal["step"] = "step"
    warmup_steps: int
    decay: float
    every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.decay <= 1, "decay", "a factor in (0, 1]", self.decay)
        require(self.every >= 1, "every", "an integer of at least 1", self.every)

    def after_warmup(self, step: int, last: int) -> float:  # noqa: D102
        return self.decay ** (max(0, step) // self.every)


LearningRateSchedule = ConstantRate | LinearRate | CosineRate | StepRate
"""The variants that a study may name: how the learning rate changes from update to update."""

CONSTANT_RATE = ConstantRate(warmup_steps=0)
