"""A chaotic series whose exponents are known: the Lorenz equations of 1963.

Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Split, Task, make_task
from pipeline.data.generator import Sampled, stream

SIGMA, RHO, BETA = 10.0, 28.0, 8.0 / 3.0
LARGEST_EXPONENT = 0.906
"""λ_1 in nats per time unit; small differences double in ln 2 / λ_1 = .77 time units."""

CENTRE, SPREAD = np.array([0.0, 0.0, 23.55]), np.array([7.92, 9.01, 8.62])
"""Mean and standard deviation of x, y and z on the attractor."""

BURN_IN = 20.0
"""Time units after which an orbit counts as on the attractor."""

NOISE_KEY = 1
"""Of the stream that errors of observation come from."""

LONGEST_SUBSTEP = 0.005
"""Time units of a Runge-Kutta step, at most."""


def velocity(state_N3: np.ndarray) -> np.ndarray:
    """Return d(x, y, z)/dt, (N, 3)."""
    x, y, z = state_N3.T
    return np.stack([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z], axis=1)


def advanced(state: np.ndarray, time: float, rate: Callable[[np.ndarray], np.ndarray] = velocity) -> np.ndarray:
    """Return the state after some time, by Runge-Kutta steps of fourth order, in float64."""
    num_steps = int(np.ceil(time / LONGEST_SUBSTEP - 1e-9))
    h = time / num_steps
    for _ in range(num_steps):
        first = rate(state)
        second = rate(state + h / 2 * first)
        third = rate(state + h / 2 * second)
        fourth = rate(state + h * third)
        state = state + h / 6 * (first + 2 * second + 2 * third + fourth)
    return state


@dataclass(frozen=True, kw_only=True)
class Lorenz63(Sampled):
    """The Lorenz system, observed every `time_step` time units: say where it goes next.

        ẋ = σ (y - x),   ẏ = x (ρ - z) - y,   ż = x y - β z,   σ = 10, ρ = 28, β = 8/3

        inputs   (x, y, z) at timesteps 1..T, less its mean on the attractor, over its standard deviation there
        targets  the same at timesteps 2..T + 1
        baseline the mean: a squared error of 1

    What is seen in training and validation has errors, drawn from N(0, `noise`²) for each number; the test series has
    none. Every sequence begins at a point of its own of the attractor. Its exponents are .906, 0 and -14.57 nats per
    time unit: a difference doubles in .77 time units.

    Source: Lorenz (1963).
    """

    time_step: float
    noise: float

    length_reason = "a series needs a timestep"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.time_step <= 1, "time_step", "time units above 0 and up to 1", self.time_step)
        require(self.noise >= 0, "noise", "a standard deviation of at least 0", self.noise)

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the task and the splits, those that are learnt from with errors of observation."""
        task, splits = super().make(length, sizes)
        for position, name in enumerate(("train", "validation")):
            series = np.concatenate([splits[name].inputs[:, :1], splits[name].targets], axis=1)
            rng = stream(self.seed, length, position, NOISE_KEY)
            seen = (series + self.noise * rng.standard_normal(series.shape)).astype(np.float32)
            splits[name] = Split(seen[:, :-1], seen[:, 1:])
        return task, splits

    def task(self, length: int, train: Split) -> Task:
        """Return the task of predicting three numbers at every timestep."""
        return make_task(
            length,
            inputs=("real", 3),
            targets=("value", "every", 3),
            baseline=(1.0, "predict the mean"),
            series_exponent=LARGEST_EXPONENT * self.time_step,
        )

    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return inputs and targets (N, T, 3) float32, the targets a timestep ahead."""
        state = advanced(CENTRE + SPREAD * rng.uniform(-1, 1, (num, 3)), BURN_IN)
        orbit = [state]
        for _ in range(length):
            orbit.append(state := advanced(state, self.time_step))
        seen = ((np.stack(orbit, axis=1) - CENTRE) / SPREAD).astype(np.float32)
        return Split(seen[:, :-1], seen[:, 1:])
