"""Run checks one after the other, and print what was expected, what came, and whether that passes."""

from __future__ import annotations

import difflib
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from pipeline.core.training.runtime import computing
from pipeline.errors import ConfigError
from pipeline.selftest import (
    chrono,
    clipping,
    curse_of_memory,
    forcing,
    forget_gate,
    influence_balancing,
    linear,
    random_network,
    regularisation,
    singular_values,
    tasks,
    truncation,
)
from pipeline.selftest.check import Check, Outcome

GROUPS = (
    linear,
    tasks,
    forget_gate,
    influence_balancing,
    curse_of_memory,
    random_network,
    singular_values,
    clipping,
    forcing,
    chrono,
    truncation,
    regularisation,
)
UNITS = {"relative": "rel", "absolute": "abs", "at most": "abs", "at least": "abs"}
BOUNDS = {"at most": "≤ ", "at least": "≥ "}


def every_check() -> Iterator[Check]:
    """Yield every check; none is measured yet."""
    for group in GROUPS:
        yield from group.checks()


def select(checks: Sequence[Check], only: str | None) -> list[Check]:
    """Return the checks with `only` in their name, whatever its case; all of them where it is None.

    Raises:
        ConfigError: If there is none; the message names words that are near, and the groups.
    """
    if only is None:
        return list(checks)
    chosen = [check for check in checks if only.lower() in check.name.lower()]
    if not chosen:
        groups = list(dict.fromkeys(check.name.split(":")[0] for check in checks))
        words = {word.strip(",:()").lower() for check in checks for word in check.name.split()}
        near = difflib.get_close_matches(only.lower(), sorted({*groups, *words}), n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(f"no check has {only!r} in its name; {hint}groups: {', '.join(groups)}")
    return chosen


def run(checks: Sequence[Check], write: Callable[[str], object] = print) -> int:
    """Run the checks, a line each, and return the exit status: 1 if any failed.

    Args:
        checks: What to run.
        write: Takes the table, line by line.
    """
    width = max(len(check.name) for check in checks)
    columns = f"{'expected':>14} {'measured':>13} {'error':>8} {'allowed':>12}       {'seconds':>7}"
    write(f"{'what':<{width}} {columns}")
    failed, started = list[tuple[Check, str]](), time.perf_counter()
    with computing(1):
        for check in checks:
            outcome, trouble = run_one(check)
            write(f"{check.name:<{width}} {row(outcome)}")
            if not outcome.passed:
                failed.append((check, trouble))
    for check, trouble in failed:
        write(f"\nFAIL {check.name}\nsource: {check.source}{trouble and f'{chr(10)}{trouble.rstrip()}'}")
    write(f"\n{len(checks)} checks in {time.perf_counter() - started:.1f} s")
    write(f"{len(checks) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def run_one(check: Check) -> tuple[Outcome, str]:
    """Return what came of a check, and the traceback if measuring raised an exception: that is a failure too."""
    started, trouble = time.perf_counter(), ""
    try:
        measured = float(check.measure())
    except Exception:
        measured, trouble = math.nan, traceback.format_exc()
    return check.outcome(measured, time.perf_counter() - started), trouble


def row(outcome: Outcome) -> str:
    """Return the columns after the name."""
    check, tolerance = outcome.check, outcome.check.tolerance
    expected = f"{BOUNDS.get(tolerance.kind, '')}{check.expected:.7g}"
    allowed = f"{tolerance.size:.2g} {UNITS[tolerance.kind]}"
    verdict = "pass" if outcome.passed else "FAIL"
    error = f"{outcome.error:.1e}"
    return f"{expected:>14} {outcome.measured:>13.7g} {error:>8} {allowed:>12}  {verdict} {outcome.duration_s:>7.2f}"
