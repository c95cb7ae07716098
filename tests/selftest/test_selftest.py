"""Every golden number is what the shipped code measures, and a wrong one would be seen."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import pytest
from torch import Tensor

from pipeline.__main__ import main
from pipeline.core import clipping
from pipeline.selftest import EXPERIMENTS, Experiment, Number, Tolerance, experiment, printed, run

NUM_NUMBERS = {
    "scalar linear": 10,
    "orthogonal linear": 5,
    "small LSTM": 20,
    "singular values": 7,
    "random network": 7,
    "curse of memory": 12,
    "second derivatives": 6,
    "gates alone": 7,
    "units alone": 4,
    "maps of one step": 6,
    "cells at initialisation": 6,
    "influence balancing": 12,
    "influence balancing, trained": 4,
    "copy memory": 9,
    "adding": 2,
    "temporal order": 3,
    "clipping": 10,
    "scheduled sampling": 9,
    "chrono": 6,
    "TBPTT": 9,
    "regulariser": 3,
}
"""How many golden numbers an experiment has: one that is lost is seen."""
SLOW = {"random network", "cells at initialisation", "curse of memory", "adding", "copy memory"}
SLOW |= {"influence balancing", "influence balancing, trained"}
CASES = [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.name in SLOW)) for each in EXPERIMENTS]
measured = functools.cache(Experiment.run)


@pytest.mark.parametrize("golden", CASES)
def test_golden_numbers_are_what_the_shipped_code_measures(golden: Experiment) -> None:
    numbers = measured(golden)
    assert [str(number) for number in numbers if not number.passes] == [], golden.source
    assert len({number.name for number in numbers}) == len(numbers) == NUM_NUMBERS[golden.name]


def test_every_experiment_has_its_own_name_and_a_source_and_157_numbers_are_known() -> None:
    assert [each.name for each in EXPERIMENTS] == list(NUM_NUMBERS)
    assert sum(NUM_NUMBERS.values()) == 157
    assert all(each.source.strip() for each in EXPERIMENTS)


def test_the_command_prints_what_the_test_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "Scheduled Sampling"]) == 0
    header, _, title, *rows, _, _, verdict = capsys.readouterr().out.splitlines()
    assert header.split() == ["what", "expected", "measured", "error", "allowed", "because"]
    assert title.startswith("scheduled sampling, ")
    assert title.endswith(" s. Bengio, Vinyals, Jaitly and Shazeer (2015)")
    (golden,) = (each for each in EXPERIMENTS if each.name == "scheduled sampling")
    assert rows == [str(number) for number in measured(golden)]
    assert len({row.index("  pass  ") for row in rows}) == 1
    assert verdict == "9 passed, 0 failed"


def of(name: str, *numbers: Number) -> Experiment:
    @experiment(name, source="closed form")
    def measure() -> Iterator[Number]:
        yield from numbers

    return measure


SOUND = Number("half", expected=0.5, measured=0.5, within=Tolerance("relative", 1e-9, "a test"))


@pytest.mark.parametrize("golden", CASES)
def test_every_number_would_fail_if_it_were_beyond_its_tolerance(golden: Experiment) -> None:
    for number in measured(golden):
        size = number.within.size * (abs(number.expected) if number.within.kind == "relative" else 1.0)
        signs = {"at most": [1], "at least": [-1]}.get(number.within.kind, [1, -1])
        for sign in signs:
            beyond = number.expected + sign * (1.01 * size + 1e-12 * abs(number.expected) + 1e-300)
            assert not dataclasses.replace(number, measured=beyond).passes, number.name
        assert number.within.reason


def test_a_wrong_number_fails_and_names_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    broken = dataclasses.replace(SOUND, name="broken", measured=0.5 + 1e-8)
    assert run([of("sound", SOUND)]) == 0
    assert run([of("mixed", SOUND, broken)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed"
    assert "FAIL mixed: broken" in lines
    assert "source: closed form" in lines


def test_broken_code_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def misprint(grad_RP: Tensor, threshold: float) -> Tensor:
        return clipping.clip_by_global_norm_max(grad_RP, threshold)

    monkeypatch.setattr(clipping, "clip_by_global_norm", misprint)
    assert main(["selftest", "--only", "clipping"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "6 passed, 4 failed"  # lengths; a scale keeps the direction


def test_an_experiment_that_raises_or_measures_nan_fails_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @experiment("trouble", source="closed form")
    def trouble() -> Iterator[Number]:
        yield SOUND
        raise ZeroDivisionError("of a test")

    assert run([trouble, of("unknown", dataclasses.replace(SOUND, measured=math.nan)), of("sound", SOUND)]) == 1
    output = capsys.readouterr().out
    assert "FAIL trouble\nsource: closed form\n" in output
    assert "ZeroDivisionError: of a test" in output
    assert output.splitlines()[-1] == "1 passed, 2 failed"


@pytest.mark.parametrize(("only", "near"), [("clippin g", "clipping"), ("lstn", "lstm"), ("chrno", "chrono")])
def test_only_of_nothing_known_names_what_is_near(only: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", only]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"selftest: no experiment has '{only}' in its name; did you mean ")
    assert f"'{near}'" in message.split("?")[0]
    assert "? known: scalar linear, orthogonal linear, " in message


def test_only_of_nothing_near_names_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "qqqq"]) == 2
    assert "no experiment has 'qqqq' in its name; known: scalar linear, orthogonal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "measured", "error"),
    [
        ("relative", 1.9, 0.05),
        ("absolute", 1.9, 0.1),
        ("at most", 1.9, 0.0),
        ("at most", 2.5, 0.5),
        ("at least", 1.5, 0.5),
        ("at least", 2.5, 0.0),
    ],
)
def test_errors_are_counted_as_the_tolerance_says(kind: str, measured: float, error: float) -> None:
    within = Tolerance(kind, 0.1, "a test")  # type: ignore[arg-type]
    assert within.error(2.0, measured) == pytest.approx(error)


@pytest.mark.parametrize("kind", ["relative", "absolute", "at most", "at least"])
@pytest.mark.parametrize("measured", [math.nan, None])
def test_nan_and_infinity_never_pass(kind: str, measured: float | None) -> None:
    value = measured if measured is not None else -math.inf if kind == "at least" else math.inf
    within = Tolerance(kind, 1.0, "a test")  # type: ignore[arg-type]
    assert not Number("a number", expected=0.5, measured=value, within=within).passes


@pytest.mark.parametrize(
    ("text", "value", "size"), [("2.513e5", 251300.0, 50.0), ("-6", -6.0, 0.5), ("0.094520", 0.09452, 5e-7)]
)
def test_a_printed_number_may_be_half_a_unit_of_its_last_digit_off(text: str, value: float, size: float) -> None:
    number = printed("a number", text, value)
    assert (number.expected, number.within.kind, number.passes) == (value, "absolute", True)
    assert number.within.size == pytest.approx(size)
