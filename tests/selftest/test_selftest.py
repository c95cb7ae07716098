"""The self-test passes, and it would not if a number were wrong."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import pytest
from torch import Tensor

from pipeline.__main__ import main
from pipeline.core.training.clipping import Ledger, rules
from pipeline.selftest import (
    Check,
    Tolerance,
    absolute,
    as_printed,
    at_least,
    at_most,
    every_check,
    relative,
    run,
    select,
)

CHECKS = list(every_check())
GROUPS = {
    "scalar linear", "orthogonal linear", "copy memory", "adding", "temporal order", "small LSTM",
    "influence balancing", "curse of memory", "random network", "singular values", "clipping (min, the rule)",
    "clipping (max, the misprint)",
    "scheduled sampling", "chrono", "TBPTT", "regulariser",
}  # fmt: skip


def a_check(measure: Callable[[], float] = lambda: 0.5) -> Check:
    return Check("a group: a number", 0.5, measure, relative(1e-9), "closed form")


def test_every_golden_number_is_measured_by_the_shipped_code(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["selftest"])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, "\n".join(line for line in lines if "FAIL" in line)
    assert lines[-1] == f"{len(CHECKS)} passed, 0 failed"
    header, *rows = lines[: len(CHECKS) + 1]
    assert header.split() == ["what", "expected", "measured", "error", "allowed", "seconds"]
    assert {re.search(r"  (pass|FAIL) ", row).start() for row in rows} == {len(header) - 14}  # type: ignore[union-attr]


def test_every_group_is_there_and_every_check_has_its_own_name_and_a_source() -> None:
    assert {check.name.split(":")[0] for check in CHECKS} == GROUPS
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.source.strip() for check in CHECKS)


@pytest.mark.parametrize("name", ["clipping", "chrono", "TBPTT: relative", "scalar linear"])
def test_a_broken_expectation_fails(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sound = next(check for check in select(CHECKS, name) if check.tolerance.kind in {"relative", "absolute"})
    broken = dataclasses.replace(sound, expected=sound.expected + 10 * sound.tolerance.size + 1e-3)
    assert run([sound]) == 0
    assert run([sound, broken]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed"
    assert f"FAIL {broken.name}" in lines
    assert f"source: {broken.source}" in lines


def test_broken_code_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def misprint(grad_RP: Tensor, threshold: float) -> tuple[Tensor, Ledger]:
        return rules.clip_by_global_norm_max(grad_RP, threshold)

    monkeypatch.setattr(rules, "clip_by_global_norm", misprint)
    assert main(["selftest", "--only", "min, the rule"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 2 failed"  # both norms; a scale turns nothing


def test_a_measurement_that_raises_or_is_nan_fails_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def trouble() -> float:
        raise ZeroDivisionError("of a test")

    assert run([a_check(trouble), a_check(lambda: math.nan), a_check()]) == 1
    told = capsys.readouterr().out
    assert "ZeroDivisionError: of a test" in told
    assert told.splitlines()[-1] == "1 passed, 2 failed"


def test_only_of_something_runs_what_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "Scheduled Sampling"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "9 passed, 0 failed"


@pytest.mark.parametrize(("only", "near"), [("clippin g", "clipping"), ("lyapnov", "lyapunov"), ("chrno", "chrono")])
def test_only_of_nothing_known_names_what_is_near(only: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", only]) == 2
    told = capsys.readouterr().err
    assert re.match(
        rf"selftest: no check has '{only}' in its name; did you mean [^?]*'{near}'[^?]*\? groups: scalar", told
    )


def test_only_of_nothing_near_names_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "qqqq"]) == 2
    assert "no check has 'qqqq' in its name; groups: scalar linear, orthogonal linear" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tolerance", "measured", "error"),
    [
        (relative(0.1), 1.9, 0.05),
        (absolute(0.1), 1.9, 0.1),
        (at_most(), 1.9, 0.0),
        (at_most(), 2.5, 0.5),
        (at_least(), 1.5, 0.5),
        (at_least(), 2.5, 0.0),
    ],
)
def test_errors_are_counted_as_the_tolerance_says(tolerance: Tolerance, measured: float, error: float) -> None:
    assert tolerance.error(2.0, measured) == pytest.approx(error)


@pytest.mark.parametrize("tolerance", [relative(1.0), absolute(1.0), at_most(1.0), at_least(1.0)])
@pytest.mark.parametrize("measured", [math.nan, None])
def test_nan_and_infinity_never_pass(tolerance: Tolerance, measured: float | None) -> None:
    value = measured if measured is not None else -math.inf if tolerance == at_least(1.0) else math.inf
    check = dataclasses.replace(a_check(), tolerance=tolerance)
    assert not check.outcome(value, 0.0).passed


@pytest.mark.parametrize(
    ("printed", "value", "size"), [("2.513e5", 251300.0, 50.0), ("-6", -6.0, 0.5), ("0.094520", 0.09452, 5e-7)]
)
def test_a_printed_number_may_be_half_a_unit_of_its_last_digit_off(printed: str, value: float, size: float) -> None:
    expected, tolerance = as_printed(printed)
    assert (expected, tolerance.kind) == (value, "absolute")
    assert tolerance.size == pytest.approx(size)
