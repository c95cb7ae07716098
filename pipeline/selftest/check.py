"""A check: a number that is known, how it is measured, and how far apart the two may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tolerance:
    """How far a measured number may lie from what is expected.

    Attributes:
        kind: "relative" and "absolute" on either side; "at most" and "at least" beyond a bound, absolute.
        size: The largest error that passes.
    """

    kind: Literal["relative", "absolute", "at most", "at least"]
    size: float

    def error(self, expected: float, measured: float) -> float:
        """Return the error, of the kind that `size` is; NaN where NaN was measured."""
        if self.kind == "relative":
            return abs(measured - expected) / abs(expected)
        if self.kind == "absolute":
            return abs(measured - expected)
        within = measured <= expected if self.kind == "at most" else measured >= expected
        return 0.0 if within else abs(measured - expected)


def relative(size: float) -> Tolerance:
    """Return the tolerance |measured - expected| / |expected| ≤ size."""
    return Tolerance("relative", size)


def absolute(size: float) -> Tolerance:
    """Return the tolerance |measured - expected| ≤ size."""
    return Tolerance("absolute", size)


def at_most(rounding: float = 0.0) -> Tolerance:
    """Return the tolerance measured ≤ expected + rounding."""
    return Tolerance("at most", rounding)


def at_least(rounding: float = 0.0) -> Tolerance:
    """Return the tolerance measured ≥ expected - rounding."""
    return Tolerance("at least", rounding)


def as_printed(number: str) -> tuple[float, Tolerance]:
    """Return a published number, and half a unit of its last digit as the tolerance: "2.513e5" may be 50 off."""
    mantissa, _, exponent = number.partition("e")
    num_decimals = len(mantissa.partition(".")[2])
    return float(number), absolute(0.5 * 10.0 ** (int(exponent or 0) - num_decimals))


@dataclass(frozen=True)
class Check:
    """A number that is known, and how the shipped code measures it.

    Attributes:
        name: What it is of; "group: what".
        expected: The known number, or a bound.
        measure: Measures it; not called before the check is run.
        tolerance: How far apart they may be, and whether that is relative or absolute.
        source: Who says so, or "closed form".
    """

    name: str
    expected: float
    measure: Callable[[], float]
    tolerance: Tolerance
    source: str

    def outcome(self, measured: float, duration_s: float) -> Outcome:
        """Return what came of the check."""
        error = self.tolerance.error(self.expected, measured)
        return Outcome(self, measured, error, error <= self.tolerance.size, duration_s)


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        check: The check.
        measured: The number; NaN where measuring raised an exception.
        error: As the check's tolerance counts it.
        passed: Whether that is allowed.
        duration_s: Wall time; what checks share is counted with the first of them.
    """

    check: Check
    measured: float
    error: float
    passed: bool
    duration_s: float
