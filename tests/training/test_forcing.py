"""Schedules of the true token's probability: closed forms, limits, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.training.forcing import Constant, ExponentialDecay, InverseSigmoidDecay, LinearDecay, Schedule

SCHEDULES = [
    Constant("constant", 0.25),
    LinearDecay("linear", 0.9, 0.01, 0.2),
    ExponentialDecay("exponential", 0.97),
    InverseSigmoidDecay("inverse_sigmoid", 50.0),
]


def test_variants_are_told_apart_by_name() -> None:
    raws: list[dict[str, Any]] = [
        {"name": "constant", "value": 0.25},
        {"name": "linear", "start": 0.9, "slope": 0.01, "floor": 0.2},
        {"name": "exponential", "base": 0.97},
        {"name": "inverse_sigmoid", "scale": 50},
    ]
    assert [build(Schedule, raw, "a test") for raw in raws] == SCHEDULES
    with pytest.raises(ConfigError, match="unknown name 'sigmoid'; did you mean 'inverse_sigmoid'"):
        build(Schedule, {"name": "sigmoid", "scale": 50}, "a test")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_probabilities_never_rise_and_never_leave_0_to_1(schedule: Schedule) -> None:
    values = [schedule.probability(step) for step in [*range(500), 10**4, 10**6, 10**12]]
    assert all(0 <= later <= earlier <= 1 for earlier, later in zip(values, values[1:], strict=False))


def test_constant_is_teacher_forcing_at_1_and_free_running_at_0() -> None:
    assert [Constant("constant", value).probability(12345) for value in (1.0, 0.0)] == [1.0, 0.0]


def test_linear_falls_by_its_slope_to_its_floor() -> None:
    schedule = LinearDecay("linear", 1.0, 0.001, 0.2)
    assert [schedule.probability(step) for step in (0, 1, 500, 800, 10**9)] == pytest.approx(
        [1.0, 0.999, 0.5, 0.2, 0.2]
    )
    assert LinearDecay("linear", 0.7, 0.0, 0.0).probability(10**9) == 0.7


def test_exponential_is_a_power() -> None:
    schedule = ExponentialDecay("exponential", 0.5)
    assert [schedule.probability(step) for step in (0, 1, 10, 10**6)] == [1.0, 0.5, 2.0**-10, 0.0]
    assert [ExponentialDecay("exponential", 0.0).probability(step) for step in (0, 1)] == [1.0, 0.0]


@pytest.mark.parametrize("k", [1.0, 7.5, 1000.0])
def test_inverse_sigmoid_is_its_formula_where_that_can_be_computed(k: float) -> None:
    schedule = InverseSigmoidDecay("inverse_sigmoid", k)
    for step in range(0, int(600 * min(k, 20)), 7):
        assert schedule.probability(step) == pytest.approx(k / (k + math.exp(step / k)), rel=1e-12)
    assert schedule.probability(0) == pytest.approx(k / (k + 1), rel=1e-15)


def test_inverse_sigmoid_passes_one_half_after_k_ln_k_steps_and_does_not_overflow() -> None:
    schedule = InverseSigmoidDecay("inverse_sigmoid", 100.0)
    assert schedule.probability(460) > 0.5 > schedule.probability(461)
    assert schedule.probability(10**15) == 0.0
    assert InverseSigmoidDecay("inverse_sigmoid", 1e300).probability(0) == 1.0


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"name": "constant", "value": 1.5}, r"value: expected a number in \[0, 1\], got 1.5"),
        (
            {"name": "linear", "start": 1.1, "slope": 0.1, "floor": 0.0},
            r"start: expected a number in \[0, 1\], got 1.1",
        ),
        (
            {"name": "linear", "start": 1.0, "slope": -0.1, "floor": 0.0},
            "slope: expected a finite number of at least 0",
        ),
        (
            {"name": "linear", "start": 0.5, "slope": 0.1, "floor": 0.6},
            r"floor: expected a number in \[0, start \(0.5\)\]",
        ),
        ({"name": "exponential", "base": 1.0}, r"base: expected a number in \[0, 1\), got 1.0"),
        ({"name": "exponential", "base": -0.5}, r"base: expected a number in \[0, 1\), got -0.5"),
        ({"name": "inverse_sigmoid", "scale": 0.5}, "scale: expected a finite number of at least 1, got 0.5"),
    ],
)
def test_what_is_out_of_range_is_refused(raw: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"a test\.{told}"):
        build(Schedule, raw, "a test")
