"""Replicas that have ended: nothing of the network is computed for them, and the others do not notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pipeline.core.measures.gradients import trace_gradients
from pipeline.core.models import Replicas
from pipeline.core.training import MemorySink, TrialSpec, diagnostics, evaluation, run_trial
from pipeline.core.training.loop import Program, Trial, train
from pipeline.core.training.progress import pays
from pipeline.core.training.schedule import log_spaced_steps
from tests.core.training.conftest import RAW, SmallDataset
from tests.core.training.sequences import ADDITIVE, LINEAR, SMALL, circles, described, reversal
from tests.core.training.test_options import ADAMW, DROPOUTS
from tests.core.training.test_trial import Planted, killed_and_resumed, rows_of, sorted_rows

SEEDS = [0, 1, 2, 3]
ODD = {"model__hidden_size": 5, "training__batch_size": 5}
"""Sizes that fill no cache line."""
WRITER = {"model__attention": ADDITIVE, "model__bidirectional": True}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "elman": ({}, "adding"),
    "odd sizes": ({"model__cell": "lstm", **ODD}, "adding"),
    "a second product in the step": ({"model__cell": "lem", **ODD}, "adding"),
    "reset before the product": ({"model__cell": "gru_reset_before", **ODD}, "adding"),
    "norms over units": ({"model__cell": "lstm_layer_norm", **ODD}, "adding"),
    "a module in turn": ({"model": {"name": "custom", "import": "tests.own_models:Last"}}, "adding"),
    "memory of a clipping rule": ({"clipping": {"name": "autoclip", "percentile": 10.0}}, "adding"),
    "clipping in the recurrence": ({"clipping": {"name": "state_norm", "threshold": 0.01}}, "adding"),
    "states carried on": (
        {
            "model__cell": "lstm",
            "model__embedding_size": 3,
            "training__truncation": {"update_every": 3, "backward_length": 5},
        },
        "symbols",
    ),
    "a traced penalty": ({"regularisation": {"name": "vanishing_gradient", "weight": 1.0}}, "adding"),
    "dropout, portions, weight decay": (
        {
            "model__cell": "gru",
            "model__dropout": DROPOUTS["variational"],
            "training__accumulation": 4,
            "optimiser": ADAMW,
        },
        "adding",
    ),
    "scheduled sampling": ({**WRITER, "training__forcing": LINEAR}, "reversal"),
    "attention that is penalised": (
        {**WRITER, "regularisation": {"name": "doubly_stochastic", "weight": 1.0}},
        "reversal",
    ),
    "rounded products": (
        {
            "model__cell": "gru",
            "training__autocast": "bfloat16",
            "diagnostics": RAW["diagnostics"] | {"gradient_check_tolerance": 0.05},
        },
        "adding",
    ),
    "words and images": ({"model__attention": {"name": "dot", "feeds": "attentional_state"}}, "described"),
    "a network that generates": (
        {"model__generates": 4, "training__state_forcing": {"name": "sparse", "every": 3}},
        "circles",
    ),
}


@pytest.fixture
def data(adding: SmallDataset, symbols: SmallDataset) -> dict[str, SmallDataset]:
    return {
        "adding": adding,
        "symbols": symbols,
        "reversal": reversal(),
        "described": described(),
        "circles": circles(),
    }


def trial(spec: TrialSpec, dataset: Any) -> Trial:
    return Trial(spec, dataset, MemorySink(), device=torch.device("cpu"))


def of_some(tree: Any, which: list[int]) -> list[Tensor]:
    """The rows of every tensor that has one per replica."""
    leaves = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.dim()]
    return [leaf[which] for leaf in leaves if len(leaf) == len(SEEDS)]


@pytest.mark.parametrize("case", CASES)
def test_the_others_are_bit_for_bit_what_they_are_beside_it(
    case: str, data: dict[str, SmallDataset], spec_of: Callable[..., TrialSpec]
) -> None:
    changes, name = CASES[case]
    common = SMALL if name in {"reversal", "described"} else {}
    spec = spec_of(**common | changes, seeds=SEEDS)
    found, sizes = [], []
    for regroups in (False, True):
        progress, step = (one := trial(spec, data[name])).progress, one.step
        for ending in ([], [1], [], [0], []):
            progress.freeze(ending)
            if regroups:
                progress.regroup()
            progress.state, update = step(progress.state)
            sizes.append(len(update.batch.targets))
        left = [2, 3]
        state = progress.state
        kept = (state.flat_RP, state.clipping, state.carried, state.active_R, state.optimiser.state[state.flat_RP])
        found.append(of_some((kept, update.metrics, update.before_RP), left))
    assert sizes == [4] * 5 + [4, 3, 3, 2, 2]
    assert len(found[0]) == len(found[1]) > 8
    for together, apart in zip(*found, strict=True):
        assert torch.equal(together, apart)


@pytest.fixture
def ending_apart(adding: SmallDataset, spec_of: Callable[..., TrialSpec]) -> tuple[TrialSpec, SmallDataset]:
    """A spec whose seeds reach the criterion at different evaluations."""
    early = {"training__stop_below": 0.21, "training__evaluate_every": 2, "diagnostics__num_traces": 3}
    return spec_of(seeds=SEEDS, training__max_steps=40, **early), adding


def test_passes_evaluations_and_traces_are_of_those_that_train(
    ending_apart: tuple[TrialSpec, SmallDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, evaluated, traced = [], [], []
    whole, predict = Replicas.backpropagate, Replicas.predict

    def backpropagate(self: Replicas, flat_RP: Tensor, *arguments: Any, **options: Any) -> Any:
        if not options.get("shared"):
            passed.append(len(flat_RP))
        return whole(self, flat_RP, *arguments, **options)

    def predicting(self: Replicas, parameters: Any, *arguments: Any) -> Tensor:
        evaluated.append(len(next(iter(parameters.values()))))
        return predict(self, parameters, *arguments)

    def tracing(replicas: Replicas, flat_RP: Tensor, *arguments: Any) -> Any:
        traced.append(len(flat_RP))
        return trace_gradients(replicas, flat_RP, *arguments)

    monkeypatch.setattr(Replicas, "backpropagate", backpropagate)
    monkeypatch.setattr(Replicas, "predict", predicting)
    monkeypatch.setattr(diagnostics, "trace_gradients", tracing)
    result = run_trial(*ending_apart, MemorySink())
    ends = sorted(row["num_steps"] for row in result.rows)
    assert len({*ends}) > 2, "seeds are to end at different steps"
    assert passed == [sum(end > step for end in ends) for step in range(max(ends))]
    assert evaluated[:-1] == [sum(end >= step for end in ends) for step in range(0, max(ends) + 1, 2)]
    assert evaluated[-1] == len(SEEDS), "all are tested"
    measured = log_spaced_steps(40, 3)
    steps = sorted({*ends, *(step for step in measured if step <= max(ends))})
    assert traced == [sum(end >= step for end in ends) if step in measured else ends.count(step) for step in steps]


def test_a_trial_that_is_killed_among_ends_goes_on_bit_for_bit(
    ending_apart: tuple[TrialSpec, SmallDataset],
) -> None:
    sink = MemorySink()
    expected = run_trial(*ending_apart, sink)
    ends = sorted(row["num_steps"] for row in expected.rows)
    result, resumed = killed_and_resumed(*ending_apart, die_after=ends[0] + 2)
    assert result.rows[0]["num_timed_portions"] == expected.rows[0]["num_timed_portions"]
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(resumed, table) == sorted_rows(sink, table)


class Clock:
    """On which an update takes a second for each replica that is passed, and the first one a hundred more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, whole = 0.0, Replicas.backpropagate

        def backpropagate(replicas: Replicas, flat_RP: Tensor, *arguments: Any, **options: Any) -> Any:
            if not options.get("shared"):
                self.seconds += len(flat_RP) if self.seconds else 100 + len(flat_RP)
            return whole(replicas, flat_RP, *arguments, **options)

        monkeypatch.setattr(Replicas, "backpropagate", backpropagate)

    def rows(self, spec: TrialSpec, dataset: Any) -> list[dict[str, Any]]:
        program = Program(clock=lambda: self.seconds)
        return train(Trial(spec, dataset, MemorySink(), device=torch.device("cpu"), program=program)).rows


