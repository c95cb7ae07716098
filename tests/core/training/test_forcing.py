"""The true token's probability: closed forms, limits, what is refused; coins that fall by it, and what is read then."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipeline.config import build
from pipeline.core.models import Seq2SeqInputs, loss
from pipeline.core.models.generation import network_of
from pipeline.core.training import MemorySink, run_trial
from pipeline.core.training.forcing import (
    Constant,
    ExponentialDecay,
    Forcing,
    InverseSigmoidDecay,
    LinearDecay,
    Schedule,
)
from pipeline.core.training.loop import Trial
from pipeline.errors import ConfigError
from tests.core.training.sequences import SMALL, reversal
from tests.core.training.test_trial import rows_of, sorted_rows

SCHEDULES = [
    Constant(value=0.25),
    LinearDecay(start=0.9, slope=0.01, floor=0.2),
    ExponentialDecay(base=0.97),
    InverseSigmoidDecay(scale=50.0),
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
    assert [Constant(value=value).probability(12345) for value in (1.0, 0.0)] == [1.0, 0.0]


def test_linear_falls_by_its_slope_to_its_floor() -> None:
    schedule = LinearDecay(start=1.0, slope=0.001, floor=0.2)
    assert [schedule.probability(step) for step in (0, 1, 500, 800, 10**9)] == pytest.approx(
        [1.0, 0.999, 0.5, 0.2, 0.2]
    )
    assert LinearDecay(start=0.7, slope=0.0, floor=0.0).probability(10**9) == 0.7


def test_exponential_is_a_power() -> None:
    schedule = ExponentialDecay(base=0.5)
    assert [schedule.probability(step) for step in (0, 1, 10, 10**6)] == [1.0, 0.5, 2.0**-10, 0.0]
    assert [ExponentialDecay(base=0.0).probability(step) for step in (0, 1)] == [1.0, 0.0]


@pytest.mark.parametrize("k", [1.0, 7.5, 1000.0])
def test_inverse_sigmoid_is_its_formula_where_that_can_be_computed(k: float) -> None:
    schedule = InverseSigmoidDecay(scale=k)
    for step in range(0, int(600 * min(k, 20)), 7):
        assert schedule.probability(step) == pytest.approx(k / (k + math.exp(step / k)), rel=1e-12)
    assert schedule.probability(0) == pytest.approx(k / (k + 1), rel=1e-15)


def test_inverse_sigmoid_passes_one_half_after_k_ln_k_steps_and_does_not_overflow() -> None:
    schedule = InverseSigmoidDecay(scale=100.0)
    assert schedule.probability(460) > 0.5 > schedule.probability(461)
    assert schedule.probability(10**15) == 0.0
    assert InverseSigmoidDecay(scale=1e300).probability(0) == 1.0


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


SEEDS, SHAPE = (0, 1, 2), (40, 25)


@pytest.mark.parametrize("step", [0, 30, 10**6])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_coins_fall_as_often_as_the_schedule_says(schedule: Schedule, step: int) -> None:
    """Within four standard deviations of a binomial share, of each replica alone, and at each output position."""
    epsilon = schedule.probability(step)
    for coin in ("token", "sequence"):
        coins = Forcing(schedule, coin).coins(SEEDS, step, *SHAPE)
        assert coins.shape == (3, *SHAPE)
        num_draws = SHAPE[0] * (SHAPE[1] if coin == "token" else 1)
        for share in coins.double().mean(dim=(1, 2)).tolist():
            assert abs(share - epsilon) <= 4 * math.sqrt(epsilon * (1 - epsilon) / num_draws)
        for share in coins.double().mean(dim=(0, 1)).tolist():
            assert abs(share - epsilon) <= 4 * math.sqrt(epsilon * (1 - epsilon) / (3 * SHAPE[0]))


def test_a_coin_is_of_a_token_or_of_a_whole_sequence() -> None:
    tokens, sequences = (Forcing(SCHEDULES[0], coin).coins(SEEDS, 3, *SHAPE) for coin in ("token", "sequence"))
    assert (sequences == sequences[..., :1]).all()
    assert sequences.any()
    assert not sequences.all()
    assert (tokens != tokens[..., :1]).any(dim=2).float().mean() > 0.9


def test_coins_are_a_function_of_seed_and_step_and_each_replica_has_its_own() -> None:
    forcing = Forcing(SCHEDULES[0], "token")
    first, again, later = (forcing.coins(SEEDS, step, *SHAPE) for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(forcing.coins((1,), 3, *SHAPE)[0], first[1])
    for pair in ((first[0], first[1]), (first[1], first[2]), (first[0], later[0])):
        share = (pair[0] == pair[1]).double().mean().item()
        assert share == pytest.approx(0.25**2 + 0.75**2, abs=0.07)  # as often alike as independent ones


def test_where_no_coin_can_fail_all_are_true_and_where_none_can_succeed_none_is() -> None:
    always, never = (Forcing(Constant(value=value), "token").coins(SEEDS, 0, *SHAPE) for value in (1.0, 0.0))
    assert always.all()
    assert not never.any()


def rows_under(schedule: dict[str, Any], spec_of: Any) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    attention = {"name": "dot", "feeds": "attentional_state"}
    sink, forcing = MemorySink(), {"schedule": schedule, "coin": "token"}
    result = run_trial(spec_of(**SMALL, model__attention=attention, training__forcing=forcing), reversal(), sink)
    return rows_of(result), [row for table in ("curves", "traces", "tokens") for row in sorted_rows(sink, table)]


@pytest.mark.slow
def test_teacher_forcing_and_free_running_are_the_ends_of_scheduled_sampling_bit_for_bit(spec_of: Any) -> None:
    ends = {}
    for value in (1.0, 0.0):
        ends[value] = rows_under({"name": "constant", "value": value}, spec_of)
        assert rows_under({"name": "linear", "start": value, "slope": 0.0, "floor": 0.0}, spec_of) == ends[value]
    assert rows_under({"name": "exponential", "base": 0.0}, spec_of) != ends[0.0]  # its first step is forced: 0^0
    assert ends[0.0] != ends[1.0]


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_what_is_read_is_drawn_and_nothing_flows_back_through_the_draw(coin: str, spec_of: Any) -> None:
    """Each replica reads what its coins say, and its gradient is that of the network given those tokens."""
    forcing = {"schedule": {"name": "constant", "value": 0.5}, "coin": coin}
    spec = spec_of(**SMALL, model__attention={"name": "dot", "feeds": "context"}, training__forcing=forcing)
    trial = Trial(spec, reversal(), MemorySink(), device=torch.device("cpu"))
    state = trial.step.start(4.0 * trial.replicas.flat_RP.double())._replace(step=5)
    batch = trial.step.batch_of(trial.step.windows.at(5))
    sampled, metrics = trial.step.scheduled_sampling(batch, state)
    assert metrics["teacher_forcing_probability"].tolist() == [0.5] * 3
    run = trial.step.backpropagate(state.flat_RP, sampled)
    coins = spec.training.forcing.coins(spec.seeds, 5, *batch.targets.shape[1:])
    for r in range(3):
        network = network_of(trial.replicas, state.flat_RP, r)
        source, true, targets = batch.inputs.source[r], batch.inputs.decoder_inputs[r], batch.targets[r]
        given = true[:, :1]
        for u in range(1, true.shape[1]):
            padded = torch.cat([given, true[:, u:]], dim=1)
            said = network(Seq2SeqInputs(source, padded)).values[:, u - 1].argmax(dim=1)
            given = torch.cat([given, torch.where(coins[r, :, u], true[:, u], said)[:, None]], dim=1)
        assert torch.equal(sampled.inputs.decoder_inputs[r], given)
        assert not torch.equal(given, true)
        expected = loss(trial.replicas.interface, network(Seq2SeqInputs(source, given)).values, targets)
        grads = torch.autograd.grad(expected, [*network.parameters()])
        torch.testing.assert_close(run.losses[r], expected.detach(), rtol=1e-9, atol=0)
        flat = torch.cat([grad.flatten() for grad in grads])
        torch.testing.assert_close(run.grad_RP[r], flat, rtol=1e-9, atol=1e-12)
