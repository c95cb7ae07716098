"""The Lorenz system: its orbit against another integrator, its exponents, what its sequences are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pipeline.config import Sizes
from pipeline.data.generator import stream
from pipeline.data.lorenz import BETA, CENTRE, LARGEST_EXPONENT, RHO, SIGMA, SPREAD, Lorenz63, advanced, velocity
from pipeline.errors import ConfigError

LORENZ = Lorenz63(seed=0, lengths=(), time_step=0.05, noise=0.1)


def test_an_orbit_is_that_of_another_integrator():
    start = np.array([[1.0, -2.0, 20.0], [-7.0, -8.0, 25.0]])
    for end in (0.05, 1.0):
        mine = advanced(start, end)
        for row, point in zip(mine, start, strict=True):
            options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
            exact = solve_ivp(lambda _, s: velocity(s[None])[0], (0, end), point, **options).y[:, -1]
            np.testing.assert_allclose(row, exact, rtol=2e-6)


@pytest.mark.slow
def test_the_exponents_are_the_known_ones():
    """By the equations of small differences along an orbit, made orthogonal again as it goes."""

    def rate(both: np.ndarray) -> np.ndarray:
        x, y, z = both[:, :3].T
        d = both[:, 3:].reshape(-1, 3, 3)
        turned = np.stack(
            [
                SIGMA * (d[:, 1] - d[:, 0]),
                d[:, 0] * (RHO - z)[:, None] - d[:, 1] - x[:, None] * d[:, 2],
                y[:, None] * d[:, 0] + x[:, None] * d[:, 1] - BETA * d[:, 2],
            ],
            axis=1,
        )
        return np.concatenate([velocity(both[:, :3]), turned.reshape(-1, 9)], axis=1)

    rng, num, num_times, step = np.random.default_rng(0), 200, 400, 0.1
    state = advanced(CENTRE + SPREAD * rng.uniform(-1, 1, (num, 3)), 20.0)
    both = np.concatenate([state, np.tile(np.eye(3).ravel(), (num, 1))], axis=1)
    sums, burnt = np.zeros((num, 3)), 50
    for count in range(num_times + burnt):
        both = advanced(both, step, rate)
        q, r = np.linalg.qr(both[:, 3:].reshape(-1, 3, 3))
        if count >= burnt:
            sums += np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
        both[:, 3:] = q.reshape(-1, 9)
    largest, middle, smallest = sums.mean(axis=0) / (num_times * step)
    assert largest == pytest.approx(LARGEST_EXPONENT, abs=0.02)
    assert middle == pytest.approx(0, abs=0.01)
    assert largest + middle + smallest == pytest.approx(-41 / 3, abs=1e-4)


@pytest.mark.slow
def test_targets_are_a_timestep_ahead_and_numbers_are_standardised(sizes):
    split = LORENZ.sample(stream(3), 300, 40)
    assert split.inputs.shape == split.targets.shape == (300, 40, 3)
    assert split.inputs.dtype == np.float32
    np.testing.assert_array_equal(split.inputs[:, 1:], split.targets[:, :-1])
    ahead = (advanced(split.inputs[:, 7].astype(np.float64) * SPREAD + CENTRE, 0.05) - CENTRE) / SPREAD
    np.testing.assert_allclose(split.targets[:, 7], ahead, atol=1e-4)
    np.testing.assert_allclose(split.inputs.mean(axis=(0, 1)), 0, atol=0.05)
    np.testing.assert_allclose(split.inputs.std(axis=(0, 1)), 1, atol=0.05)
    dataset = LORENZ.generate(12, sizes)
    assert (dataset.input_kind, dataset.input_size, dataset.output_size) == ("real", 3, 3)
    assert (dataset.target_kind, dataset.target_at, dataset.baseline_loss) == ("value", "every", 1.0)
    assert dataset.series_exponent == pytest.approx(0.0453)  # of .906 nats per time unit, at steps of .05


def test_a_time_step_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="time_step: expected time units above 0"):
        Lorenz63(seed=0, lengths=(), time_step=0.0, noise=0.0)


@pytest.mark.slow
def test_errors_of_observation_are_in_what_is_learnt_from_and_belong_to_the_series():
    sizes = Sizes(num_train=400, num_validation=50, num_test=50)
    seen = LORENZ.generate(20, sizes).splits
    exact = Lorenz63(seed=0, lengths=(), time_step=0.05, noise=0.0).generate(20, sizes).splits
    np.testing.assert_array_equal(seen["test"].inputs, exact["test"].inputs)
    for split in ("train", "validation"):
        np.testing.assert_array_equal(seen[split].inputs[:, 1:], seen[split].targets[:, :-1])
        errors = seen[split].targets - exact[split].targets
        assert errors.std() == pytest.approx(0.1, rel=0.05)
        a, b = errors[:, 3].ravel(), errors[:, 4].ravel()
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / len(a) ** 0.5
    assert len({*seen["train"].inputs[:, 0, 0].tolist()} & {*seen["validation"].inputs[:, 0, 0].tolist()}) == 0
