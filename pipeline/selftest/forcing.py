"""Scheduled sampling: the probability ε_i of the true token at a few steps i."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from pipeline.core.training.forcing import ExponentialDecay, InverseSigmoidDecay, LinearDecay, Schedule
from pipeline.selftest.check import Check, absolute

LINEAR = LinearDecay("linear", 1.0, 0.01, 0.1)
EXPONENTIAL = ExponentialDecay("exponential", 0.99)
INVERSE_SIGMOID = InverseSigmoidDecay("inverse_sigmoid", 100.0)
VALUES: tuple[tuple[str, Schedule, dict[int, float]], ...] = (
    ("max(0.1, 1 - 0.01 i)", LINEAR, {0: 1.0, 50: 0.5, 1000: 0.1}),
    ("0.99^i", EXPONENTIAL, {0: 1.0, 100: math.exp(100 * math.log(0.99)), 100_000: 0.0}),
    ("k/(k + exp(i/k)), k=100", INVERSE_SIGMOID, {0: 100 / 101, 461: 100 / (100 + math.exp(4.61)), 10**9: 0.0}),
)
SOURCE = "Bengio, Vinyals, Jaitly and Shazeer (2015)"


def checks() -> Iterator[Check]:
    """Yield the checks."""
    for formula, schedule, values in VALUES:
        for step, value in values.items():
            name = f"scheduled sampling: {formula} at i={step}"
            yield Check(name, value, partial(schedule.probability, step), absolute(1e-12), SOURCE)
