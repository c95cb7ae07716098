"""TBPTT(k1, k2) against torch.nn with states detached by hand, and against full backpropagation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.models import RunOptions
from pipeline.core.training import MemorySink, TrialSpec, run_trial
from pipeline.core.training.data import Sequences
from pipeline.core.training.loop import Trial, train
from pipeline.core.training.schedule import Truncation, Windows
from pipeline.errors import ConfigError
from tests.core.slowly import mostly, slowly
from tests.core.training.sequences import finished
from tests.core.training.test_trial import killed_and_resumed, rows_of, sorted_rows

T = 12  # of the `symbols` fixture
RATE = 0.5
TORCH_NN = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def truncated(k1: int, k2: int) -> dict[str, int]:
    return {"update_every": k1, "backward_length": k2}


def exact_trial(spec: TrialSpec, data: Any) -> Trial:
    """A trial that trains in float64, so that it can be compared to the last digits."""
    trial = Trial(spec, data, MemorySink(), device=torch.device("cpu"))
    trial.progress.state = trial.step.start(trial.replicas.flat_RP.double())
    return trial


class Reference(nn.Module):
    """The same network in torch.nn, with the update of plain SGD."""

    def __init__(self, cell: str, num_layers: int, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.recurrent = TORCH_NN[cell](4, 6, num_layers, batch_first=True).double()
        self.readout = nn.Linear(6, 4).double()
        self.load_state_dict(parameters)

    def start(self, num_examples: int) -> Any:
        h = torch.zeros(self.recurrent.num_layers, num_examples, 6, dtype=torch.float64)
        return (h, h) if isinstance(self.recurrent, nn.LSTM) else h

    def run(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, state = self.recurrent(F.one_hot(ids.long(), 4).double(), state)
        return self.readout(outputs), state

    def update(self, loss: Tensor) -> None:
        grads = torch.autograd.grad(loss, list(self.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(self.parameters(), grads, strict=True):
                parameter -= RATE * grad

    def flat(self, names: list[str]) -> Tensor:
        named = dict(self.named_parameters())
        return torch.cat([named[name].detach().flatten() for name in names])


def detached(state: Any) -> Any:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def reference_step(model: Reference, ids: Tensor, targets: Tensor, k1: int, k2: int, chunk: int, before: Any) -> Any:
    """One update at the end of `chunk`, from the state before its window; returns the state before the next one."""
    stop = min((chunk + 1) * k1, T)
    first = max(0, stop - k2)
    following = max(0, min(stop + k1, T) - k2)
    with torch.no_grad():  # what the next window starts from, under the weights of this one
        after = before if following == first else model.run(ids[:, first:following], before)[1]
    predictions, _ = model.run(ids[:, first:stop], before)
    newest = stop - chunk * k1
    predicted, true = predictions[:, -newest:].flatten(0, 1), targets[:, stop - newest : stop].flatten()
    model.update(F.cross_entropy(predicted, true, reduction="sum") / (len(ids) * T))  # every timestep weighs the same
    return detached(after)


@pytest.mark.parametrize(
    "lengths", [(1, 1), (3, 7), *slowly((4, 4), (5, 5), (1, 5), (4, 12), (12, 12), (5, 40))], ids=str
)
@pytest.mark.parametrize(("cell", "num_layers"), [("elman", 1), ("lstm", 2), ("gru", 1)])
def test_updates_are_those_of_a_plain_loop(
    cell: str, num_layers: int, lengths: tuple[int, int], symbols: Any, spec_of: Any
) -> None:
    k1, k2 = lengths
    spec = spec_of(
        model__cell=cell, model__num_layers=num_layers, training__truncation=truncated(k1, k2),
        optimiser={"name": "sgd", "learning_rate": RATE}, clipping={"name": "none"}, seeds=[3, 5],
    )  # fmt: skip
    trial = exact_trial(spec, symbols)
    step_of, state = trial.step, trial.progress.state
    names = list(trial.replicas.shapes)
    start = [{name: view[r] for name, view in trial.replicas.named(state.flat_RP.clone()).items()} for r in (0, 1)]
    models = [Reference(cell, num_layers, parameters) for parameters in start]
    num_chunks = -(-T // k1)
    num_steps = 2 * num_chunks + 1  # over the end of two batches
    for _ in range(num_steps):
        state, _ = step_of(state)
    for r, model in enumerate(models):
        before = model.start(spec.training.batch_size)
        for step in range(num_steps):
            batch, chunk = divmod(step, num_chunks)
            chosen = step_of.order.indices(batch)[r]
            ids, targets = step_of.train.inputs[chosen], step_of.train.targets[chosen]
            before = model.start(len(ids)) if chunk == 0 else before
            before = reference_step(model, ids, targets, k1, k2, chunk, before)
        torch.testing.assert_close(state.flat_RP[r], model.flat(names), rtol=1e-9, atol=1e-12)


def displaced(spec: TrialSpec, data: Any, num_steps: int) -> Tensor:
    """How far the weights move in as many updates, if each of them finds the initial ones, (R, P) in units of the rate.

    By plain SGD without clipping: minus the sum of the gradients, as the trial itself has them.
    """
    trial = exact_trial(spec, data)
    step_of, state = trial.step, trial.progress.state
    start = state.flat_RP.clone()
    moved = torch.zeros_like(start)
    for _ in range(num_steps):
        state, update = step_of(state)
        assert not update.failed_R.any()
        moved += state.flat_RP - start
        state.flat_RP.copy_(start)
    return moved


@pytest.mark.parametrize(("cell", "num_layers"), [("lstm", 1), ("gru", 2), ("elman", 1)])
@pytest.mark.parametrize("k1", mostly(range(1, 13), 5, 12))
def test_every_timestep_weighs_the_same_whatever_k1_so_that_a_sequences_updates_sum_to_the_full_gradient(
    cell: str, num_layers: int, k1: int, symbols: Any, spec_of: Any
) -> None:
    plain = {
        "model__cell": cell, "model__num_layers": num_layers,
        "optimiser": {"name": "sgd", "learning_rate": 1.0}, "clipping": {"name": "none"},
    }  # fmt: skip
    full = displaced(spec_of(**plain), symbols, 1)
    for k2 in (T, 40):
        summed = displaced(spec_of(**plain, training__truncation=truncated(k1, k2)), symbols, -(-T // k1))
        cosine = F.cosine_similarity(summed, full, dim=1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-14, atol=0)
        torch.testing.assert_close(summed.norm(dim=1) / full.norm(dim=1), torch.ones_like(cosine), rtol=1e-12, atol=0)
        torch.testing.assert_close(summed, full, rtol=1e-9, atol=1e-14)


def test_a_penalty_weighs_beside_the_loss_of_a_window_as_beside_the_whole_loss(symbols: Any, spec_of: Any) -> None:
    """Two windows of the same timesteps: scored 4 of 12, the gradient of loss and penalty is a third of its mean's."""
    weighed = {"regularisation": {"name": "vanishing_gradient", "weight": 4.0}}
    trial = exact_trial(spec_of(training__truncation=truncated(4, 4), **weighed), symbols)
    step_of, start = trial.step, trial.progress.state
    window = step_of.windows.at(0)
    grads = []
    for weight in (1.0, window.weight):
        options = RunOptions(num_scored=window.num_scored, loss_weight=weight)
        run = step_of.backpropagate(start.flat_RP, step_of.batch_of(window), options)
        grads.append(trial.spec.regularisation.penalise(trial.replicas, start.flat_RP, run)[0])
    torch.testing.assert_close(3 * grads[1], grads[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("data", ["adding", "symbols"])
def test_k2_over_the_sequence_with_one_update_is_full_backpropagation_bit_for_bit(
    data: str, request: pytest.FixtureRequest, spec_of: Any
) -> None:
    dataset, sink = request.getfixturevalue(data), MemorySink()
    full, whole = finished(spec_of(), dataset)
    covered = run_trial(spec_of(training__truncation=truncated(50, 50)), dataset, sink)
    assert rows_of(full) == rows_of(covered)
    assert sorted_rows(whole, "curves") == sorted_rows(sink, "curves")


def test_a_target_at_the_end_is_truncated_from_the_end(adding: Any, spec_of: Any) -> None:
    spec = spec_of(model__cell="gru", training__truncation=truncated(3, 3), clipping={"name": "none"})
    trial = exact_trial(spec, adding)
    step_of, start = trial.step, trial.progress.state
    step_of.train = Sequences(*(tensor.double() for tensor in step_of.train))
    window = step_of.windows.at(7)
    assert window == (7, 7, 10, None, 1.0, 0)
    batch, state = step_of.batch_of(window), step_of.states_before(window, start)
    assert batch.inputs.shape[2] == 3
    run = step_of.backpropagate(start.flat_RP, batch, RunOptions(initial=state))
    chosen = step_of.order.indices(7)
    for r in range(3):
        model = nn.GRU(2, 6, batch_first=True).double()
        named = {name: view[r] for name, view in trial.replicas.named(start.flat_RP).items()}
        model.load_state_dict({n.removeprefix("recurrent."): v for n, v in named.items() if n.startswith("recurrent")})
        x, y = (tensor[chosen[r]].double() for tensor in step_of.train)
        _, before = model(x[:, :7])
        outputs, _ = model(x[:, 7:], before.detach())
        predicted = outputs[:, -1] @ named["readout.weight"].T + named["readout.bias"]
        grad = torch.autograd.grad(F.mse_loss(predicted, y), model.weight_hh_l0)[0]
        mine = trial.replicas.named(run.grad_RP)["recurrent.weight_hh_l0"][r]
        torch.testing.assert_close(mine, grad, rtol=1e-9, atol=1e-12)


def test_the_state_before_a_target_at_the_end_is_of_the_present_batch_and_weights(adding: Any, spec_of: Any) -> None:
    spec = spec_of(
        model__cell="lstm", training__truncation=truncated(3, 3), optimiser={"name": "sgd", "learning_rate": 1.0}
    )
    trial = exact_trial(spec, adding)
    step_of, state = trial.step, trial.progress.state
    step_of.train = Sequences(*(tensor.double() for tensor in step_of.train))
    for step in range(3):
        window = step_of.windows.at(step)
        chosen = step_of.train.inputs[step_of.order.indices(step)][:, :, :7]
        expected = trial.replicas.advance(trial.replicas.named(state.flat_RP), chosen)
        for mine, theirs in zip(step_of.states_before(window, state), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
        state, _ = step_of(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"training__truncation": truncated(2, 5), "model__cell": "lstm", "model__num_layers": 2},
        *slowly(
            {"clipping": {"name": "autoclip", "percentile": 10}},
            {"regularisation": {"name": "vanishing_gradient", "weight": 4.0}},
            {"clipping": {"name": "state_norm", "threshold": 0.01}},
        ),
    ],
)
def test_what_is_carried_from_update_to_update_survives_a_kill(changes: Any, symbols: Any, spec_of: Any) -> None:
    spec, whole = spec_of(**changes), MemorySink()
    expected = run_trial(spec, symbols, whole)
    result, resumed = killed_and_resumed(spec, symbols, 17)
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces"):
        assert sorted_rows(resumed, table) == sorted_rows(whole, table)


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 3), (2, 7), (7, 9)])
def test_windows_score_every_timestep_once_and_never_run_more_than_k2(k1: int, k2: int) -> None:
    windows = Windows(Truncation(k1, k2), 1000, "every")
    scored, start = [], 0
    for step in range(windows.per_batch):
        window = windows.at(step)
        assert window.batch == 0
        assert window.start == start
        assert window.stop - window.start <= k2
        assert window.num_scored is not None
        scored += range(window.stop - window.num_scored, window.stop)
        start = window.start + window.carry
    assert scored == list(range(1000))
    assert windows.at(windows.per_batch)[:2] == (1, 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training__truncation": truncated(0, 5)}, "update_every: expected an integer of at least 1"),
        (
            {"training__truncation": truncated(5, 4)},
            r"backward_length: expected an integer of at least update_every \(5\)",
        ),
        ({"training__truncation": truncated(2, 4), "model__bidirectional": True}, "nothing can be carried into"),
        (
            {
                "clipping": {"name": "state_norm", "threshold": 1.0},
                "regularisation": {"name": "vanishing_gradient", "weight": 1.0},
            },
            "clipping.name: expected a rule outside the recurrence beside a regulariser",
        ),
        ({"diagnostics__measures": ["gates"]}, "diagnostics.measures: expected measures that the cell 'elman' has"),
        (
            {"dataset": {"name": "adding", "length": 10, "unseen_lengths": [20, 10]}},
            "unseen_lengths: expected lengths, each once",
        ),
        (
            {"diagnostics__measures": ["truncation"], "model__bidirectional": True},
            r"\(diagnostics.measures: truncation\)",
        ),
    ],
)
def test_impossible_truncations_are_refused(changes: Any, told: str, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=told):
        spec_of(**changes)


