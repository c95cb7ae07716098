"""A search: the space that is declared, the points that are drawn from it, and how long each is trained.

A point is a value for each key of the space. One that is drawn follows from the declaration alone, by a hash of seed,
number of the draw and key: the same file has the same points on any machine, more points leave the earlier ones as they
were, and one more key leaves the values of the others. Numbers have few digits, so that they can be copied from a table
into a file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pipeline.config.strict import Checked, require, require_apart

MAX_POINTS = 100_000

DRAWS_PER_POINT = 100
"""So many draws in a row for each point known so far, none of them new: then the space has no further one."""

NUM_DIGITS = 3
"""Of a number on a logarithmic scale; elsewhere digits to about a thousandth of the range."""


@dataclass(frozen=True, kw_only=True)
class Uniform(Checked):
    """A number between `low` and `high`, every one as likely."""

    name: Literal["uniform"] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _require_range(self)

    def at(self, share: float) -> float:
        """Return the value below which `share` of all draws lie."""
        return self.clean(self.low + share * (self.high - self.low))

    def clean(self, value: float) -> float:
        """Return a value with few digits."""
        return _clip(round(value, NUM_DIGITS - _exponent(self.high - self.low)), self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class LogUniform(Checked):
    """A number between `low` and `high`, above 0, whose logarithm is uniform: learning rates, thresholds."""

    name: Literal["log_uniform"] = "log_uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _require_range(self, above=0)

    def at(self, share: float) -> float:
        """Return the value below which `share` of all draws lie."""
        return self.clean(_on_log_scale(self.low, self.high, share))

    def clean(self, value: float) -> float:
        """Return a value with few digits."""
        return _clip(float(f"{value:.{NUM_DIGITS}g}"), self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Integer(Checked):
    """A whole number from `low` to `high`, both among them, every one as likely."""

    name: Literal["integer"] = "integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        _require_range(self)

    def at(self, share: float) -> int:
        """Return the value below which `share` of all draws lie."""
        return self.low + int(share * (self.high - self.low + 1))


@dataclass(frozen=True, kw_only=True)
class LogInteger(Checked):
    """A whole number from `low` to `high`, above 0, both among them, small ones as likely as large ones: sizes."""

    name: Literal["log_integer"] = "log_integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        _require_range(self, above=0)

    def at(self, share: float) -> int:
        """Return the value below which `share` of all draws lie."""
        return int(_clip(int(_on_log_scale(self.low, self.high + 1, share)), self.low, self.high))


@dataclass(frozen=True, kw_only=True)
class Choice(Checked):
    """One of some values, of any kind, every one as likely."""

    name: Literal["choice"] = "choice"
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        require_values(self.values, "values")

    def at(self, share: float) -> Any:
        """Return the value below which `share` of all draws lie."""
        return self.values[int(share * len(self.values))]


Domain: TypeAlias = Uniform | LogUniform | Integer | LogInteger | Choice


@dataclass(frozen=True, kw_only=True)
class _Declared(Checked):
    """What every search declares: how many points, which draws, and a domain for each dotted key."""

    number: int
    seed: int
    space: Mapping[str, Domain]

    def __post_init__(self) -> None:
        require(1 <= self.number <= MAX_POINTS, "number", f"an integer from 1 to {MAX_POINTS}", self.number)
        require(len(self.space) > 0, "space", "at least one dotted key of the spec", dict(self.space))
        require_apart(self.space, "space")

    def drawn(self) -> list[dict[str, Any]]:
        """Return as many different points as asked, in the order in which they are drawn.

        Raises:
            InvalidFieldError: If the space does not have so many.
        """
        found: dict[str, dict[str, Any]] = {}
        draw = last = 0
        while len(found) < self.number:
            expected = f"at most {len(found)}, the different points of the space"
            require(draw - last <= DRAWS_PER_POINT * (len(found) + 1), "number", expected, self.number)
            point = {key: domain.at(_share(self.seed, draw, key)) for key, domain in self.space.items()}
            draw += 1
            if found.setdefault(repr(point), point) is point:
                last = draw
        return list(found.values())


@dataclass(frozen=True, kw_only=True)
class RandomSearch(_Declared):
    """So many different points, drawn from the domain of each dotted key."""

    name: Literal["random"] = "random"

    def points(self) -> list[dict[str, Any]]:
        """Return all points."""
        return self.drawn()


@dataclass(frozen=True, kw_only=True)
class TpeSearch(_Declared):
    """Points in generations: the first is drawn, each later one proposed from the results of those before it.

    By a tree-structured Parzen estimator, of the median over seeds of what the study selects by, for each arm apart.

    Source: Bergstra et al. (2011), "Algorithms for hyper-parameter optimization", as optuna has it.
    """

    name: Literal["tpe"] = "tpe"
    generation: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.generation >= 1, "generation", "a number of points of at least 1", self.generation)
        expected = "keys of another part: data are prepared before it is known what is proposed"
        for key in self.space:
            require(key.partition(".")[0] != "dataset", "space", expected, key)

    def points(self) -> list[dict[str, Any]]:
        """Return the first generation."""
        return self.drawn()[: self.generation]


Search: TypeAlias = RandomSearch | TpeSearch


@dataclass(frozen=True, kw_only=True)
class Halving(Checked):
    """Successive halving: settings are stopped at rungs where they are clearly worse than the best they compete with.

    Rungs stand after `first` steps, and `factor` times as many each. One in `factor` goes on in any case. The rule
    stands at the head of `pipeline.sweep.halving`.
    """

    metric: Literal["best_validation_loss", "best_validation_error", "final_validation_loss"]
    first: int
    factor: int

    def __post_init__(self) -> None:
        require(self.first >= 1, "first", "a number of steps of at least 1", self.first)
        require(self.factor >= 2, "factor", "an integer of at least 2", self.factor)

    def rungs(self, max_steps: int) -> list[int]:
        """Return the steps of the rungs of a training of so many steps."""
        steps, step = [], self.first
        while step < max_steps:
            steps.append(step)
            step *= self.factor
        return steps


def require_values(values: tuple[Any, ...], field: str) -> None:
    """Check values among which one is taken: at least one, each once.

    Raises:
        InvalidFieldError: If not.
    """
    require(len(values) > 0, field, "at least one value", list(values))
    plain = [value for value in values if isinstance(value, str | float | int | None)]
    others = [value for value in values if not isinstance(value, str | float | int | None)]
    distinct = len({*plain}) == len(plain) and all(value not in others[:i] for i, value in enumerate(others))
    require(distinct, field, "each value once", list(values))


def _share(seed: int, draw: int, key: str) -> float:
    """Return a number in [0, 1) that looks drawn, of 53 bits."""
    digest = hashlib.sha256(f"{seed}/{draw}/{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _require_range(domain: Uniform | LogUniform | Integer | LogInteger, above: float | None = None) -> None:
    require(above is None or domain.low > above, "low", f"a number above {above}", domain.low)
    require(domain.low < domain.high, "high", f"a number above low ({domain.low:g})", domain.high)


def _exponent(value: float) -> int:
    """Return n where a value is d · 10ⁿ with one digit d before the point."""
    return int(f"{value:e}".partition("e")[2])


def _on_log_scale(low: float, high: float, share: float) -> float:
    return math.exp((1 - share) * math.log(low) + share * math.log(high))


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
