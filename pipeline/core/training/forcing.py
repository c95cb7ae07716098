"""What a network is given of the truth while it trains: a decoder tokens, a network that generates states.

Scheduled sampling: how probable the true token is as a decoder's next input, ε_i at step i.

With probability ε_i, one coin a token, the decoder reads the true token, else the one that it just said itself, its
most probable; no gradient flows through the draw. ε = 1 is teacher forcing, ε = 0 free running; a schedule leads from
the one to the other, so that training comes to see what inference will.

Source: Bengio, Vinyals, Jaitly and Shazeer (2015), whose letters are in the docstrings. They count mini-batches; a
step is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.config.strict import Checked, require
from pipeline.core.models import generator
from pipeline.core.models.network import StateForcing


@dataclass(frozen=True, kw_only=True)
class Constant(Checked):
    """ε_i = `value`: 1 is teacher forcing, 0 free running."""

    name: Literal["constant"] = "constant"
    value: float

    def __post_init__(self) -> None:
        require(0 <= self.value <= 1, "value", "a number in [0, 1]", self.value)

    def probability(self, step: int) -> float:
        """Return ε_i, i being `step`, counted from 0."""
        return self.value


@dataclass(frozen=True, kw_only=True)
class LinearDecay(Checked):
    """ε_i = max(ε, k - c · i), with k = `start`, c = `slope` a step, ε = `floor`."""

    name: Literal["linear"] = "linear"
    start: float
    slope: float
    floor: float

    def __post_init__(self) -> None:
        require(0 <= self.start <= 1, "start", "a number in [0, 1]", self.start)
        require(0 <= self.slope < math.inf, "slope", "a finite number of at least 0", self.slope)
        require(0 <= self.floor <= self.start, "floor", f"a number in [0, start ({self.start:g})]", self.floor)

    def probability(self, step: int) -> float:
        """Return ε_i, i being `step`, counted from 0."""
        return max(self.floor, self.start - self.slope * step)


@dataclass(frozen=True, kw_only=True)
class ExponentialDecay(Checked):
    """ε_i = k^i, with k = `base` below 1."""

    name: Literal["exponential"] = "exponential"
    base: float

    def __post_init__(self) -> None:
        require(0 <= self.base < 1, "base", "a number in [0, 1)", self.base)

    def probability(self, step: int) -> float:
        """Return ε_i, i being `step`, counted from 0."""
        return self.base**step


@dataclass(frozen=True, kw_only=True)
class InverseSigmoidDecay(Checked):
    """ε_i = k / (k + e^(i/k)), with k = `scale` of at least 1: ½ is reached after k ln k steps."""

    name: Literal["inverse_sigmoid"] = "inverse_sigmoid"
    scale: float

    def __post_init__(self) -> None:
        require(1 <= self.scale < math.inf, "scale", "a finite number of at least 1", self.scale)

    def probability(self, step: int) -> float:
        """Return ε_i, i being `step`, counted from 0."""
        odds = step / self.scale - math.log(self.scale)  # ε = 1 / (1 + e^odds); no power of e may overflow
        return math.exp(-odds) / (1 + math.exp(-odds)) if odds > 0 else 1 / (1 + math.exp(odds))


Schedule = Constant | LinearDecay | ExponentialDecay | InverseSigmoidDecay
"""The variants that a study may name."""


@dataclass(frozen=True)
class Forcing(Checked):
    """How a decoder is given true tokens in training.

    Attributes:
        schedule: ε_i.
        coin: Whether a coin is thrown for every token, or one for a whole sequence.
    """

    schedule: Schedule
    coin: Literal["token", "sequence"]

    @property
    def is_teacher_forcing(self) -> bool:
        """Whether the decoder is given the true tokens always."""
        return isinstance(self.schedule, Constant) and self.schedule.value == 1.0

    def coins(self, seeds: Sequence[int], step: int, num_examples: int, num_positions: int) -> Tensor:
        """Return where the true token is given, (R, B, U): a pure function of seed and step, each replica's own."""
        shape = (num_examples, num_positions if self.coin == "token" else 1)
        draws = torch.stack([torch.rand(shape, generator=generator(seed, "forcing", step)) for seed in seeds])
        return (draws < self.schedule.probability(step)).expand(-1, -1, num_positions)


@dataclass(frozen=True, kw_only=True)
class Sparse(Checked):
    """The state of a network that generates says what the series is, once `every` so many timesteps.

    Source: Mikhaeil, Monfared and Durstewitz (2022).
    """

    name: Literal["sparse"] = "sparse"
    every: int

    def __post_init__(self) -> None:
        require(self.every >= 1, "every", "an integer of at least 1", self.every)

    @property
    def forcing(self) -> StateForcing:
        """Of a pass."""
        return StateForcing(every=self.every, share=1.0)


@dataclass(frozen=True, kw_only=True)
class Generalised(Checked):
    """At every timestep the state goes the `share` α of the way to one that says what the series is.

    Source: Hess, Monfared, Brenner and Durstewitz (2023).
    """

    name: Literal["generalised"] = "generalised"
    share: float

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "share", "a share in (0, 1]", self.share)

    @property
    def forcing(self) -> StateForcing:
        """Of a pass."""
        return StateForcing(every=1, share=self.share)


StatesForced = Sparse | Generalised
"""The variants that a study may name."""