def test_a_target_at_the_end_means_one_update_a_sequence(adding: Any, spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"update_every: expected backward_length \(5\): a target at the end"):
        run_trial(spec_of(training__truncation=truncated(2, 5)), adding, MemorySink())


def test_step_times_are_of_portions_of_training(adding: Any, spec_of: Any) -> None:
    trial = Trial(spec_of(), adding, MemorySink(), device=torch.device("cpu"))
    row = train(trial).rows[0]
    assert len(trial.progress.step_times_s) == row["num_timed_portions"] == 14  # of 29 updates, two at a time
    assert row["step_time_error_s"] > 0
    assert sum(trial.progress.step_times_s) * 2 < row["training_time_s"]
    assert row["step_time_s"] == pytest.approx(sum(trial.progress.step_times_s) / 14)


def test_the_criterion_may_be_an_error_and_real_targets_have_none(symbols: Any, adding: Any, spec_of: Any) -> None:
    spec = spec_of(
        training__stop_on="validation_error", training__stop_below=0.6, training__max_steps=200, model__hidden_size=16
    )
    rows = run_trial(spec, symbols, MemorySink()).rows
    assert all(row["reached_criterion"] and row["best_validation_error"] < 0.6 for row in rows)
    assert all(row["criterion_time_s"] > 0 for row in rows)
    with pytest.raises(ConfigError, match="training.stop_on: expected validation_loss, for real targets"):
        run_trial(spec, adding, MemorySink())
