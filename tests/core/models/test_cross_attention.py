"""A text of an image against plain loops over words and cells; replica batches; what is in no answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.attention.score import Additive, Dot, General
from pipeline.core.cells import CELLS
from pipeline.core.measures.gradients import finite_difference_error, trace_gradients
from pipeline.core.models import INPUT, Described, Interface, ModelSpec, Replicas, StateKey
from pipeline.core.models.cross_attention import CrossAttentionModel
from pipeline.core.models.network import RunOptions
from pipeline.core.training.runtime import computing
from tests.core.cells.reference import IN_TORCH
from tests.core.models.reference import Notes, negative_log_likelihood, step_and_look, step_of, vector_of
from tests.core.models.test_captioner import HEIGHT, IMAGES, WIDTH, H, close, seen, told

INTERFACE = Interface(
    input_kind="token",
    input_size=7,
    target_at="last",
    target_kind="class",
    output_size=4,
    padded=True,
    describes=True,
)
WORDS = torch.tensor([[3, 2, 0, 0], [4, 5, 3, 2], [6, 4, 2, 0]])
LENGTHS, TARGETS = (2, 4, 3), torch.tensor([3, 0, 2])
READ = Described(WORDS, IMAGES)
SPECS: list[dict[str, Any]] = [
    {"cell": "lstm", "attention": Additive(feeds="context", size=5), "num_layers": 2},
    {"cell": "gru", "attention": Dot(feeds="attentional_state"), "embedding_size": 3},
    {"cell": "elman", "attention": General(feeds="nothing")},
    {"cell": "gru", "attention": Dot(feeds="nothing"), "embedding_size": 3, "num_layers": 2},
    *({"cell": name, "embedding_size": 3} for name in IN_TORCH),
]
COUPLED = [changes for changes in SPECS if "attention" in changes]


def model_of(seed: int = 0, **changes: Any) -> CrossAttentionModel:
    spec = dataclasses.replace(ModelSpec.plain(cell="lstm", hidden_size=H), **changes)
    return CrossAttentionModel(INTERFACE, spec, seed).double()


def answered(
    model: CrossAttentionModel, cell: str, image: Tensor, words: list[int], notes: Notes
) -> tuple[Tensor, list[Tensor]]:
    """Logits and, word by word, the weights of one text of one image."""
    cells = seen(model, image)
    first = torch.tanh(model.image.begin(sum(cells) / len(cells)))
    states = [tuple(layer) for layer in first.unflatten(0, (-1, len(CELLS[cell].states), 1, H))]
    steps = [step_of(model.recurrent.stack, cell, place) for place in model.recurrent.stack.places]
    output, weights = torch.zeros_like(cells[0]), list[Tensor]()
    for word in words:
        x = vector_of(word, model.embedding, INTERFACE.input_size)
        notes.setdefault(INPUT, []).append(x)
        states, output, looked = step_and_look(model.recurrent, steps, x, states, output, cells)
        weights += [] if looked is None else [looked]
        for layer, state in enumerate(states):
            for name, value in zip(model.recurrent.stack.cell.states, state, strict=True):
                notes.setdefault(StateKey(layer, "forward", name), []).append(value)
    return model.readout.weight @ output + model.readout.bias, weights


@pytest.mark.parametrize("changes", SPECS, ids=told)
def test_loss_weights_and_every_gradient_are_those_of_plain_loops(changes: dict[str, Any]) -> None:
    model, total, kept = model_of(**changes), torch.zeros((), dtype=torch.float64), list[Notes]()
    predicted = model(READ)
    for i, num_words in enumerate(LENGTHS):
        kept.append({})
        logits, weights = answered(model, changes["cell"], IMAGES[i], WORDS[i, :num_words].tolist(), kept[-1])
        close(predicted.values[i], logits)
        total = total + negative_log_likelihood(logits[None], TARGETS[i : i + 1].tolist())
        assert (predicted.weights is None) == (not weights) == (not model.attends)
        if predicted.weights is not None:
            close(predicted.weights[i, :num_words], torch.stack(weights))
    expected, replicas = total / len(LENGTHS), Replicas([model])
    run = replicas.backpropagate(replicas.flat_RP, READ, TARGETS, trace=True, shared=True)
    close(run.losses[0], expected.detach())
    grads = torch.autograd.grad(expected, [*model.parameters()], retain_graph=True)
    close(run.grad_RP[0], torch.cat([grad.flatten() for grad in grads]))
    assert run.grad_states.keys() == kept[0].keys()
    for i, notes in enumerate(kept):
        for key, grad in run.grad_states.items():
            if key == INPUT and model.embedding is not None:
                continue  # a word that comes twice is one leaf there
            plain = torch.stack(torch.autograd.grad(expected, notes[key], retain_graph=True)).flatten(1)
            close(grad[0, : len(plain), i], plain)
            assert not grad[0, len(plain) :, i].any()
    traced = trace_gradients(replicas, replicas.flat_RP, READ, TARGETS).log10_norms
    for key, grad in run.grad_states.items():  # of padded texts the last timestep is the end of each
        ends = torch.stack([grad[0, num_words - 1, i] for i, num_words in enumerate(LENGTHS)])
        close(traced[key][0, -1], ends.norm().log10())


@pytest.mark.parametrize("changes", SPECS[:5], ids=told)
def test_a_replica_in_a_replica_batch_is_bit_for_bit_the_replica_alone(changes: dict[str, Any]) -> None:
    models = [model_of(seed, **changes, hidden_size=16).float() for seed in range(3)]
    images = torch.rand(3, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    inputs, targets = Described(WORDS[1].expand(3, 16, 4), images), TARGETS[1].expand(3, 16)
    results = []
    for replicas, at in ((Replicas(models), slice(None)), (Replicas(models[1:2]), slice(1, 2))):
        with computing(num_threads=1):
            own = Described(inputs.source[at], inputs.images[at])
            run = replicas.backpropagate(replicas.flat_RP, own, targets[at], trace=True)
        results.append([run.losses, run.grad_RP, *run.states, *run.grad_states.values()])
    for together, alone in zip(*results, strict=True):
        assert torch.equal(together[1], alone[0])


@pytest.mark.parametrize("changes", SPECS[:5], ids=told)
def test_padding_is_in_no_answer_and_no_gradient(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    replicas = Replicas([model])
    longer = Described(torch.nn.functional.pad(WORDS, (0, 3)), IMAGES)
    short, long = (
        replicas.backpropagate(replicas.flat_RP, inputs, TARGETS, trace=True, shared=True) for inputs in (READ, longer)
    )
    close(short.losses, long.losses)
    close(short.grad_RP, long.grad_RP)
    for key, grad in short.grad_states.items():
        close(long.grad_states[key][:, :4], grad)
        assert not long.grad_states[key][:, 4:].any()
    for i, num_words in enumerate(LENGTHS):
        alone = model(Described(WORDS[i : i + 1, :num_words], IMAGES[i : i + 1]))
        close(alone.values[0], model(READ).values[i])


@pytest.mark.parametrize("changes", COUPLED, ids=told)
def test_finite_differences_confirm_the_gradient_where_most_of_an_image_is_black(changes: dict[str, Any]) -> None:
    images = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.float64)
    images[1, 2:4, 5:8] = 0.7
    replicas, inputs = Replicas([model_of(seed, **changes) for seed in range(2)]), Described(WORDS, images)
    grad_RP = replicas.backpropagate(replicas.flat_RP, inputs, TARGETS, shared=True).grad_RP
    assert finite_difference_error(replicas, replicas.flat_RP, grad_RP, inputs, TARGETS).max() < 1e-6


def test_without_attention_the_image_is_known_from_the_first_state_alone() -> None:
    """Two images with the same mean of cells are one; with attention they are not."""
    for changes, alike in (({}, True), ({"attention": Dot(feeds="nothing")}, False)):
        model = model_of(**changes)
        cells = model.image.features(IMAGES)
        turned = cells.flip(1) + torch.linspace(-1, 1, cells.shape[1], dtype=torch.float64)[:, None]
        model.image.features.forward = lambda images, found=(cells, turned): found[int(images[0, 0, 0] == 0)]  # type: ignore[method-assign]
        answers = [model(Described(WORDS, images)).values for images in (IMAGES, torch.zeros_like(IMAGES))]
        assert torch.allclose(*answers, rtol=1e-9, atol=1e-12) == alike


@pytest.mark.parametrize(("feeds", "first"), [("nothing", 4), ("attentional_state", 1), ("context", 0)])
def test_a_look_enters_the_recurrence_at_the_next_word_at_once_or_never(feeds: Any, first: int) -> None:
    """Of a network that starts without the image, states differ between images from the word that first hears of it."""
    model = model_of(attention=Dot(feeds=feeds))
    with torch.no_grad():
        model.image.begin.weight.zero_()
    states, others = (model(Described(WORDS[1].expand(3, 4), images)).states[0] for images in (IMAGES, IMAGES.flip(2)))
    differs = [not torch.equal(states[t], others[t]) for t in range(4)]
    assert differs == [t >= first for t in range(4)]


def test_the_gradient_can_be_clipped_as_it_flows() -> None:
    replicas = Replicas([model_of(attention=Dot(feeds="attentional_state"))])
    free, clipped = (
        replicas.backpropagate(replicas.flat_RP, READ, TARGETS, options, shared=True).grad_RP
        for options in (RunOptions(), RunOptions(state_threshold=1e-6))
    )
    assert not torch.allclose(free, clipped)
