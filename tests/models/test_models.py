"""Models against plain torch modules, and packs against their networks one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.models import Interface, Replicas, SequenceModel, loss, num_wrong

B, T, H = 4, 6, 5
REAL_LAST = Interface("real", 2, "last", "value", 1)
TOKEN_EVERY = Interface("token", 7, "every", "class", 3)


def model_of(
    interface: Interface, cell: str = "lstm", embedding_size: int | None = None, seed: int = 0
) -> SequenceModel:
    return SequenceModel(interface, cell, H, embedding_size, seed).double()


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
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)
    squared = ((expected - targets) ** 2).mean()
    torch.testing.assert_close(loss(REAL_LAST, model(inputs), targets), squared, rtol=1e-12, atol=0)


@pytest.mark.parametrize("embedding_size", [None, 4])
def test_many_to_many_reads_out_every_timestep(embedding_size: int | None) -> None:
    model, (inputs, targets) = model_of(TOKEN_EVERY, embedding_size=embedding_size), data_of(TOKEN_EVERY)
    one_hot = nn.functional.one_hot(inputs.long(), 7).double()
    x = one_hot if model.embedding is None else one_hot @ model.embedding.weight
    expected = plain_predictions(model, x)
    torch.testing.assert_close(model(inputs), expected, rtol=1e-12, atol=1e-12)
    picked = -expected.log_softmax(-1).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(loss(TOKEN_EVERY, model(inputs), targets), picked, rtol=1e-12, atol=0)
    assert num_wrong(expected, targets) == (expected.argmax(-1) != targets).sum()


@pytest.mark.parametrize("interface", [REAL_LAST, TOKEN_EVERY])
@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_a_pack_gives_what_its_networks_give_one_by_one(interface: Interface, cell: str) -> None:
    models = [model_of(interface, cell, seed=seed) for seed in range(3)]
    inputs, targets = data_of(interface)
    pack = Replicas(models)
    predictions = pack.predict(pack.named(pack.flat_RP), inputs)
    losses, grads = pack.gradients(pack.flat_RP, inputs, targets, shared=True)
    for r, model in enumerate(models):
        torch.testing.assert_close(predictions[r], model(inputs), rtol=1e-12, atol=1e-12)
        alone = loss(interface, model(inputs), targets)
        torch.testing.assert_close(losses[r], alone, rtol=1e-12, atol=0)
        expected = torch.autograd.grad(alone, list(model.parameters()))
        flat = torch.cat([grad.flatten() for grad in expected])
        torch.testing.assert_close(grads[r], flat, rtol=1e-10, atol=1e-14)


def test_each_replica_may_have_its_own_batch() -> None:
    models = [model_of(REAL_LAST, seed=seed) for seed in range(2)]
    inputs, targets = data_of(REAL_LAST)
    pack = Replicas(models)
    own = torch.stack([inputs, inputs.flip(0) * 2])
    losses, _ = pack.gradients(pack.flat_RP, own, torch.stack([targets, targets]))
    for r in range(2):
        torch.testing.assert_close(losses[r], loss(REAL_LAST, models[r](own[r]), targets), rtol=1e-12, atol=0)


def test_named_views_are_the_flat_tensor() -> None:
    pack = Replicas([model_of(REAL_LAST, seed=seed) for seed in range(2)])
    views = pack.named(pack.flat_RP)
    assert sum(view[0].numel() for view in views.values()) == pack.num_parameters
    views["readout.bias"].fill_(7.0)
    assert (pack.flat_RP == 7.0).sum() == 2


def test_one_seed_draws_the_same_weights_whatever_else_is_drawn() -> None:
    first, second = (model_of(REAL_LAST, cell="elman", seed=4) for _ in range(2))
    other = model_of(REAL_LAST, cell="elman", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    gated = model_of(REAL_LAST, cell="gru", seed=4)  # arms are paired: what is between does not change the readout
    assert torch.equal(gated.readout.weight, first.readout.weight)
    bound = H**-0.5
    assert all(parameter.abs().max() <= bound for parameter in first.parameters())
