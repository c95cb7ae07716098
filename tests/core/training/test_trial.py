"""A trial as a whole: determinism, independence of replicas, exact resume, and how it ends."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.models import Replicas, SequenceModel
from pipeline.core.training import CheckpointError, MemorySink, TrialResult, TrialSpec, run_trial
from pipeline.core.training.diagnostics import GradientCheckError
from pipeline.core.training.loop import Trial, train
from pipeline.core.training.progress import ReplicaOutcome
from pipeline.errors import ConfigError
from pipeline.results import HOST_COLUMNS
from tests.core.slowly import slowly
from tests.core.training.conftest import adding_split
from tests.core.training.sequences import finished, rows_about


class Slot:
    """A checkpoint slot in memory that counts, and may pull the plug after some saves."""

    def __init__(self, die_after: int | None = None) -> None:
        self.data: bytes | None = None
        self.num_saves, self.die_after = 0, die_after

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data
        self.num_saves += 1
        if self.num_saves == self.die_after:
            raise KeyboardInterrupt("the plug is pulled")


def killed_and_resumed(spec: TrialSpec, dataset: Any, die_after: int) -> tuple[TrialResult, MemorySink]:
    """Kill a trial at its checkpoint of this number, and return what it leaves after it has gone on from there."""
    slot, resumed = Slot(die_after=die_after), MemorySink()
    with pytest.raises(KeyboardInterrupt, match="plug"):
        run_trial(spec, dataset, MemorySink(), checkpoints=slot, checkpoint_interval_s=0.0)
    slot.die_after = None
    return run_trial(spec, dataset, resumed, checkpoints=slot, checkpoint_interval_s=math.inf), resumed


def rows_of(result: TrialResult) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in HOST_COLUMNS} for row in result.rows]


def sorted_rows(sink: MemorySink, table: str, seeds: list[int] | None = None) -> list[tuple[Any, ...]]:
    columns = sink.tables()[table]
    rows = zip(*columns.values(), strict=True)
    at = list(columns).index("seed")
    return sorted(tuple(map(repr, row)) for row in rows if seeds is None or int(row[at]) in seeds)


@pytest.mark.parametrize("cell", ["lstm", *slowly("elman", "gru")])
def test_same_spec_twice_gives_the_same_rows(cell: str, adding: Any, spec_of: Any) -> None:
    spec, again = spec_of(model__cell=cell), MemorySink()
    expected, first = finished(spec, adding)
    assert rows_of(run_trial(spec, adding, again)) == rows_of(expected)
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(again, table) == sorted_rows(first, table)


@pytest.mark.parametrize("cell", ["lstm", *slowly("elman", "elman_relu", "gru")])
def test_a_replica_in_a_pack_of_8_equals_the_same_replica_alone(cell: str, adding: Any, spec_of: Any) -> None:
    pack, alone = MemorySink(), MemorySink()
    dense = {"training__stop_below": 0.3, "training__evaluate_every": 5, "diagnostics__num_traces": 20}
    together = run_trial(spec_of(model__cell=cell, seeds=list(range(8)), **dense), adding, pack)
    single = run_trial(spec_of(model__cell=cell, seeds=[5], **dense), adding, alone)
    assert len({row["num_steps"] for row in together.rows}) > 1, "some should reach the criterion before others"
    assert rows_of(together)[5] == rows_of(single)[0]
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(pack, table, [5]) == sorted_rows(alone, table)


class Planted(SequenceModel):
    """With a NaN among the weights of seed 1."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if arguments[-1] == 1:
            with torch.no_grad():
                self.recurrent.weight_hh_l0[0, 0] = math.nan


