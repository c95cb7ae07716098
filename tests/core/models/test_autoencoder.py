"""The autoencoder against torch's own layers; what passes through its code; traces of both halves; replica batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.models import INPUT, Interface, ModelSpec, Replicas, RunOptions, StateKey, loss
from pipeline.core.models.initialisation import PLAIN, Gaussian
from pipeline.core.models.sequence import Autoencoder
from pipeline.core.training.runtime import computing
from tests.core.cells.reference import IN_TORCH, in_torch

B, T, D, H, C = 3, 5, 4, 6, 2
INTERFACE = Interface(input_kind="real", input_size=D, target_at="sequence", target_kind="value", output_size=D)
FRAMES = torch.rand(B, T, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KINDS = [*((name, 1) for name in IN_TORCH), ("gru", 2), ("lstm", 2)]


def model_of(cell: str = "lstm", num_layers: int = 1, seed: int = 0) -> Autoencoder:
    return Autoencoder(
        INTERFACE, ModelSpec.plain(cell=cell, hidden_size=H, num_layers=num_layers, code_size=C), seed
    ).double()


class Plain(nn.Module):
    """The same network in torch.nn."""

    def __init__(self, model: Autoencoder, cell: str, num_layers: int) -> None:
        super().__init__()
        self.encoder = in_torch(cell, D, H, num_layers, batch_first=True)
        self.code, self.readout = nn.Linear(H, C), nn.Linear(H, D)
        self.decoder = in_torch(cell, C, H, num_layers, batch_first=True)
        self.double().load_state_dict(model.state_dict())

    def forward(self, frames: Tensor) -> Tensor:
        code = self.code(self.encoder(frames)[0][:, -1])
        return self.readout(self.decoder(torch.stack([code] * frames.shape[1], dim=1))[0])


@pytest.mark.parametrize(("cell", "num_layers"), KINDS)
def test_frames_loss_and_every_gradient_are_those_of_torch(cell: str, num_layers: int) -> None:
    model, frames = model_of(cell, num_layers), FRAMES.clone().requires_grad_()
    plain, replicas = Plain(model, cell, num_layers), Replicas([model])
    torch.testing.assert_close(model(FRAMES).values, plain(FRAMES), rtol=1e-9, atol=1e-12)
    expected = sum((drawn - true) ** 2 for drawn, true in zip(plain(frames).flatten(), FRAMES.flatten(), strict=True))
    expected = expected / FRAMES.numel()
    run = replicas.backpropagate(replicas.flat_RP, FRAMES, FRAMES, trace=True, shared=True)
    states, grad_RP = run.grad_states, run.grad_RP
    named = dict(plain.named_parameters())
    grads = torch.autograd.grad(expected, [frames, *(named[name] for name, _ in model.named_parameters())])
    torch.testing.assert_close(loss(INTERFACE, model(FRAMES).values, FRAMES), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(grad_RP[0], torch.cat([g.flatten() for g in grads[1:]]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(states[INPUT][0], grads[0].transpose(0, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cell", "num_layers"), KINDS)
def test_taps_move_the_loss_as_the_trace_says(cell: str, num_layers: int) -> None:
    model = model_of(cell, num_layers)
    replicas = Replicas([model])
    states = replicas.backpropagate(replicas.flat_RP, FRAMES, FRAMES, trace=True, shared=True).grad_states
    assert {key.part for key in model.tap_keys} == {"encoder", "decoder", "input"}
    for number, key in enumerate(model.tap_keys):
        losses = []
        for nudge in (1e-5, -1e-5):
            taps = [torch.zeros(shape, dtype=torch.float64) for shape in model.tap_shapes(FRAMES)]
            taps[number][1, 2, 3] = nudge
            losses.append(loss(INTERFACE, model(FRAMES, RunOptions(taps=taps)).values, FRAMES).item())
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx(states[key][0, 1, 2, 3].item(), rel=1e-5, abs=1e-10), key
        assert abs(slope) > 1e-8, key


def test_what_the_decoder_draws_it_knows_from_the_code_alone() -> None:
    model, other = model_of(), FRAMES.flip(1)
    with torch.no_grad():
        model.code.weight.zero_()
    assert torch.equal(model(FRAMES).values, model(other).values)
    replicas = Replicas([model])
    states = replicas.backpropagate(replicas.flat_RP, FRAMES, FRAMES, trace=True, shared=True).grad_states
    assert not states[StateKey(0, "forward", "h", "encoder")].any()
    assert states[StateKey(0, "forward", "h", "decoder")].any()


def test_encoder_and_decoder_share_no_parameter_and_no_draw() -> None:
    drawn = dataclasses.replace(PLAIN, input=Gaussian(std=0.3), recurrent=Gaussian(std=0.3))
    for rules in (PLAIN, drawn):
        spec = ModelSpec.plain(
            cell="gru", hidden_size=H, code_size=D, initialisation=rules
        )  # a code of D numbers: the halves look alike
        model = Autoencoder(INTERFACE, spec, 0)
        for mine, theirs in zip(model.encoder.parameters(), model.decoder.parameters(), strict=True):
            assert mine.data_ptr() != theirs.data_ptr()
            assert not torch.isclose(mine, theirs).any()


@pytest.mark.parametrize(("cell", "num_layers"), KINDS)
def test_a_replica_in_a_replica_batch_is_bit_for_bit_the_replica_alone(cell: str, num_layers: int) -> None:
    models = [model_of(cell, num_layers, seed).float() for seed in range(3)]
    own, results = torch.stack([FRAMES, FRAMES.flip(1), 1 - FRAMES]).float(), []
    for replicas, at in ((Replicas(models), slice(None)), (Replicas(models[1:2]), slice(1, 2))):
        with computing(num_threads=1):
            run = replicas.backpropagate(replicas.flat_RP, own[at], own[at], trace=True)
        results.append([run.losses, run.grad_RP, *run.states, *run.grad_states.values()])
    for together, alone in zip(*results, strict=True):
        assert torch.equal(together[1], alone[0])
