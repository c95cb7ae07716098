"""Models against plain torch modules, and replica batches against their networks one by one."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.cells import CELLS
from pipeline.core.cells.stack import stack_states
from pipeline.core.models import (
    Interface,
    ModelSpec,
    Replicas,
    RunOptions,
    SequenceModel,
    count_parameters,
    loss,
    num_wrong,
)
from tests.core.cells.reference import IN_TORCH

B, T, H = 4, 6, 5
REAL_LAST = Interface(input_kind="real", input_size=2, target_at="last", target_kind="value", output_size=1)
TOKEN_EVERY = Interface(input_kind="token", input_size=7, target_at="every", target_kind="class", output_size=3)


def model_of(
    interface: Interface, cell: str = "lstm", embedding_size: int | None = None, seed: int = 0
) -> SequenceModel:
    return SequenceModel(
        interface, ModelSpec.plain(cell=cell, hidden_size=H, embedding_size=embedding_size), seed
    ).double()


def data_of(interface: Interface) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    if interface is REAL_LAST:
        inputs = torch.randn(B, T, 2, generator=generator, dtype=torch.float64)
        return inputs, torch.randn(B, 1, generator=generator, dtype=torch.float64)
    inputs = torch.randint(0, 7, (B, T), generator=generator).to(torch.uint8)
    return inputs, torch.randint(0, 3, (B, T), generator=generator)


def plain_predictions(model: SequenceModel, x_BTD: Tensor) -> Tensor:
    """The same network in torch.nn, batch first."""
    plain = nn.LSTM(x_BTD.shape[2], H, batch_first=True).double()
    plain.load_state_dict(model.recurrent.state_dict())
    return model.readout(plain(x_BTD)[0])


def test_many_to_one_reads_out_the_last_timestep() -> None:
    model, (inputs, targets) = model_of(REAL_LAST), data_of(REAL_LAST)
    expected = plain_predictions(model, inputs)[:, -1]
    torch.testing.assert_close(model(inputs).values, expected, rtol=1e-12, atol=1e-12)
    squared = ((expected - targets) ** 2).mean()
    torch.testing.assert_close(loss(REAL_LAST, model(inputs).values, targets), squared, rtol=1e-12, atol=0)


@pytest.mark.parametrize("embedding_size", [None, 4])
def test_many_to_many_reads_out_every_timestep(embedding_size: int | None) -> None:
    model, (inputs, targets) = model_of(TOKEN_EVERY, embedding_size=embedding_size), data_of(TOKEN_EVERY)
    one_hot = nn.functional.one_hot(inputs.long(), 7).double()
    x = one_hot if model.embedding is None else one_hot @ model.embedding.weight
    expected = plain_predictions(model, x)
    torch.testing.assert_close(model(inputs).values, expected, rtol=1e-12, atol=1e-12)
    picked = -expected.log_softmax(-1).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(loss(TOKEN_EVERY, model(inputs).values, targets), picked, rtol=1e-12, atol=0)
    assert num_wrong(TOKEN_EVERY, expected, targets) == (expected.argmax(-1) != targets).sum()


@pytest.mark.parametrize("interface", [REAL_LAST, TOKEN_EVERY])
@pytest.mark.parametrize("cell", IN_TORCH)
def test_a_replica_batch_gives_what_its_networks_give_one_by_one(interface: Interface, cell: str) -> None:
    models = [model_of(interface, cell, seed=seed) for seed in range(3)]
    inputs, targets = data_of(interface)
    replicas = Replicas(models)
    predictions = replicas.predict(replicas.named(replicas.flat_RP), inputs)
    run = replicas.backpropagate(replicas.flat_RP, inputs, targets, shared=True)
    losses, grads = run.losses, run.grad_RP
    for r, model in enumerate(models):
        torch.testing.assert_close(predictions[r], model(inputs).values, rtol=1e-12, atol=1e-12)
        alone = loss(interface, model(inputs).values, targets)
        torch.testing.assert_close(losses[r], alone, rtol=1e-12, atol=0)
        expected = torch.autograd.grad(alone, list(model.parameters()))
        flat = torch.cat([grad.flatten() for grad in expected])
        torch.testing.assert_close(grads[r], flat, rtol=1e-10, atol=1e-14)


def test_each_replica_may_have_its_own_batch() -> None:
    models = [model_of(REAL_LAST, seed=seed) for seed in range(2)]
    inputs, targets = data_of(REAL_LAST)
    replicas = Replicas(models)
    own = torch.stack([inputs, inputs.flip(0) * 2])
    losses = replicas.backpropagate(replicas.flat_RP, own, torch.stack([targets, targets])).losses
    for r in range(2):
        torch.testing.assert_close(losses[r], loss(REAL_LAST, models[r](own[r]).values, targets), rtol=1e-12, atol=0)


def test_named_views_are_the_flat_tensor() -> None:
    replicas = Replicas([model_of(REAL_LAST, seed=seed) for seed in range(2)])
    views = replicas.named(replicas.flat_RP)
    assert sum(view[0].numel() for view in views.values()) == replicas.num_parameters
    views["readout.bias"].fill_(7.0)
    assert (replicas.flat_RP == 7.0).sum() == 2


def test_one_seed_draws_the_same_weights_whatever_else_is_drawn() -> None:
    first, second = (model_of(REAL_LAST, cell="elman", seed=4) for _ in range(2))
    other = model_of(REAL_LAST, cell="elman", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    gated = model_of(REAL_LAST, cell="gru", seed=4)  # arms are paired: what is between does not change the readout
    assert torch.equal(gated.readout.weight, first.readout.weight)
    bound = H**-0.5
    assert all(parameter.abs().max() <= bound for parameter in first.parameters())


@pytest.mark.parametrize(("num_layers", "bidirectional", "embedding_size"), [(1, False, None), (3, True, 4)])
@pytest.mark.parametrize("cell", IN_TORCH)
def test_parameters_are_counted_without_making_the_model(
    cell: str, num_layers: int, bidirectional: bool, embedding_size: int | None
) -> None:
    spec = ModelSpec.plain(
        cell=cell, hidden_size=H, num_layers=num_layers, bidirectional=bidirectional, embedding_size=embedding_size
    )
    model = SequenceModel(TOKEN_EVERY, spec, 0)
    assert count_parameters(TOKEN_EVERY, spec) == sum(parameter.numel() for parameter in model.parameters())


def test_a_bidirectional_network_reads_out_what_each_direction_ends_with() -> None:
    model = SequenceModel(REAL_LAST, ModelSpec.plain(cell="gru", hidden_size=H, bidirectional=True), 0).double()
    inputs, _ = data_of(REAL_LAST)
    plain = nn.GRU(2, H, batch_first=True, bidirectional=True).double()
    plain.load_state_dict(model.recurrent.state_dict())
    _, final = plain(inputs)
    expected = model.readout(torch.cat([final[0], final[1]], dim=1))
    torch.testing.assert_close(model(inputs).values, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cell", IN_TORCH)
def test_a_pass_from_a_carried_state_scores_the_newest_timesteps_only(cell: str) -> None:
    spec = ModelSpec.plain(cell=cell, hidden_size=H, num_layers=2)
    models = [SequenceModel(TOKEN_EVERY, spec, seed).double() for seed in range(2)]
    replicas, (inputs, targets) = Replicas(models), data_of(TOKEN_EVERY)
    own_inputs, own_targets = (torch.stack([tensor] * 2) for tensor in (inputs, targets))
    carried = replicas.advance(replicas.named(replicas.flat_RP), own_inputs[:, :, :3])
    run = replicas.backpropagate(
        replicas.flat_RP,
        own_inputs[:, :, 3:],
        own_targets[:, :, 4:],
        RunOptions(initial=carried, num_scored=2),
        trace=True,
    )
    for r, model in enumerate(models):
        before = model.recurrent(model.encode(inputs[:, :3]).transpose(0, 1)).final
        held = [state.detach() for state in stack_states(before)]
        expected = loss(TOKEN_EVERY, model(inputs[:, 3:], RunOptions(initial=held)).values[:, -2:], targets[:, 4:])
        torch.testing.assert_close(run.losses[r], expected, rtol=1e-12, atol=0)
        grads = torch.autograd.grad(expected, list(model.parameters()))
        flat = torch.cat([grad.flatten() for grad in grads])
        torch.testing.assert_close(run.grad_RP[r], flat, rtol=1e-10, atol=1e-14)
    whole = replicas.unroll(replicas.named(replicas.flat_RP), inputs)[2]
    for mine, expected in zip(run.states, whole, strict=True):
        torch.testing.assert_close(mine, expected[:, 3:], rtol=1e-12, atol=1e-14)
    assert tuple(run.grad_states) == replicas.model.tap_keys


@pytest.mark.parametrize("cell", IN_TORCH)
def test_a_replica_batch_has_the_second_derivatives_of_its_networks_one_by_one(cell: str) -> None:
    models = [model_of(TOKEN_EVERY, cell, embedding_size=3, seed=seed) for seed in (0, 1)]
    replicas, (inputs, targets) = Replicas(models), data_of(TOKEN_EVERY)
    leaves = {name: view.detach().requires_grad_() for name, view in replicas.named(replicas.flat_RP).items()}
    losses, _, _ = replicas.losses(leaves, inputs, targets, shared=True)
    first = torch.autograd.grad(losses.sum(), list(leaves.values()), create_graph=True)
    packed = torch.autograd.grad(sum(each.square().sum() for each in first), list(leaves.values()))
    for r, model in enumerate(models):
        own = dict(model.named_parameters())
        wanted = [own[name] for name in leaves]
        alone = torch.autograd.grad(loss(TOKEN_EVERY, model(inputs).values, targets), wanted, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in alone), wanted)
        for mine, expected in zip(packed, second, strict=True):
            torch.testing.assert_close(mine[r], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_network_can_be_pickled_copied_and_saved_whole(cell: str) -> None:
    model, (inputs, _) = model_of(TOKEN_EVERY, cell), data_of(TOKEN_EVERY)
    expected, buffer = model(inputs).values, io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), torch.load(buffer, weights_only=False)]  # noqa: S301
    for other in copies:
        assert torch.equal(other(inputs).values, expected)
        assert other.stacks["recurrent"] is other.recurrent