@pytest.mark.parametrize("cell", ["lstm", *slowly("elman", "gru")])
def test_a_nan_planted_in_one_replica_leaves_the_others_bit_identical(
    cell: str, adding: Any, spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, poisoned = spec_of(model__cell=cell), MemorySink()
    expected, clean = finished(spec, adding)

    monkeypatch.setattr("pipeline.core.training.loop.build_network", Planted)
    result = run_trial(spec, adding, poisoned)
    assert [row["status"] for row in result.rows] == ["ok", "diverged", "ok"]
    assert [rows_of(result)[r] for r in (0, 2)] == [rows_of(expected)[r] for r in (0, 2)]
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(poisoned, table, [0, 2]) == sorted_rows(clean, table, [0, 2])
    row = result.rows[1]
    assert (row["diverged_step"], row["diverged_quantity"]) == (0, "validation_loss")
    assert row["best_validation_loss"] is row["test_loss"] is row["gradient_check_error"] is None
    assert result.status == "diverged"


@pytest.mark.parametrize("optimiser", ["adam", *slowly("sgd", "momentum", "rmsprop")])
def test_a_killed_trial_goes_on_from_its_checkpoint_bit_for_bit(optimiser: str, adding: Any, spec_of: Any) -> None:
    fields = {
        "sgd": {},
        "momentum": {"momentum": 0.9},
        "rmsprop": {"decay": 0.9},
        "adam": {"beta1": 0.9, "beta2": 0.999},
    }
    spec = spec_of(optimiser={"name": optimiser, "learning_rate": 0.01, **fields[optimiser]})
    expected, whole = finished(spec, adding)
    result, interrupted = killed_and_resumed(spec, adding, 17)
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(interrupted, table) == sorted_rows(whole, table)


@pytest.mark.parametrize("data", [b"not a checkpoint", b""])
def test_a_damaged_checkpoint_is_refused(data: bytes, adding: Any, spec_of: Any) -> None:
    slot = Slot()
    slot.data = data
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        run_trial(spec_of(), adding, MemorySink(), checkpoints=slot)


def test_a_checkpoint_of_another_layout_is_refused(adding: Any, spec_of: Any) -> None:
    slot, buffer = Slot(), io.BytesIO()
    torch.save({"code": "c0de", "progress": {"clock": {}}, "rows": b"rows"}, buffer)
    slot.data = buffer.getvalue()
    with pytest.raises(CheckpointError, match="not a readable checkpoint: .* unexpected keyword argument 'clock'"):
        run_trial(spec_of(), adding, MemorySink(), checkpoints=slot)


def test_a_checkpoint_of_other_code_is_refused(adding: Any, spec_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot(die_after=1)
    with pytest.raises(KeyboardInterrupt):
        run_trial(spec_of(), adding, MemorySink(), checkpoints=slot, checkpoint_interval_s=0.0)
    monkeypatch.setattr("pipeline.core.training.loop.code_digest", lambda spec: "c0de")
    with pytest.raises(CheckpointError, match=r"a checkpoint of other code, digest [0-9a-f]{16}, expected c0de"):
        run_trial(spec_of(), adding, MemorySink(), checkpoints=slot)


def test_a_diverging_replica_is_a_row_with_its_step_and_the_trial_goes_on(adding: Any, spec_of: Any) -> None:
    spec = spec_of(
        model__cell="elman_relu",
        optimiser={"name": "sgd", "learning_rate": 3.0},
        clipping={"name": "none"},
        training__max_steps=60,
    )
    sink = MemorySink()
    result = run_trial(spec, adding, sink)
    diverged = [row for row in result.rows if row["status"] == "diverged"]
    assert diverged, "the learning rate of this test should be too high for some seed"
    for row in diverged:
        assert row["num_steps"] == row["diverged_step"] - 1
        assert "entries of the gradient are not finite" in row["status_message"]
        curves = sink.tables()["curves"]
        last = curves["step"][(curves["seed"] == row["seed"]) & (curves["split"] == "train")].max()
        assert last == row["diverged_step"]  # the bad loss itself is recorded, nothing after it


def test_a_replica_that_reached_the_criterion_is_frozen_and_traced_there(adding: Any, spec_of: Any) -> None:
    sink = MemorySink()
    spec = spec_of(training__stop_below=0.2, training__max_steps=400, diagnostics__num_traces=2)
    result = run_trial(spec, adding, sink)
    traces = sink.tables()["traces"]
    for row in result.rows:
        assert row["reached_criterion"]
        assert row["best_validation_loss"] < 0.2
        assert row["num_steps"] == row["criterion_step"] < 400
        assert set(traces["step"][traces["seed"] == row["seed"]]) == {0, row["criterion_step"]}


def test_time_limit_ends_a_trial_as_timed_out(adding: Any, spec_of: Any) -> None:
    result = run_trial(spec_of(training__max_steps=10**6), adding, MemorySink(), max_wall_time_s=0.3)
    assert {row["status"] for row in result.rows} == {"timed_out"}
    assert "limit 0.3 s" in result.rows[0]["status_message"]
    assert math.isfinite(result.rows[0]["test_loss"])


@pytest.mark.parametrize("stop_at", [2, 10, *slowly(0, 13)])  # a trace, an evaluation, both, neither
def test_a_trial_that_ran_out_of_time_goes_on_under_a_higher_limit(
    stop_at: int, adding: Any, spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    continued, slot, (expected, whole) = MemorySink(), Slot(), finished(spec_of(), adding)
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "is_out_of_time", lambda trial: trial.progress.step == stop_at)
        first = run_trial(spec_of(), adding, MemorySink(), checkpoints=slot, max_wall_time_s=1.0)
    assert first.status == "timed_out"
    assert {row["num_steps"] for row in first.rows} == {stop_at}
    result = run_trial(spec_of(), adding, continued, checkpoints=slot)
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(continued, table) == sorted_rows(whole, table)


def test_a_trial_that_was_stopped_by_steps_goes_on_rung_by_rung(adding: Any, spec_of: Any) -> None:
    continued, slot, (expected, whole) = MemorySink(), Slot(), finished(spec_of(), adding)
    for stop_at in (10, 13, 20):  # an evaluation, none, an evaluation
        rung = run_trial(spec_of(), adding, MemorySink(), checkpoints=slot, stop_at=stop_at, max_wall_time_s=60.0)
        assert {(row["status"], row["num_steps"]) for row in rung.rows} == {("censored", stop_at)}
        assert rung.rows[0]["status_message"] == f"stopped by the search after {stop_at} steps; {OF_BEST}"
        assert math.isfinite(rung.rows[0]["test_loss"])
    result = run_trial(spec_of(), adding, continued, checkpoints=slot, stop_at=spec_of().training.max_steps)
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(continued, table) == sorted_rows(whole, table)


OF_BEST = "results are of its best step"


def test_what_has_exploded_at_a_rung_is_censored_since_it_might_recover(adding: Any, spec_of: Any) -> None:
    rows = run_trial(spec_of(optimiser=RATE_100), adding, MemorySink(), stop_at=25).rows
    assert {(row["status"], row["num_steps"]) for row in rows} == {("censored", 25)}
    assert all(row["exploded_step"] is not None for row in rows)


def test_parameters_that_overflow_in_an_update_are_said_to(adding: Any, spec_of: Any) -> None:
    spec = spec_of(optimiser={"name": "sgd", "learning_rate": 3.0e38}, clipping={"name": "none"})
    rows = run_trial(spec, adding, MemorySink()).rows
    overflowed = [row for row in rows if row["diverged_quantity"] == "parameters"]
    assert overflowed, "the learning rate of this test should overflow float32 for some seed"
    for row in overflowed:
        assert (row["diverged_step"], row["num_steps"], row["best_step"]) == (1, 0, 0)
        assert "the update overflowed" in row["status_message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__batch_size": 257}, r"training\.batch_size: expected at most 256, the train sequences; got 257"),
        ({"diagnostics__probe_size": 65}, r"diagnostics\.probe_size: expected at most 64, the validation sequences"),
    ],
)
def test_portions_larger_than_the_data_are_refused(
    changes: dict[str, Any], message: str, adding: Any, spec_of: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_trial(spec_of(**changes), adding, MemorySink())


def test_a_training_gradient_that_disagrees_at_initialisation_is_an_error(adding: Any, spec_of: Any) -> None:
    with pytest.raises(GradientCheckError, match="gradient_check_tolerance allows 1.0e-12"):
        run_trial(spec_of(diagnostics__gradient_check_tolerance=1e-12), adding, MemorySink())


def test_a_wrong_backward_pass_is_an_error_at_initialisation(
    adding: Any, spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Replicas.backpropagate

    def wrong(pack: Replicas, *arguments: Any, **options: Any) -> Any:
        run = right(pack, *arguments, **options)
        return run._replace(grad_RP=run.grad_RP * 1.01)

    monkeypatch.setattr(Replicas, "backpropagate", wrong)
    monkeypatch.setattr(
        "pipeline.core.measures.gradients.gradient_check_error", lambda fast, exact: torch.zeros(len(fast))
    )
    with pytest.raises(GradientCheckError, match="from finite differences of the loss at step 0"):
        run_trial(spec_of(), adding, MemorySink())


def test_arms_are_paired_and_seeds_differ(adding: Any, spec_of: Any) -> None:
    elman, gru = (
        Trial(spec_of(model__cell=cell), adding, MemorySink(), device=torch.device("cpu")) for cell in ("elman", "gru")
    )
    readouts = [trial.replicas.named(trial.replicas.flat_RP)["readout.weight"] for trial in (elman, gru)]
    assert torch.equal(*readouts)
    assert not torch.equal(readouts[0][0], readouts[0][1])
    assert torch.equal(elman.step.order.indices(20), gru.step.order.indices(20))


@pytest.mark.slow
@pytest.mark.parametrize("embedding_size", [None, 3])
def test_symbols_with_a_target_at_every_timestep_are_learned(
    embedding_size: int | None, symbols: Any, spec_of: Any
) -> None:
    sink = MemorySink()
    spec = spec_of(model__embedding_size=embedding_size, model__hidden_size=16, training__max_steps=150)
    result = run_trial(spec, symbols, sink)
    for row in result.rows:
        # the first of 12 timesteps cannot be known: chance there costs 0.75 / 12 and ln 4 / 12
        assert row["test_error"] == pytest.approx(0.75 / 12, abs=0.02)
        assert math.log(4) / 12 < row["test_loss"] < 1.3 * math.log(4) / 12


def test_ledger_says_what_clipping_did(adding: Any, spec_of: Any) -> None:
    sink = MemorySink()
    result = run_trial(spec_of(clipping={"name": "global_norm", "threshold": 0.2}), adding, sink)
    curves = sink.tables()["curves"]
    before = curves["value"][curves["metric"] == "grad_norm"]
    after = curves["value"][curves["metric"] == "clipped_grad_norm"]
    assert len(before) == 3 * 30
    np.testing.assert_allclose(after, np.minimum(before, 0.2), rtol=1e-5)
    shares = [row["clipped_share"] for row in result.rows]
    assert np.mean(shares) == pytest.approx((before > 0.2).mean(), abs=1e-9)
    np.testing.assert_allclose(curves["value"][curves["metric"] == "clip_cosine"], 1.0, rtol=1e-5)


def test_the_best_weights_are_tested_at_lengths_they_never_saw(adding: Any, spec_of: Any) -> None:
    longer = adding_split(40, 25, seed=9)
    sink = MemorySink()
    result = run_trial(spec_of(), dataclasses.replace(adding, unseen={25: longer}), sink)
    curves = sink.tables()["curves"]
    found = curves["value"][rows_about(curves, "loss", split="test", tested_length=25)]
    assert len(found) == 3
    again = MemorySink()
    trial = Trial(spec_of(), adding, again, device=torch.device("cpu"))
    train(trial)
    predictions = trial.replicas.predict(trial.replicas.named(trial.progress.best_RP), torch.from_numpy(longer.inputs))
    expected = ((predictions - torch.from_numpy(longer.targets)) ** 2).mean(dim=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert rows_of(result) == rows_of(finished(spec_of(), adding)[0])  # nothing else changes


def test_errors_are_told_for_each_kind_of_token(symbols: Any, spec_of: Any) -> None:
    grouped = dataclasses.replace(symbols, token_groups={"low": (0, 1), "high": (2, 3)})
    sink = MemorySink()
    result = run_trial(spec_of(training__max_steps=60), grouped, sink)
    curves, inputs = sink.tables()["curves"], symbols.splits["test"].inputs
    for r, row in enumerate(result.rows):
        errors = {g: curves["value"][rows_about(curves, "error", split="test", group=g)][r] for g in ("low", "high")}
        share = np.isin(inputs, (0, 1)).mean()
        assert share * errors["low"] + (1 - share) * errors["high"] == pytest.approx(row["test_error"], abs=1e-9)


def test_the_regulariser_is_added_before_clipping_and_its_value_is_a_curve(adding: Any, spec_of: Any) -> None:
    rule = {"name": "vanishing_gradient", "weight": 4.0}
    sink = MemorySink()
    run_trial(spec_of(regularisation=rule), adding, sink)
    curves = sink.tables()["curves"]
    omega = curves["value"][curves["metric"] == "omega"]
    assert len(omega) == 3 * 30
    assert (omega > 0).all()
    trial = Trial(spec_of(regularisation=rule), adding, MemorySink(), device=torch.device("cpu"))
    start, window = trial.progress.state.flat_RP, trial.step.windows.at(0)
    run = trial.step.backpropagate(start, trial.step.batch_of(window))
    penalised, _ = trial.spec.regularisation.penalise(trial.replicas, start, run)
    difference = trial.replicas.named(penalised - run.grad_RP)
    assert (difference["recurrent.weight_hh_l0"].abs().amax(dim=(1, 2)) > 0).all()
    assert not any(part.any() for name, part in difference.items() if name != "recurrent.weight_hh_l0")
    norms = curves["value"][(curves["metric"] == "grad_norm") & (curves["step"] == 1)]
    np.testing.assert_allclose(norms, penalised.double().norm(dim=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__cell": "lstm"}, "model.cell: expected a cell with h_t"),
        ({"model__num_layers": 2}, "model.num_layers: expected 1 for 'vanishing_gradient'"),
        ({"model__bidirectional": True}, "model.bidirectional: expected false for 'vanishing_gradient'"),
    ],
)
def test_the_regulariser_needs_a_single_elman_layer(changes: Any, told: str, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=told):
        spec_of(regularisation={"name": "vanishing_gradient", "weight": 4.0}, **changes)


@pytest.mark.parametrize("cell", ["elman", *slowly("lstm")])
def test_every_measure_is_written_with_rows_for_every_seed(cell: str, adding: Any, spec_of: Any) -> None:
    sink = MemorySink()
    measures = ["jacobians", "lyapunov", "smoothness", "truncation", *(["gates"] if cell == "lstm" else [])]
    run_trial(spec_of(model__cell=cell, model__num_layers=2, diagnostics__measures=measures), adding, sink)
    tables = sink.tables()
    for table in ("jacobians", "lyapunov", "truncation", *(("gates",) if cell == "lstm" else ())):
        assert set(tables[table]["seed"]) == {0, 1, 2}, table
        assert set(tables[table]["step"]) >= {0, 30}, table
    assert ("gates" in tables) == (cell == "lstm")
    assert {"local_smoothness", "probe_grad_norm"} <= set(tables["curves"]["metric"])
    assert set(tables["traces"]["layer"]) == {0, 1}


@pytest.mark.slow
def test_what_is_kept_for_the_way_back_grows_with_what_flows_back(symbols: Any, spec_of: Any) -> None:
    kept = {}
    for k in (2, 4, 8, 12):
        spec = spec_of(training__truncation={"update_every": k, "backward_length": k}, training__max_steps=2)
        kept[k] = run_trial(spec, symbols, MemorySink()).rows[0]["activation_bytes"]
    assert kept[8] - kept[4] == pytest.approx(2 * (kept[4] - kept[2]), rel=0.05)
    full = run_trial(spec_of(training__max_steps=2), symbols, MemorySink()).rows[0]["activation_bytes"]
    assert kept[12] == full


RATE_100 = {"name": "sgd", "learning_rate": 100.0}


def test_a_loss_that_ends_far_above_the_untrained_networks_has_diverged(adding: Any, spec_of: Any) -> None:
    sink = MemorySink()
    result = run_trial(spec_of(optimiser=RATE_100, seeds=[0, 1]), adding, sink)
    curves = sink.tables()["curves"]
    for row in result.rows:
        judged = (curves["seed"] == row["seed"]) & (curves["metric"] == "loss") & (curves["split"] == "validation")
        losses = dict(zip(curves["step"][judged].tolist(), curves["value"][judged].tolist(), strict=True))
        above = [step for step, loss in losses.items() if loss > 10 * losses[0]]
        assert (row["status"], row["diverged_quantity"]) == ("diverged", "validation_loss")
        assert row["diverged_step"] == row["exploded_step"] == above[0]
        assert above == [step for step in losses if step >= above[0]]
        assert row["final_validation_loss"] == losses[30] > 100
        assert row["num_steps"] == 30
        assert not row["beat_untrained"]
        assert row["best_step"] == 0
        assert row["converged"] is None
        assert "times the untrained network's" in row["status_message"]


@pytest.mark.slow
def test_an_explosion_counts_by_the_factor_of_the_spec_and_not_at_all_without_one(adding: Any, spec_of: Any) -> None:
    losses = {}
    for factor in (1e12, None):
        rows = run_trial(spec_of(optimiser=RATE_100, training__explodes_above=factor), adding, MemorySink()).rows
        assert {row["status"] for row in rows} == {"ok"}
        assert {row["exploded_step"] for row in rows} == {None}
        losses[factor] = [row["final_validation_loss"] for row in rows]
    assert losses[1e12] == losses[None]


def test_an_explosion_that_is_recovered_from_is_recorded_and_has_not_diverged(spec_of: Any) -> None:
    training = spec_of().training
    outcome = ReplicaOutcome(0)
    for step, loss in enumerate([1.0, 30.0, 0.5, 20.0, 11.0, 9.0]):
        outcome.saw_validation(step, loss, None, training)
    outcome.end(training)
    assert (outcome.status, outcome.exploded_step, outcome.diverged_step) == ("ok", 1, None)
    for step, loss in enumerate([10.5, 12.0], start=6):
        outcome.saw_validation(step, loss, None, training)
    outcome.end(training)
    assert (outcome.status, outcome.exploded_step, outcome.diverged_step) == ("diverged", 1, 6)


def test_what_was_stopped_by_the_time_limit_far_above_the_untrained_loss_has_diverged(
    adding: Any, spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trial, "is_out_of_time", lambda trial: trial.progress.step == 25)
    rows = run_trial(spec_of(optimiser=RATE_100), adding, MemorySink(), max_wall_time_s=60.0).rows
    assert {(row["status"], row["num_steps"]) for row in rows} == {("diverged", 25)}
    rows = run_trial(spec_of(), adding, MemorySink(), max_wall_time_s=60.0).rows
    assert {(row["status"], row["num_steps"]) for row in rows} == {("timed_out", 25)}


@pytest.mark.parametrize(
    ("losses", "converged"),
    [
        ({0: 1.0}, False),  # nothing was trained
        ({0: 1.0, 50: 0.5, 80: 0.4, 100: 0.39}, True),
        ({0: 1.0, 50: 0.5, 80: 0.4, 100: 0.37}, False),
        ({0: 1.0, 50: 0.4, 90: 0.3, 100: 0.5}, False),  # the lowest counts, not the last
        ({0: 1.0, 50: 0.4, 90: 0.6, 100: 0.5}, True),  # the loss rises again: it had been better before
        ({0: 1.0, 90: 1.0, 100: 1.0}, True),  # a plateau, too
    ],
)
def test_a_training_has_converged_when_its_last_fifth_hardly_improved_it(
    losses: dict[int, float], converged: bool, spec_of: Any
) -> None:
    training = spec_of().training
    outcome = ReplicaOutcome(0)
    for step, loss in losses.items():
        outcome.saw_validation(step, loss, None, training)
    assert outcome.row(0.4, None, 0, training.convergence)["converged"] is converged
    outcome.criterion_step = 100
    assert outcome.row(0.4, None, 0, training.convergence)["converged"] is True
