"""Golden numbers: an experiment measures by the shipped code what is known, and says how far apart the two may be."""

from __future__ import annotations

import difflib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from pipeline.core.training.runtime import computing
from pipeline.errors import ConfigError

BOUNDS = {"at most": "≤ ", "at least": "≥ "}


@dataclass(frozen=True)
class Tolerance:
    """How far a measured number may lie from what is expected.

    Attributes:
        kind: "relative" and "absolute" on either side; "at most" and "at least" beyond a bound, absolute.
        size: The largest error that passes.
        reason: Why it is this large.
    """

    kind: Literal["relative", "absolute", "at most", "at least"]
    size: float
    reason: str

    def error(self, expected: float, measured: float) -> float:
        """Return the error, of the kind that `size` is; NaN where NaN was measured."""
        if self.kind == "relative":
            return abs(measured - expected) / abs(expected)
        within = {"at most": measured <= expected, "at least": measured >= expected}
        return 0.0 if within.get(self.kind, False) else abs(measured - expected)


EXACT = Tolerance("relative", 1e-12, "float64")
ROUNDING = Tolerance("absolute", 1e-12, "float64")


@dataclass(frozen=True)
class Number:
    """A number that is known, and what the shipped code makes of it.

    Attributes:
        name: What it is, unique in its experiment.
        expected: The known number, or a bound.
        measured: What the code gave.
        within: How far apart the two may be, and why.
    """

    name: str
    _: KW_ONLY
    expected: float
    measured: float
    within: Tolerance

    @property
    def error(self) -> float:
        """The error, as the tolerance counts it."""
        return self.within.error(self.expected, self.measured)

    @property
    def passes(self) -> bool:
        """Whether the error is allowed; NaN never is."""
        return self.error <= self.within.size

    def __str__(self) -> str:
        expected = f"{BOUNDS.get(self.within.kind, '')}{self.expected:.7g}"
        allowed = f"{self.within.size:.2g} {'rel' if self.within.kind == 'relative' else 'abs'}"
        verdict = "pass" if self.passes else "FAIL"
        return (
            f"  {self.name:<58} {expected:>14} {self.measured:>13.7g} {self.error:>8.1e} {allowed:>12}  {verdict}"
            f"  {self.within.reason}"
        )


def printed(name: str, text: str, measured: float) -> Number:
    """Return a number as it was published: half a unit of its last digit is allowed, "2.513e5" may be 50 off."""
    mantissa, _, exponent = text.partition("e")
    size = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    within = Tolerance("absolute", size, "half a unit of the last printed digit")
    return Number(name, expected=float(text), measured=measured, within=within)


@dataclass(frozen=True)
class Experiment:
    """Numbers that are measured together: what they are about, who says what they must be, and how they are measured.

    Attributes:
        name: What it is about.
        source: Author and year, or "closed form".
        measure: Yields the numbers.
    """

    name: str
    source: str
    measure: Callable[[], Iterator[Number]]

    def run(self) -> list[Number]:
        """Return the numbers, measured on one thread as a trial is trained."""
        with computing(1):
            return list(self.measure())


def experiment(name: str, *, source: str) -> Callable[[Callable[[], Iterator[Number]]], Experiment]:
    """Return a decorator that makes an experiment of the function that yields its numbers."""
    return lambda measure: Experiment(name, source, measure)


def select(experiments: Sequence[Experiment], only: str | None) -> list[Experiment]:
    """Return the experiments with `only` in their name, whatever its case; all of them where it is None.

    Raises:
        ConfigError: If there is none; the message names those that are near, and all.
    """
    chosen = [each for each in experiments if only is None or only.lower() in each.name.lower()]
    if not chosen:
        names = [each.name for each in experiments]
        words = {word.strip(",:()").lower() for name in names for word in name.split()}
        near = difflib.get_close_matches(str(only).lower(), sorted({*names, *words}), n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(f"no experiment has {only!r} in its name; {hint}known: {', '.join(names)}")
    return chosen


def run(experiments: Sequence[Experiment], write: Callable[[str], object] = print) -> int:
    """Run the experiments, print a line per number, and return the exit status: 1 if any failed.

    An experiment that raises is one failure, with its traceback; the others go on.

    Args:
        experiments: What to run.
        write: Takes the table, line by line.
    """
    num_passed, failures, started = 0, list[str](), time.perf_counter()
    write(f"  {'what':<58} {'expected':>14} {'measured':>13} {'error':>8} {'allowed':>12}        because")
    for each in experiments:
        before = time.perf_counter()
        try:
            numbers = each.run()
        except Exception:
            numbers = []
            failures.append(f"\nFAIL {each.name}\nsource: {each.source}\n{traceback.format_exc().rstrip()}")
        write(f"\n{each.name}, {time.perf_counter() - before:.1f} s. {each.source}")
        for number in numbers:
            write(str(number))
        failed = [number for number in numbers if not number.passes]
        failures += [f"\nFAIL {each.name}: {number.name}\nsource: {each.source}" for number in failed]
        num_passed += len(numbers) - len(failed)
    for failure in failures:
        write(failure)
    write(f"\nin {time.perf_counter() - started:.1f} s")
    write(f"{num_passed} passed, {len(failures)} failed")
    return 1 if failures else 0