def test_times_are_those_of_updates_of_all_replicas(
    ending_apart: tuple[TrialSpec, SmallDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Clock(monkeypatch).rows(*ending_apart)
    ends = [row["num_steps"] for row in rows]
    for row in rows:
        assert row["step_time_s"] == len(SEEDS)
        assert row["step_time_error_s"] == 0.0
        assert row["num_timed_portions"] == min(ends) - 1, "the first update is not timed"
        assert row["criterion_time_s"] == (len(SEEDS) * row["num_steps"] if row["reached_criterion"] else None)
        assert row["training_time_s"] == 100 + sum(ends) < len(SEEDS) * max(ends) + 100


def test_where_a_seed_never_begins_times_are_those_of_the_others(
    ending_apart: tuple[TrialSpec, SmallDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.core.training.loop.build_network", Planted)
    rows = Clock(monkeypatch).rows(*ending_apart)
    assert rows[1]["num_steps"] == 0
    assert {(row["step_time_s"], row["step_time_error_s"]) for row in rows} == {(3.0, 0.0)}


def test_a_portion_is_a_quarter_of_the_updates_between_evaluations(
    adding: SmallDataset, spec_of: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Clock(monkeypatch).rows(spec_of(training__max_steps=30, training__evaluate_every=10), adding)
    assert rows[0]["num_timed_portions"] == 29 // 2


@pytest.mark.parametrize(
    ("device", "num_active", "num_passed", "expected"),
    [
        ("cpu", 3, 4, True),
        ("cpu", 4, 4, False),
        ("cpu", 0, 4, False),
        ("cuda", 3, 4, False),
        ("cuda", 2, 4, True),
    ],
)
def test_on_a_gpu_half_of_them_have_to_end(device: str, num_active: int, num_passed: int, expected: bool) -> None:
    assert pays(device, num_active, num_passed) is expected


@pytest.mark.parametrize("num_at_once", [1, 7, 64])
def test_what_is_evaluated_of_some_has_the_bits_of_all(
    num_at_once: int, symbols: SmallDataset, spec_of: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Portions of a split do not depend on how many replicas are evaluated."""
    one = trial(spec_of(seeds=SEEDS, model__cell="gru", model__embedding_size=3), symbols)
    replicas, split = one.replicas, one.evaluation.splits["validation"]
    per_sequence = sum(num * size for num, _, size in replicas.model.tap_shapes(split.inputs)) + 4 * 12
    monkeypatch.setattr(evaluation, "MAX_NUMBERS_AT_ONCE", num_at_once * len(SEEDS) * per_sequence)
    assert len(evaluation.portions(replicas, split)[0].targets) == num_at_once
    whole, some = (evaluation.evaluate(replicas, replicas.flat_RP[which], split) for which in (SEEDS, [1, 3]))
    for all_R, some_Q in zip(whole, some, strict=True):
        assert torch.equal(all_R[[1, 3]], some_Q)


@pytest.mark.parametrize("regroups", [False, True])
def test_where_a_late_update_stopped_being_finite_is_told_of_the_right_replica(
    regroups: bool, adding: SmallDataset, spec_of: Callable[..., TrialSpec]
) -> None:
    one = trial(spec_of(seeds=SEEDS), adding)
    progress = one.progress
    progress.freeze([0, 2])
    if regroups:
        progress.regroup()
    with torch.no_grad():
        one.replicas.named(progress.state.flat_RP)["recurrent.weight_hh_l0"][3, 0, 0] = math.nan
    progress.state, update = one.step(progress.state)
    assert update.failed_R.tolist() == [False, False, False, True]
    assert progress.active() == [1]
    assert one.step.locate(update, 3)[:2] == (10, "grad_h")
