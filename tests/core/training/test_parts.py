"""Optimisers, randomness, sink, spec and runtime, each on its own."""

from __future__ import annotations

import math
import mmap
import sys
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import build
from pipeline.core.models import generator
from pipeline.core.training import MemorySink, Status, TrialResult, trial_id
from pipeline.core.training.progress import ReplicaOutcome
from pipeline.core.training.runtime import computing, denormals_are_flushed, peak_memory_bytes, reset_peak_memory
from pipeline.core.training.schedule import BatchOrder, log_spaced_steps
from pipeline.core.training.spec import TrialSpec
from pipeline.errors import ConfigError
from tests.core.training.conftest import RAW


@pytest.mark.parametrize(
    ("raw", "update"),
    [
        ({"name": "sgd", "learning_rate": 0.1}, lambda g: 0.1 * g[0] + 0.1 * g[1]),
        ({"name": "momentum", "learning_rate": 0.1, "momentum": 0.5}, lambda g: 0.1 * g[0] + 0.1 * (0.5 * g[0] + g[1])),
        (
            {"name": "rmsprop", "learning_rate": 0.1, "decay": 0.9},
            lambda g: (
                0.1 * g[0] / math.sqrt(0.1 * g[0] ** 2) + 0.1 * g[1] / math.sqrt(0.09 * g[0] ** 2 + 0.1 * g[1] ** 2)
            ),
        ),
        (
            {"name": "adam", "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.999},
            lambda g: 0.1 * np.sign(g[0]) + _adam(g),
        ),
    ],
)
def test_two_updates_of_each_optimiser_by_hand(raw: dict[str, Any], update: Any) -> None:
    gradients, parameter = (2.0, -0.5), torch.zeros(1, 1, dtype=torch.float64)
    optimiser = build(TrialSpec, RAW | {"optimiser": raw}, "a test").optimiser.over(parameter)
    for gradient in gradients:
        parameter.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimiser.step()
    assert parameter.item() == pytest.approx(-update(gradients), rel=1e-6)


def _adam(g: tuple[float, float]) -> float:
    mean = (0.9 * 0.1 * g[0] + 0.1 * g[1]) / (1 - 0.9**2)
    square = (0.999 * 0.001 * g[0] ** 2 + 0.001 * g[1] ** 2) / (1 - 0.999**2)
    return 0.1 * mean / math.sqrt(square)


def test_batches_cover_an_epoch_once_and_depend_on_seed_and_step_only() -> None:
    order = BatchOrder((0, 1), num_sequences=20, batch_size=6)
    epoch = torch.cat([order.indices(step) for step in range(3)], dim=1)
    assert all(len(set(row.tolist())) == 18 for row in epoch)
    assert not torch.equal(epoch[0], epoch[1])
    later = BatchOrder((1,), num_sequences=20, batch_size=6)
    assert torch.equal(later.indices(7)[0], order.indices(7)[1])
    assert torch.equal(later.indices(1)[0], epoch[1, 6:12])


def test_streams_of_a_seed_are_independent_and_seed_0_is_a_seed() -> None:
    draws = {
        tuple(torch.rand(4, generator=generator(seed, stream, counter)).tolist())
        for seed in (0, 1)
        for stream in ("recurrent", "data")
        for counter in (0, 1)
    }
    assert len(draws) == 8


def test_training_leaves_the_global_generator_alone(adding: Any, spec_of: Any) -> None:
    from pipeline.core.training import run_trial

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run_trial(spec_of(training__max_steps=2), adding, MemorySink())
    assert torch.equal(torch.rand(3), expected)


def test_sink_broadcasts_scalars_and_survives_a_round_trip() -> None:
    sink = MemorySink()
    sink.write("curves", {"seed": [0, 1], "metric": "loss", "value": np.array([0.5, math.nan])})
    sink.write("curves", {"seed": [2], "metric": "grad_norm", "value": [1.0]})
    copy = MemorySink()
    copy.restore(sink.to_bytes())
    for tables in (sink.tables(), copy.tables()):
        assert tables["curves"]["seed"].tolist() == [0, 1, 2]
        assert tables["curves"]["metric"].tolist() == ["loss", "loss", "grad_norm"]
        assert math.isnan(tables["curves"]["value"][1])


def test_sink_refuses_ragged_and_changing_columns() -> None:
    sink = MemorySink()
    with pytest.raises(ValueError, match=r"columns of lengths \[1, 2\] in one write"):
        sink.write("curves", {"seed": [0, 1], "value": [1.0]})
    sink.write("curves", {"seed": [0]})
    with pytest.raises(ValueError, match=r"columns \['step'\] after \['seed'\]"):
        sink.write("curves", {"step": [0]})


def test_trial_id_depends_on_meaning_alone(spec_of: Any) -> None:
    first = trial_id(spec_of(), "digest")
    assert first == trial_id(spec_of(), "digest")
    assert len(first) == 16
    others = [
        trial_id(spec_of(), "another digest"),
        trial_id(spec_of(seeds=[0, 1]), "digest"),
        trial_id(spec_of(model__hidden_size=7), "digest"),
        trial_id(spec_of(optimiser={"name": "sgd", "learning_rate": 0.01}), "digest"),
    ]
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__cell": "gruu"}, r"model\.cell: .*unknown cell 'gruu'; did you mean 'gru'\? known: "),
        ({"model__hidden_size": 0}, r"model\.hidden_size: expected an integer of at least 1, got 0"),
        ({"model__embedding_size": 0}, r"model\.embedding_size: expected null or an integer"),
        ({"training__batch_size": -1}, r"training\.batch_size: expected an integer of at least 1, got -1"),
        (
            {"diagnostics__num_traces": 1},
            r"diagnostics\.num_traces: expected at least 2 \(step 0 and the last one\), got",
        ),
        ({"diagnostics__probe_size": 0}, r"diagnostics\.probe_size"),
        ({"diagnostics__gradient_check_tolerance": 0.0}, r"diagnostics\.gradient_check_tolerance"),
        ({"seeds": []}, r"seeds: expected at least one seed"),
        ({"seeds": [1, 1]}, r"seeds: expected each seed once"),
        ({"seeds": [-1]}, r"seeds: expected integers of at least 0, got \[-1\]"),
        (
            {"clipping": {"name": "global_norm", "threshold": 0.0}},
            r"clipping\.threshold: expected a finite number above 0",
        ),
        (
            {"clipping": {"name": "global_nrm"}},
            r"clipping\.name: unknown name 'global_nrm'; did you mean 'global_norm'",
        ),
        (
            {"optimiser": {"name": "sgd", "learning_rate": -0.1}},
            r"optimiser\.learning_rate: expected a finite number of at least 0, got -0\.1",
        ),
        (
            {"optimiser": {"name": "momentum", "learning_rate": 0.1, "momentum": 1.0}},
            r"optimiser\.momentum: expected a number in \[0, 1\)",
        ),
    ],
)
def test_impossible_specs_are_refused_by_key(changes: dict[str, Any], message: str, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(**changes)


def test_computing_sets_threads_and_denormals_and_puts_them_back() -> None:
    threads = torch.get_num_threads()
    assert not denormals_are_flushed()
    with computing(threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert denormals_are_flushed()
    assert torch.get_num_threads() == threads
    assert not denormals_are_flushed()


def test_peak_memory_keeps_what_was_given_back_until_it_is_reset() -> None:
    cpu, size = torch.device("cpu"), 256 * 2**20
    reset_peak_memory(cpu)
    before = peak_memory_bytes(cpu)
    with mmap.mmap(-1, size) as pages:
        for start in range(0, size, mmap.PAGESIZE):
            pages[start] = 1
    assert peak_memory_bytes(cpu) - before == pytest.approx(size, rel=0.02)
    reset_peak_memory(cpu)
    if sys.platform == "linux":  # elsewhere the peak of a process cannot be reset
        assert peak_memory_bytes(cpu) == pytest.approx(before, abs=0.02 * size)


def test_the_worst_status_speaks_for_the_trial() -> None:
    def result(*statuses: Status) -> TrialResult:
        return TrialResult([{"status": status} for status in statuses])

    assert result(Status.OK, Status.TIMED_OUT).status == "timed_out"
    assert result(Status.DIVERGED, Status.TIMED_OUT, Status.OK).status == "diverged"


def test_the_worst_gradient_check_stays_and_nan_is_worst() -> None:
    outcome = ReplicaOutcome(0)
    assert outcome.gradient_check_error is None
    outcome.check_gradient(0.2)
    outcome.check_gradient(0.1)
    assert outcome.gradient_check_error == 0.2
    outcome.check_gradient(math.nan)
    outcome.check_gradient(0.3)
    assert math.isnan(outcome.gradient_check_error)


def test_the_best_evaluation_is_the_lowest_finite_one(spec_of: Any) -> None:
    outcome, training = ReplicaOutcome(0), spec_of().training
    assert not outcome.saw_validation(0, math.nan, None, training)
    assert outcome.saw_validation(10, 0.5, 0.2, training)
    assert not outcome.saw_validation(20, 0.5, 0.1, training)
    assert outcome.saw_validation(30, 0.4, 0.3, training)
    assert (outcome.best_step, outcome.best_validation_loss, outcome.best_validation_error) == (30, 0.4, 0.3)


def test_the_best_evaluation_by_error_is_the_one_of_lower_loss_among_equals(spec_of: Any) -> None:
    outcome, training = ReplicaOutcome(0), spec_of(training__stop_on="validation_error").training
    assert outcome.saw_validation(10, 0.5, 0.2, training)
    assert outcome.saw_validation(20, 0.9, 0.1, training)
    assert not outcome.saw_validation(30, 0.3, 0.2, training)
    assert outcome.saw_validation(40, 0.8, 0.1, training)
    assert outcome.best_step == 40


@pytest.mark.parametrize(
    ("max_steps", "num_traces", "expected"),
    [(100, 2, (0, 100)), (100, 4, (0, 4, 21, 100)), (3, 10, (0, 1, 2, 3))],
)
def test_log_spaced_steps(max_steps: int, num_traces: int, expected: tuple[int, ...]) -> None:
    assert log_spaced_steps(max_steps, num_traces) == expected
