"""Settings packed together: each is bit for bit what it is alone, whatever becomes of the others."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.models import Replicas
from pipeline.core.training import MemorySink, Program, TrialSpec, run_trial
from pipeline.core.training.pack import train_pack
from pipeline.data import Dataset

TIMES = {"wall_time_s", "training_time_s", "step_time_s", "step_time_error_s", "diagnostics_time_share"}
TIMES |= {"peak_memory_bytes", "criterion_time_s"}
OPTIMISERS = [
    {"name": "sgd", "learning_rate": 0.05},
    {"name": "momentum", "learning_rate": 0.01, "momentum": 0.9},
    {"name": "adam", "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999},
    {"name": "sgd", "learning_rate": 1e6},  # explodes
]
CLIPPING = [
    {"name": "none"},
    {"name": "global_norm", "threshold": 0.1},
    {"name": "autoclip", "percentile": 10.0},
    {"name": "state_norm", "threshold": 0.01},
]

SpecOf = Callable[..., TrialSpec]


def found(result: Any, sink: MemorySink) -> dict[str, np.ndarray]:
    """Return all that a trial leaves but its times."""
    columns = {name: np.array([row[name] for row in result.rows]) for name in result.rows[0] if name not in TIMES}
    return columns | {f"{table}.{name}": each for table, whole in sink.tables().items() for name, each in whole.items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f") for name in a
    )


def alone(spec: TrialSpec, dataset: Dataset) -> dict[str, np.ndarray]:
    sink = MemorySink()
    return found(run_trial(spec, dataset, sink), sink)


def packed(specs: Sequence[TrialSpec], dataset: Dataset, **options: Any) -> list[dict[str, np.ndarray]]:
    sinks = [MemorySink() for _ in specs]

    def work(index: int, program: Program) -> dict[str, np.ndarray]:
        result = run_trial(specs[index], dataset, sinks[index], program=program, **options)
        return found(result, sinks[index])

    return train_pack(specs, work)


def drawn(spec_of: SpecOf, rng: random.Random) -> TrialSpec:
    """Return a random spec whose networks are as those of all others."""
    recurrent = rng.choice([{"name": "uniform"}, {"name": "orthogonal", "gain": rng.choice([0.5, 1.5])}])
    plain = {"name": "uniform"}
    rules = {"input": plain, "recurrent": recurrent, "gates": {}, "bias": plain, "readout": plain}
    return spec_of(
        model__initialisation=rules,
        optimiser=rng.choice(OPTIMISERS),
        clipping=rng.choice(CLIPPING),
        training__max_steps=rng.choice([7, 12]),
        training__evaluate_every=rng.choice([2, 5]),
        seeds=rng.choice([[0], [3, 1], [0, 1, 2]]),
    )


@pytest.mark.slow
def test_ten_random_settings_packed_are_bit_for_bit_what_they_are_alone(adding: Dataset, spec_of: SpecOf) -> None:
    rng = random.Random(7)
    specs = [drawn(spec_of, rng) for _ in range(10)]
    assert len({repr((spec.optimiser, spec.clipping, spec.training)) for spec in specs}) > 5
    for spec, mine in zip(specs, packed(specs, adding), strict=True):
        assert same(mine, alone(spec, adding))


@pytest.mark.slow
def test_settings_of_other_networks_and_data_lengths_stay_apart(adding: Dataset, spec_of: SpecOf) -> None:
    specs = [spec_of(model__cell=cell, model__hidden_size=size) for cell, size in (("elman", 4), ("elman_relu", 4))]
    specs += [spec_of(model__cell="lstm", model__hidden_size=5)]
    for spec, mine in zip(specs, packed(specs, adding), strict=True):
        assert same(mine, alone(spec, adding))


def test_passes_are_shared(adding: Dataset, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, whole = [], Replicas.backpropagate

    def counting(self: Replicas, flat_RP: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if not options.get("shared"):
            sizes.append(len(flat_RP))
        return whole(self, flat_RP, *arguments, **options)

    monkeypatch.setattr(Replicas, "backpropagate", counting)
    specs = [spec_of(seeds=[0, 1], training__max_steps=9), spec_of(seeds=[4], training__max_steps=9)]
    packed(specs, adding)
    assert sizes[:2] == [2, 1]  # the first of each, which counts its activations
    assert sizes[2:] == [3] * 8


def test_an_error_is_raised_after_the_others_have_ended(adding: Dataset, spec_of: SpecOf) -> None:
    specs, ended = [spec_of(), spec_of(seeds=[5])], []

    def work(index: int, program: Program) -> None:
        if index == 0:
            raise KeyError("of the first")
        ended.append(run_trial(specs[index], adding, MemorySink(), program=program).status)

    with pytest.raises(KeyError, match="of the first"):
        train_pack(specs, work)
    assert ended == ["ok"]


def test_a_pass_that_fails_is_the_error_of_its_own_trial(
    adding: Dataset, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Replicas.backpropagate

    def failing(self: Replicas, flat_RP: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if (flat_RP == 77.0).any():
            raise ValueError("no such parameters")
        return whole(self, flat_RP, *arguments, **options)

    monkeypatch.setattr(Replicas, "backpropagate", failing)
    specs, outcomes = [spec_of(seeds=[seed]) for seed in range(3)], {}

    def work(index: int, program: Program) -> None:
        def spoilt(models: Any) -> Replicas:
            replicas = program.replicas(models)
            replicas.flat_RP[0, 0] = 77.0 if index == 1 else replicas.flat_RP[0, 0]
            return replicas

        try:
            own = dataclasses.replace(program, replicas=spoilt)
            outcomes[index] = run_trial(specs[index], adding, MemorySink(), program=own).status
        except ValueError as error:
            outcomes[index] = str(error)

    train_pack(specs, work)
    assert outcomes == {0: "ok", 1: "no such parameters", 2: "ok"}


@pytest.mark.slow
def test_what_does_not_fit_into_memory_together_is_done_in_halves(
    adding: Dataset, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, most = Replicas.backpropagate, []

    def small(self: Replicas, flat_RP: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if len(flat_RP) > 2:
            raise torch.OutOfMemoryError("a small device")
        most.append(len(flat_RP))
        return whole(self, flat_RP, *arguments, **options)

    specs = [spec_of(seeds=[seed]) for seed in range(4)]
    expected = [alone(spec, adding) for spec in specs]
    monkeypatch.setattr(Replicas, "backpropagate", small)
    with caplog.at_level(logging.WARNING):
        assert all(same(mine, its) for mine, its in zip(packed(specs, adding), expected, strict=True))
    assert max(most) == 2
    assert "4 trials together do not fit into memory" in caplog.text
    assert len(caplog.records) == 1  # what does not fit is not tried again


@pytest.mark.slow
def test_an_interrupt_ends_every_trial_where_it_was_checkpointed(
    adding: Dataset, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [spec_of(seeds=[seed], training__max_steps=30) for seed in range(3)]
    expected = [alone(spec, adding) for spec in specs]
    slots = [Slot() for _ in specs]
    whole, passes = Replicas.backpropagate, []

    def interrupted(self: Replicas, *arguments: Any, **options: Any) -> Any:
        passes.append(self)
        if len(passes) == 40:
            raise KeyboardInterrupt
        return whole(self, *arguments, **options)

    def work(index: int, program: Program) -> dict[str, np.ndarray]:
        sink = MemorySink()
        more = {"checkpoints": slots[index], "checkpoint_interval_s": 0.0}
        return found(run_trial(specs[index], adding, sink, program=program, **more), sink)

    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(Replicas, "backpropagate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_pack(specs, work)
    assert threading.active_count() == before
    assert all(slot.data is not None for slot in slots)
    for mine, its in zip(train_pack(specs, work), expected, strict=True):
        assert rows_of(mine) == rows_of(its)  # a trial that is taken up again writes its updates at other times


def rows_of(left: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Return the rows of every table as text, in an order of their own."""
    tables: dict[str, list[np.ndarray]] = {}
    for name, column in left.items():
        tables.setdefault(name.partition(".")[0] if "." in name else "trials", []).append(column)
    return {name: sorted(str(row) for row in zip(*columns, strict=True)) for name, columns in tables.items()}


class Slot:
    """A checkpoint slot in memory."""

    data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


def test_the_seconds_of_all_trials_together_are_those_that_passed(adding: Dataset, spec_of: SpecOf) -> None:
    specs = [spec_of(seeds=[seed], training__max_steps=40) for seed in range(4)]
    started, seconds = time.perf_counter(), []

    def work(index: int, program: Program) -> None:
        run_trial(specs[index], adding, MemorySink(), program=program)
        seconds.append(program.clock())

    train_pack(specs, work)
    passed = time.perf_counter() - started
    assert 0.2 * passed < sum(seconds) <= passed  # what is between their turns is nobody's
    assert max(seconds) < 0.9 * sum(seconds)
