"""What a training may have besides: dropout, accumulation, a schedule, weight decay, patience, a rate of 0."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config.strict import plain
from pipeline.core.cells.products import matmul
from pipeline.core.training import MemorySink, TrialSpec, run_trial
from pipeline.core.training.optimisers import ConstantRate, CosineRate, LinearRate, StepRate
from pipeline.core.training.spec import trial_id
from pipeline.errors import ConfigError
from tests.core.slowly import slowly
from tests.core.training.sequences import curve, finished, first_letter, letter_before, reversal, small
from tests.core.training.test_pack import alone, packed, same
from tests.core.training.test_trial import killed_and_resumed, rows_of, sorted_rows
from tests.core.training.test_truncation import displaced, exact_trial, truncated

ADAMW = {"name": "adamw", "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.1}
COSINE = {"name": "cosine", "warmup_steps": 5, "final": 0.1}
DROPOUTS = {
    "layers": {"name": "layers", "rate": 0.3},
    "variational": {"name": "variational", "inputs": 0.2, "states": 0.3},
    "inputs": {"name": "variational", "inputs": 0.2, "states": 0.0},
    "zoneout": {"name": "zoneout", "hidden": 0.1, "cell": 0.3},
}


def with_all(spec_of: Any, dropout: str, **changes: Any) -> TrialSpec:
    return spec_of(
        **{
            "model__cell": "lstm",
            "model__num_layers": 2,
            "model__dropout": DROPOUTS[dropout],
            "optimiser": ADAMW,
            "training__learning_rate_schedule": COSINE,
            "training__accumulation": 4,
            "training__patience": 3,
            "training__evaluate_every": 4,
            "training__max_steps": 12,
            "diagnostics__num_traces": 2,
            "seeds": [0, 1],
        }
        | changes
    )


@pytest.mark.slow
@pytest.mark.parametrize("dropout", DROPOUTS)
def test_a_killed_trial_with_dropout_schedule_and_accumulation_goes_on_bit_for_bit(
    dropout: str, adding: Any, spec_of: Any
) -> None:
    spec = with_all(spec_of, dropout)
    expected, whole = finished(spec, adding)
    result, interrupted = killed_and_resumed(spec, adding, 7)
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces", "eigenvalues"):
        assert sorted_rows(interrupted, table) == sorted_rows(whole, table)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", ["layers", "zoneout", "variational", "inputs"])
def test_a_replica_and_a_setting_are_alone_what_they_are_among_others(dropout: str, adding: Any, spec_of: Any) -> None:
    several = finished(with_all(spec_of, dropout), adding)
    single = finished(with_all(spec_of, dropout, seeds=[1]), adding)
    assert rows_of(several[0])[1] == rows_of(single[0])[0]
    assert sorted_rows(several[1], "curves", [1]) == sorted_rows(single[1], "curves")
    specs = [with_all(spec_of, dropout, seeds=[1], optimiser=ADAMW | {"learning_rate": rate}) for rate in (0.01, 0.0)]
    for spec, mine in zip(specs, packed(specs, adding), strict=True):
        assert same(mine, alone(spec, adding))


def test_dropout_changes_training_and_nothing_that_is_measured_of_the_untrained_network(
    adding: Any, spec_of: Any
) -> None:
    tables = [finished(with_all(spec_of, name), adding)[1].tables() for name in ("layers", "inputs")]
    for split, agrees in (("validation", True), ("train", False)):
        losses = [curve(each, "loss", seed=1, split=split) for each in tables]
        assert (losses[0][0] == losses[1][0]) == agrees  # the first of validation is of step 0


def in_decibels(adding: Any) -> Any:
    """The data with every second target -100, which is a number like any other where targets are real."""
    splits = {name: dataclasses.replace(split, targets=split.targets.copy()) for name, split in adding.splits.items()}
    for split in splits.values():
        split.targets[::2] = -100.0
    return dataclasses.replace(adding, splits=splits)


@pytest.mark.parametrize("count", [4, *slowly(2, 16)])
@pytest.mark.parametrize("data", ["adding", "decibels", "symbols", "ragged", "one class", "reversal"])
def test_the_portions_of_a_batch_give_the_gradient_of_the_batch(
    count: int, data: str, request: pytest.FixtureRequest, spec_of: Any
) -> None:
    made = {"ragged": letter_before, "one class": first_letter, "reversal": reversal}
    made["decibels"] = lambda: in_decibels(request.getfixturevalue("adding"))
    dataset = made[data]() if data in made else request.getfixturevalue(data)
    rule = {"optimiser": {"name": "sgd", "learning_rate": 1.0}, "clipping": {"name": "none"}}
    whole, parted = (
        exact_trial(small(spec_of, **rule, training__accumulation=portions), dataset) for portions in (1, count)
    )
    runs = []
    for trial in (whole, parted):
        if torch.is_tensor(trial.step.train.inputs) and trial.step.train.inputs.is_floating_point():
            trial.step.train = type(trial.step.train)(*(tensor.double() for tensor in trial.step.train))
        batch = trial.step.batch_of(trial.step.windows.at(0))
        runs.append(trial.step.backpropagate(trial.progress.state.flat_RP, batch))
    torch.testing.assert_close(runs[1].losses, runs[0].losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(runs[1].grad_RP, runs[0].grad_RP, rtol=1e-9, atol=1e-14)


def test_the_portions_of_a_window_carry_their_states_and_a_penalty_is_of_the_batch(symbols: Any, spec_of: Any) -> None:
    rule = {"optimiser": {"name": "sgd", "learning_rate": 1.0}, "clipping": {"name": "none"}}
    for more in ({}, {"regularisation": {"name": "vanishing_gradient", "weight": 4.0}}):
        specs = [
            spec_of(**rule, **more, training__truncation=truncated(4, 4), training__accumulation=n) for n in (1, 4)
        ]
        one, four = (displaced(spec, symbols, 6) for spec in specs)
        torch.testing.assert_close(four, one, rtol=1e-9, atol=1e-14)


@pytest.mark.slow
def test_clipping_in_the_recurrence_is_of_each_example_in_whatever_portion(adding: Any, spec_of: Any) -> None:
    inside = {
        "clipping": {"name": "state_norm", "threshold": 0.001},
        "optimiser": {"name": "sgd", "learning_rate": 1.0},
    }
    one, four = (finished(spec_of(**inside, training__accumulation=n), adding)[1].tables() for n in (1, 4))
    for metric in ("grad_norm", "clipped_grad_norm"):
        a, b = (torch.as_tensor(curve(tables, metric)) for tables in (one, four))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=0)
        assert len(a) == 30
    assert (curve(one, "clipped_grad_norm") < curve(one, "grad_norm")).all()


def test_an_update_that_fails_in_a_late_portion_says_where(adding: Any, spec_of: Any) -> None:
    wild = {
        "model__cell": "elman_relu",
        "optimiser": {"name": "sgd", "learning_rate": 3.0},
        "clipping": {"name": "none"},
        "training__max_steps": 60,
        "training__accumulation": 4,
    }
    rows = run_trial(spec_of(**wild), adding, MemorySink()).rows
    diverged = [row for row in rows if row["status"] == "diverged"]
    assert diverged
    assert all("entries of the gradient are not finite" in row["status_message"] for row in diverged)


def test_schedules_are_their_formulas() -> None:
    constant = ConstantRate(warmup_steps=4)
    assert [constant.factor(step, 100) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert ConstantRate(warmup_steps=0).factor(0, 100) == 1.0
    linear = LinearRate(warmup_steps=2, final=0.5)
    assert [linear.factor(step, 12) for step in (0, 1, 2, 11)] == [0.5, 1.0, 1.0, 0.5]
    cosine = CosineRate(warmup_steps=0, final=0.1)
    assert cosine.factor(0, 11) == 1.0
    assert cosine.factor(5, 11) == pytest.approx(0.55)
    assert cosine.factor(10, 11) == pytest.approx(0.1)
    step = StepRate(warmup_steps=1, decay=0.5, every=3)
    assert [step.factor(at, 50) for at in (0, 1, 3, 4, 7)] == [1.0, 1.0, 1.0, 0.5, 0.25]
    assert LinearRate(warmup_steps=9, final=0.0).factor(0, 1) == pytest.approx(1 / 9)


def test_the_rate_of_each_update_is_the_scheduled_one(adding: Any, spec_of: Any) -> None:
    rates = {"learning_rate": 0.5, "name": "sgd"}
    spec = spec_of(optimiser=rates, training__learning_rate_schedule=COSINE, training__max_steps=8)
    trial, norms = exact_trial(spec, adding), []
    trial.step.train = type(trial.step.train)(*(tensor.double() for tensor in trial.step.train))
    for step in range(8):
        trial.progress.state, update = trial.step(trial.progress.state)
        moved = (trial.progress.state.flat_RP - update.before_RP).norm(dim=1)
        expected = 0.5 * CosineRate(warmup_steps=5, final=0.1).factor(step, 8)
        torch.testing.assert_close(moved, expected * update.metrics["clipped_grad_norm"], rtol=1e-9, atol=0)
        torch.testing.assert_close(update.metrics["learning_rate"], torch.full_like(moved, expected))
        norms.append(expected)
    assert len({*norms}) == 7  # the last of the warm-up is the first of the cosine


def test_weight_decay_is_torchs_adamw_of_each_replica(adding: Any, spec_of: Any) -> None:
    trial = exact_trial(spec_of(optimiser=ADAMW, seeds=[0, 1]), adding)
    trial.step.train = type(trial.step.train)(*(tensor.double() for tensor in trial.step.train))
    own = [nn.Parameter(row.clone()) for row in trial.progress.state.flat_RP]
    options = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    references = [torch.optim.AdamW([parameter], **options) for parameter in own]  # type: ignore[arg-type]
    for _ in range(5):
        state = trial.progress.state
        trial.progress.state, update = trial.step(state)
        for r, reference in enumerate(references):
            own[r].grad = trial.progress.state.flat_RP.grad[r].clone()  # type: ignore[index]
            reference.step()
            torch.testing.assert_close(own[r].data, trial.progress.state.flat_RP[r].data, rtol=1e-12, atol=0)
        assert not update.failed_R.any()


def test_without_a_rate_nothing_moves_and_all_is_measured(adding: Any, spec_of: Any) -> None:
    result, sink = finished(spec_of(optimiser={"name": "sgd", "learning_rate": 0.0}), adding)
    assert {(row["status"], row["best_step"], row["num_steps"]) for row in result.rows} == {("ok", 0, 30)}
    for seed in range(3):
        losses = curve(sink.tables(), "loss", seed, split="validation")
        assert len(losses) == 4
        assert (losses == losses[0]).all()


@pytest.mark.slow
def test_patience_freezes_a_replica_that_gets_no_better_and_leaves_the_others(adding: Any, spec_of: Any) -> None:
    changes = {"training__evaluate_every": 2, "training__max_steps": 60}
    rates = {"optimiser": {"name": "sgd", "learning_rate": 0.3}, "clipping": {"name": "none"}}
    patient, (impatient, sink) = (
        finished(spec_of(**changes, **rates, training__patience=patience), adding) for patience in (None, 3)
    )
    stopped = [row for row in impatient.rows if row["num_steps"] < 60]
    assert stopped, "some replica of this test should get no better for a while"
    assert len({row["num_steps"] for row in impatient.rows}) > 1
    for row, whole in zip(impatient.rows, patient[0].rows, strict=True):
        if row in stopped:
            assert row["num_steps"] - row["best_step"] == 6
            assert row["status"] == "ok"
            assert row["status_message"].startswith("stopped early: none of 3 evaluations was better")
        else:
            assert row["best_step"] == whole["best_step"]
    curves = sink.tables()["curves"]
    for row in stopped:
        assert curves["step"][curves["seed"] == row["seed"]].max() == row["num_steps"]


def test_what_is_without_an_option_has_the_meaning_it_had_before_there_was_one(spec_of: Any) -> None:
    spec = spec_of()
    said = spec_of(
        model__dropout={"name": "none"},
        training__patience=None,
        training__accumulation=1,
        training__learning_rate_schedule={"name": "constant", "warmup_steps": 0},
    )
    assert trial_id(said, "digest") == trial_id(spec, "digest")
    assert not {"dropout"} & {*plain(said)["model"]}
    assert not {"patience", "accumulation", "learning_rate_schedule"} & {*plain(said)["training"]}
    others = [spec_of(training__patience=2), spec_of(training__accumulation=2), with_all(spec_of, "layers")]
    assert len({trial_id(each, "digest", "code") for each in (spec, *others)}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__accumulation": 3}, r"training\.accumulation: expected a divisor of batch_size \(16\), got 3"),
        ({"training__patience": 0}, r"training\.patience: expected null, or an integer of at least 1"),
        (
            {"training__learning_rate_schedule": {"name": "cosin", "warmup_steps": 0, "final": 0.0}},
            "unknown name 'cosin'; did you mean 'cosine'",
        ),
        (
            {"training__learning_rate_schedule": {"name": "linear", "warmup_steps": -1, "final": 0.0}},
            r"learning_rate_schedule\.warmup_steps: expected an integer of at least 0",
        ),
        (
            {"training__learning_rate_schedule": {"name": "step", "warmup_steps": 0, "decay": 0.0, "every": 1}},
            r"learning_rate_schedule\.decay: expected a factor in \(0, 1\]",
        ),
        ({"optimiser": ADAMW | {"weight_decay": -1.0}}, r"optimiser\.weight_decay: expected a number in \[0, 1\)"),
        (
            {"model__dropout": DROPOUTS["inputs"], "regularisation": {"name": "vanishing_gradient", "weight": 1.0}},
            r"model\.dropout: expected none, beside a penalty",
        ),
        (
            {"model__dropout": {"name": "zoneout", "hidden": 0.1, "cell": 0.0}, "diagnostics__measures": ["jacobians"]},
            r"diagnostics\.measures: expected measures of a cell's own step",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_by_key(changes: dict[str, Any], message: str, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(**changes)


HALVED = {"training__autocast": "bfloat16", "diagnostics__gradient_check_tolerance": 0.03}


def test_products_are_rounded_to_bfloat16_and_their_sums_are_not() -> None:
    a, b = torch.randn(5, 7, 3), torch.randn(5, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found, alone = torch.vmap(matmul)(a, b), matmul(a, b)
    assert found.dtype == alone.dtype == torch.float32
    expected = (a.bfloat16().double() @ b.bfloat16().double()).float()
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=1e-6)
    assert torch.equal(found, found.bfloat16().float())
    assert not torch.allclose(found, a @ b, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("custom", [False, True])
def test_under_autocast_the_gradient_strays_as_far_as_is_stated(custom: bool, adding: Any, spec_of: Any) -> None:
    own = {"model": {"name": "custom", "import": "tests.own_models:Two"}} if custom else {"model__cell": "lstm"}
    rounded, exact = (finished(spec_of(**own, **more), adding)[0] for more in (HALVED, {}))
    for one, other in zip(rounded.rows, exact.rows, strict=True):
        assert 1e-4 < one["gradient_check_error"] < 0.03
        assert other["gradient_check_error"] < 1e-5
        assert one["status"] == other["status"]
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=0.2)
        assert one["test_loss"] != other["test_loss"]


@pytest.mark.slow
def test_a_killed_trial_under_autocast_goes_on_bit_for_bit_and_is_packed_with_its_like(
    adding: Any, spec_of: Any
) -> None:
    changes = HALVED | {"training__max_steps": 12, "training__evaluate_every": 4, "seeds": [0, 1]}
    spec = spec_of(model__cell="gru", **changes)
    expected, _ = finished(spec, adding)
    assert rows_of(killed_and_resumed(spec, adding, 7)[0]) == rows_of(expected)
    specs = [spec, spec_of(model__cell="gru", **changes | {"training__autocast": None})]
    for each, mine in zip(specs, packed(specs, adding), strict=True):
        assert same(mine, alone(each, adding))


def test_a_tolerance_below_that_of_bfloat16_is_refused(spec_of: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"gradient_check_tolerance: expected at least 0\.03, with training\.autocast"
    ):
        spec_of(training__autocast="bfloat16")
