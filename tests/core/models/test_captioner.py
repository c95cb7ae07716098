"""The captioner against an image read pixel by pixel and a decoder in loops; what its cells know; replica batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.attention.score import Additive, Dot
from pipeline.core.cells import CELLS
from pipeline.core.measures.gradients import finite_difference_error
from pipeline.core.models import Interface, ModelSpec, Replicas, Seq2SeqInputs, teacher_forced
from pipeline.core.models.captioner import Captioner, Convolution
from pipeline.core.models.network import NetworkRun, RunOptions
from pipeline.core.training.runtime import computing
from pipeline.data.dataset import SOS
from tests.core.cells.reference import IN_TORCH
from tests.core.models.reference import Notes, Written, negative_log_likelihood, write

H, HEIGHT, WIDTH = 8, 8, 12
ROWS, COLUMNS = HEIGHT // 4, WIDTH // 4
INTERFACE = Interface(
    input_kind="image", input_size=1, target_at="sequence", target_kind="class", output_size=6, padded=True
)
IMAGES = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.tensor([[3, 2, 0, 0], [4, 5, 3, 2], [2, 0, 0, 0]])
READING = Seq2SeqInputs(IMAGES, teacher_forced(TARGETS))
TARGET_LENGTHS = (2, 4, 1)
SPECS: list[dict[str, Any]] = [
    {"cell": "lstm", "attention": Additive(feeds="context", size=5), "num_layers": 2},  # as Xu et al.
    {"cell": "gru", "attention": Dot(feeds="attentional_state"), "embedding_size": 3},
    {"cell": "elman", "attention": Dot(feeds="nothing")},
    *({"cell": name, "embedding_size": 3} for name in IN_TORCH),  # one-to-many
]


def told(changes: dict[str, Any]) -> str:
    return ", ".join(getattr(value, "name", str(value)) for value in changes.values())


def model_of(seed: int = 0, **changes: Any) -> Captioner:
    spec = dataclasses.replace(ModelSpec.plain(cell="lstm", hidden_size=H), **changes)
    return Captioner(INTERFACE, spec, seed).double()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def convolved(map_CHW: Tensor, layer: Convolution) -> Tensor:
    """ReLU of a 3 × 3 convolution, pixel by pixel."""
    channels, height, width = map_CHW.shape
    framed = torch.zeros(channels, height + 2, width + 2, dtype=torch.float64)
    framed[:, 1:-1, 1:-1] = map_CHW
    pixels = [
        (layer.weight * framed[:, i : i + 3, j : j + 3]).sum(dim=(1, 2, 3)) + layer.bias
        for i in range(height)
        for j in range(width)
    ]
    return torch.stack(pixels, dim=1).unflatten(1, (height, width)).clamp_min(0)


def halved(map_CHW: Tensor) -> Tensor:
    """The largest of every 2 × 2 pixels."""
    return torch.stack([map_CHW[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(dim=0)


def seen(model: Captioner, image: Tensor) -> list[Tensor]:
    """The annotations of an image, cell by cell."""
    features = model.image.features
    maps = halved(convolved(halved(convolved(image[None], features.first)), features.second))
    maps = convolved(maps, features.third)
    annotations = []
    for i in range(ROWS):
        for j in range(COLUMNS):
            place = torch.tensor([2 * i / (ROWS - 1) - 1, 2 * j / (COLUMNS - 1) - 1], dtype=torch.float64)
            annotations.append(features.project(torch.cat([maps[:, i, j], place])))
    return annotations


def described(model: Captioner, cell: str, image: Tensor, true: list[int], notes: Notes) -> Written:
    annotations = seen(model, image)
    first = torch.tanh(model.image.begin(sum(annotations) / len(annotations)))
    num_states = len(CELLS[cell].states)
    layers = first.unflatten(0, (-1, num_states, 1, H))  # the states of the lowest layer come first
    return write(model.decoder, cell, true, [tuple(layer) for layer in layers], annotations, notes)


@pytest.mark.parametrize("changes", SPECS, ids=told)
def test_loss_weights_and_every_gradient_are_those_of_plain_loops(changes: dict[str, Any]) -> None:
    model, total, kept = model_of(**changes), torch.zeros((), dtype=torch.float64), list[Notes]()
    predicted = model(READING)
    for i, num_tokens in enumerate(TARGET_LENGTHS):
        kept.append({})
        true = [SOS, *TARGETS[i, : num_tokens - 1].tolist()]
        written = described(model, changes["cell"], IMAGES[i], true, kept[-1])
        close(predicted.values[i, :num_tokens], written.logits)
        total = total + negative_log_likelihood(written.logits, TARGETS[i, :num_tokens].tolist())
        assert (predicted.weights is None) == (written.weights is None) == (not model.attends)
        if predicted.weights is not None and written.weights is not None:
            close(predicted.weights[i, :num_tokens], written.weights)
    expected = total / sum(TARGET_LENGTHS)
    replicas = Replicas([model])
    run = replicas.backpropagate(replicas.flat_RP, READING, TARGETS, trace=True, shared=True)
    close(run.losses[0], expected.detach())
    grads = torch.autograd.grad(expected, [*model.parameters()], retain_graph=True)
    close(run.grad_RP[0], torch.cat([grad.flatten() for grad in grads]))
    for i, notes in enumerate(kept):
        for key, grad in run.grad_states.items():
            plain = torch.stack(torch.autograd.grad(expected, notes[key], retain_graph=True)).flatten(1)
            close(grad[0, : len(plain), i], plain)


def test_a_cell_knows_where_it_is_and_sees_what_is_near() -> None:
    """A convolution sees one pixel further of its own resolution: 4 + 2 + 1 pixels beyond the cell."""
    model, dark = model_of(), torch.zeros(1, 24, 24, dtype=torch.float64)
    blank = model.image.features(dark)[0].unflatten(0, (6, 6))
    assert torch.pdist(blank.flatten(0, 1)).min() > 1e-3
    lit = dark.clone()
    lit[0, 12, 3] = 5.0  # row 3, column 0
    changed = (model.image.features(lit)[0].unflatten(0, (6, 6)) != blank).any(dim=2)
    assert changed[3, 0]
    rows, columns = changed.nonzero().unbind(dim=1)
    assert {*rows.tolist()} == {1, 2, 3, 4}
    assert {*columns.tolist()} == {0, 1, 2}


def test_without_attention_an_image_is_known_from_the_first_state_alone() -> None:
    model = model_of()
    states = model(READING).states
    memory = model.read(IMAGES, NetworkRun(model, RunOptions()))
    for remembered in (memory, memory._replace(keys_BSH=memory.keys_BSH + 1.0)):
        logits, _ = model.decoder(READING.decoder_inputs, remembered, NetworkRun(model, RunOptions()))
        assert torch.equal(logits, model(READING).values)
    assert (states[0][0, 0] != states[0][0, 1]).all()  # two images, one token before


def test_running_free_is_reading_what_was_said() -> None:
    for changes in SPECS:
        model = model_of(**changes)
        with torch.no_grad():
            for parameter in model.decoder.parameters():
                parameter.mul_(3.0)
        free = model(READING, RunOptions(coins=torch.zeros(3, 4, dtype=torch.bool)))
        read, said = free.decoder_inputs, free.values.argmax(dim=-1)
        assert torch.equal(read[:, 1:], said[:, :-1])
        assert torch.equal(model(Seq2SeqInputs(IMAGES, read)).values.argmax(dim=-1), said)


@pytest.mark.parametrize("changes", SPECS, ids=told)
def test_a_replica_in_a_replica_batch_is_bit_for_bit_the_replica_alone(changes: dict[str, Any]) -> None:
    models = [model_of(seed, **changes, hidden_size=16).float() for seed in range(3)]
    images, targets = torch.rand(3, 16, 16, 16, generator=torch.Generator().manual_seed(1)), TARGETS[1].expand(3, 16, 4)
    inputs, results = Seq2SeqInputs(images, teacher_forced(targets)), []
    for replicas, at in ((Replicas(models), slice(None)), (Replicas(models[1:2]), slice(1, 2))):
        with computing(num_threads=1):
            own = Seq2SeqInputs(inputs.source[at], inputs.decoder_inputs[at])
            run = replicas.backpropagate(replicas.flat_RP, own, targets[at], trace=True)
        results.append([run.losses, run.coverage, run.grad_RP, *run.states, *run.grad_states.values()])
    for together, alone in zip(*results, strict=True):
        assert torch.equal(together[1], alone[0])


def test_blank_pixels_stand_on_no_kink() -> None:
    """Where most of an image is black, finite differences are still a witness of the gradient."""
    images = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.float64)
    images[1, 2:4, 5:8] = 0.7
    replicas = Replicas([model_of(seed, attention=Dot(feeds="context")) for seed in range(2)])
    reading = Seq2SeqInputs(images, READING.decoder_inputs)
    grad_RP = replicas.backpropagate(replicas.flat_RP, reading, TARGETS, shared=True).grad_RP
    assert finite_difference_error(replicas, replicas.flat_RP, grad_RP, reading, TARGETS).max() < 1e-6


def test_coverage_is_over_every_cell() -> None:
    replicas = Replicas([model_of(attention=Dot(feeds="nothing"))])
    run = replicas.backpropagate(replicas.flat_RP, READING, TARGETS, shared=True)
    weights = replicas.attend(replicas.named(replicas.flat_RP), READING)[0]
    expected = [
        (1 - weights[i, :num_tokens, cell].sum()) ** 2
        for i, num_tokens in enumerate(TARGET_LENGTHS)
        for cell in range(ROWS * COLUMNS)
    ]
    close(run.coverage[0], sum(expected) / 3)
