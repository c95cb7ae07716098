"""Encoder-decoders against an unbatched reference in loops; padding, traces, free-running, replica batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.attention.score import NO_ATTENTION, Additive, Dot, General
from pipeline.core.measures.gradients import at_end, locate, trace_gradients
from pipeline.core.models import INPUT, Interface, ModelSpec, Replicas, RunOptions, Seq2SeqInputs, loss, teacher_forced
from pipeline.core.models.encoder_decoder import EncoderDecoder
from pipeline.core.models.initialisation import PLAIN, Gaussian
from pipeline.core.models.interface import coverage_penalty
from pipeline.core.training.runtime import computing
from pipeline.data.dataset import PAD, SOS
from tests.core.cells.reference import IN_TORCH
from tests.core.models.reference import Notes, negative_log_likelihood, transduce
from tests.core.slowly import slowly

H = 6
INTERFACE = Interface(
    input_kind="token", input_size=7, target_at="sequence", target_kind="class", output_size=6, padded=True
)
SOURCE = torch.tensor([[3, 4, 5, 6, 3], [5, 0, 0, 0, 0], [4, 3, 6, 0, 0]], dtype=torch.uint8)
TARGETS = torch.tensor([[3, 2, 0, 0], [4, 5, 3, 2], [2, 0, 0, 0]])
READING = Seq2SeqInputs(SOURCE, teacher_forced(TARGETS))
LENGTHS, TARGET_LENGTHS = (5, 1, 3), (2, 4, 1)
ADDITIVE = Additive(feeds="context", size=4)
SPECS: list[dict[str, Any]] = [
    *({"cell": name} for name in IN_TORCH),
    {"cell": "gru", "num_layers": 2, "bidirectional": True, "embedding_size": 3},
    {"cell": "elman", "attention": Dot(feeds="nothing"), "embedding_size": 3},
    {"cell": "lstm", "attention": Dot(feeds="attentional_state"), "num_layers": 2, "bidirectional": True},
    {"cell": "gru", "attention": Dot(feeds="context"), "embedding_size": 3},
    {"cell": "lstm", "attention": General(feeds="nothing"), "bidirectional": True, "embedding_size": 3},
    {"cell": "elman", "attention": General(feeds="attentional_state")},
    {"cell": "gru", "attention": General(feeds="context"), "num_layers": 2},
    {"cell": "gru", "attention": Additive(feeds="nothing", size=4), "num_layers": 2, "bidirectional": True},
    {"cell": "lstm", "attention": Additive(feeds="attentional_state", size=4), "embedding_size": 3},
    {"cell": "lstm", "attention": ADDITIVE, "num_layers": 2, "bidirectional": True, "embedding_size": 3},
]
SOME = [SPECS[at] for at in (-10, -8, -6, -1)]
MARKED = [*SOME, *slowly(*(changes for changes in SPECS if changes not in SOME))]
"""Every spec; the quick run has one of each kind of attention."""


def told(changes: dict[str, Any]) -> str:
    return ", ".join(getattr(value, "name", str(value)) for value in changes.values())


def spec_of(**changes: Any) -> ModelSpec:
    return dataclasses.replace(ModelSpec.plain(cell="lstm", hidden_size=H), **changes)


def model_of(seed: int = 0, **changes: Any) -> EncoderDecoder:
    return EncoderDecoder(INTERFACE, spec_of(**changes), seed).double()


def replicas_of(num_replicas: int = 2, **changes: Any) -> Replicas:
    return Replicas([model_of(seed, **changes) for seed in range(num_replicas)])


def example(i: int, further: int = 0) -> tuple[Seq2SeqInputs, Tensor]:
    """Return one example alone, with some padding more than it needs."""
    source = torch.nn.functional.pad(SOURCE[i : i + 1, : LENGTHS[i]], (0, further), value=PAD)
    targets = torch.nn.functional.pad(TARGETS[i : i + 1, : TARGET_LENGTHS[i]], (0, further), value=PAD)
    return Seq2SeqInputs(source, teacher_forced(targets)), targets


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("changes", MARKED, ids=told)
def test_loss_weights_and_every_gradient_are_those_of_a_plain_loop(changes: dict[str, Any]) -> None:
    model, total = model_of(**changes), torch.zeros((), dtype=torch.float64)
    weights = model(READING).weights
    kept = list[tuple[int, Notes]]()
    for i, (length, num_tokens) in enumerate(zip(LENGTHS, TARGET_LENGTHS, strict=True)):
        notes: Notes = {}
        true = [SOS, *TARGETS[i, : num_tokens - 1].tolist()]
        written = transduce(model, changes["cell"], SOURCE[i, :length].tolist(), true, notes)
        total = total + negative_log_likelihood(written.logits, TARGETS[i, :num_tokens].tolist())
        kept.append((i, notes))
        assert (weights is None) == (written.weights is None) == (not model.attends)
        if weights is not None and written.weights is not None:
            close(weights[i, :num_tokens, :length], written.weights)
            assert not weights[i, :, length:].any()
    expected = total / sum(TARGET_LENGTHS)
    close(loss(INTERFACE, model(READING).values, TARGETS), expected)
    run = Replicas([model]).backpropagate(Replicas([model]).flat_RP, READING, TARGETS, trace=True, shared=True)
    close(run.losses[0], expected.detach())
    grads = torch.autograd.grad(expected, [*model.parameters()], retain_graph=True)
    close(run.grad_RP[0], torch.cat([grad.flatten() for grad in grads]))
    for i, notes in kept:  # dL/ds_t of every state, of the encoder too, and dL/dx_t
        for key, grad in run.grad_states.items():
            plain = torch.stack(torch.autograd.grad(expected, notes[key], retain_graph=True)).flatten(1)
            close(grad[0, : len(plain), i], plain)
            assert not grad[0, len(plain) :, i].any()


@pytest.mark.parametrize("changes", MARKED, ids=told)
def test_padding_never_changes_a_result(changes: dict[str, Any]) -> None:
    replicas = replicas_of(**changes)
    parameters = replicas.named(replicas.flat_RP)
    batch = replicas.backpropagate(replicas.flat_RP, READING, TARGETS, trace=True, shared=True)
    summed, summed_grad = torch.zeros_like(batch.losses), torch.zeros_like(batch.grad_RP)
    for i, num_tokens in enumerate(TARGET_LENGTHS):
        alone, longer = (
            replicas.backpropagate(replicas.flat_RP, *example(i, further), trace=True, shared=True)
            for further in (0, 3)
        )
        close(longer.losses, alone.losses)
        close(longer.grad_RP, alone.grad_RP)
        summed, summed_grad = summed + num_tokens * alone.losses, summed_grad + num_tokens * alone.grad_RP
        traces = (run.grad_states.values() for run in (alone, longer, batch))
        for found, padded, together in zip(*traces, strict=True):
            T = found.shape[1]
            close(padded[:, :T], found)
            close(together[:, :T, i] * sum(TARGET_LENGTHS) / num_tokens, found[:, :, 0])
            assert not padded[:, T:].any()
            assert not together[:, T:, i].any()
        if replicas.model.attends:
            weights = replicas.attend(parameters, example(i)[0])
            U, S = weights.shape[2:]
            close(replicas.attend(parameters, example(i, 3)[0])[:, :, :U, :S], weights)
            close(replicas.attend(parameters, READING)[:, i, :U, :S], weights[:, 0])
    close(batch.losses, summed / sum(TARGET_LENGTHS))
    close(batch.grad_RP, summed_grad / sum(TARGET_LENGTHS))


@pytest.mark.parametrize("changes", SOME, ids=told)
def test_traces_of_a_padded_example_end_where_it_ends(changes: dict[str, Any]) -> None:
    replicas = replicas_of(**changes)
    alone, longer = (trace_gradients(replicas, replicas.flat_RP, *example(0, further)) for further in (0, 3))
    assert tuple(longer.log10_norms) == replicas.model.tap_keys
    close(longer.grad_RP, alone.grad_RP)
    for key, norms in alone.log10_norms.items():
        found = longer.log10_norms[key]
        real, padding = (found[:, :-3], found[:, -3:]) if key.part == "decoder" else (found[:, 3:], found[:, :3])
        close(real, norms)
        assert (padding == -torch.inf).all()
        assert norms.isfinite().all()


def test_ragged_traces_are_moved_to_the_end_of_each_sequence() -> None:
    grads, lengths = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0)), [4, 1, 3]
    grads[0, 0] = torch.inf  # what explodes stays where it is
    moved = at_end(grads, torch.tensor(lengths))
    for b, length in enumerate(lengths):
        for t in range(4):
            before = t - (4 - length)
            expected = grads[:, before, b] if before >= 0 else torch.zeros(2, 2)
            assert torch.equal(moved[:, t, b], expected)


@pytest.mark.parametrize("changes", SOME, ids=told)
def test_taps_move_the_loss_as_the_trace_says(changes: dict[str, Any]) -> None:
    """Central differences of the loss when one number of a state, or of what is read, is moved."""
    model = model_of(**changes)
    replicas = Replicas([model])
    states = replicas.backpropagate(replicas.flat_RP, READING, TARGETS, trace=True, shared=True).grad_states
    shapes = model.tap_shapes(READING)
    for number, key in enumerate(model.tap_keys):
        losses = []
        for nudge in (1e-5, -1e-5):
            taps = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
            taps[number][0, 1, 1] = nudge
            losses.append(loss(INTERFACE, model(READING, RunOptions(taps=taps)).values, TARGETS))
        slope = ((losses[0] - losses[1]) / 2e-5).item()
        assert slope == pytest.approx(states[key][0, 0, 1, 1].item(), rel=1e-5, abs=1e-10), key
        assert abs(slope) > 1e-8, key


@pytest.mark.parametrize("changes", [*SOME, {"cell": "gru", "attention": Dot(feeds="nothing")}], ids=told)
def test_the_decoder_that_runs_free_reads_what_the_coins_say(changes: dict[str, Any]) -> None:
    model, seen = model_of(**changes), set[int]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # for it to have something to say
    given = torch.randint(3, 6, (3, 7), generator=torch.Generator().manual_seed(1))
    inputs = Seq2SeqInputs(SOURCE, given)
    for coins in (torch.ones(3, 7), torch.zeros(3, 7), (given % 2)):
        free = model(inputs, RunOptions(coins=coins.bool()))
        read, said = free.decoder_inputs, free.values.argmax(dim=-1)
        again = model(Seq2SeqInputs(SOURCE, read)).values.argmax(dim=-1)
        assert torch.equal(said, again)
        assert torch.equal(read[:, 0], given[:, 0])
        assert torch.equal(read[:, 1:], torch.where(coins.bool(), given, said.roll(1, dims=1))[:, 1:])
        for i, length in enumerate(LENGTHS):
            tokens = SOURCE[i, :length].tolist()
            written = transduce(model, changes["cell"], tokens, given[i].tolist(), {}, coins[i].bool().tolist())
            assert (written.read, written.said) == (read[i].tolist(), said[i].tolist())
        seen |= {*said.flatten().tolist()}
    assert len(seen) > 1, "a decoder that always says the same shows nothing"


@pytest.mark.parametrize("changes", MARKED, ids=told)
def test_a_replica_in_a_replica_batch_is_bit_for_bit_the_replica_alone(changes: dict[str, Any]) -> None:
    """At sizes at which products of matrices take the paths that they take in a study."""
    models = [EncoderDecoder(INTERFACE, spec_of(**changes | {"hidden_size": 32}), seed) for seed in range(4)]
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(3, 7, (4, 16, 10), generator=generator).masked_fill(torch.arange(10) > 7, PAD)
    targets = torch.randint(2, 6, (4, 16, 4), generator=generator)
    coins = torch.rand(4, 16, 4, generator=generator) < 0.5
    inputs = Seq2SeqInputs(source, teacher_forced(targets))
    results = []
    for replicas, at in ((Replicas(models), slice(None)), (Replicas(models[2:3]), slice(2, 3))):
        own = Seq2SeqInputs(inputs.source[at], inputs.decoder_inputs[at])
        with computing(num_threads=1):
            run = replicas.backpropagate(replicas.flat_RP, own, targets[at], trace=True)
            free = replicas.free_running(replicas.named(replicas.flat_RP), own, coins[at])
        results.append([run.losses, run.coverage, run.grad_RP, *run.states, *run.grad_states.values(), *free])
    for together, alone in zip(*results, strict=True):
        assert torch.equal(together[2], alone[0])


def test_encoder_and_decoder_share_no_parameter_and_no_draw() -> None:
    gaussian = dataclasses.replace(PLAIN, recurrent=Gaussian(std=0.3), input=Gaussian(std=0.3))
    interface = dataclasses.replace(INTERFACE, output_size=7)
    for rules in (PLAIN, gaussian):
        model = EncoderDecoder(interface, spec_of(embedding_size=3, initialisation=rules), 0)
        named = dict(model.named_parameters())
        pairs = [(name, f"decoder.stack.{name.removeprefix('encoder.')}") for name in named if "encoder" in name]
        for mine, theirs in [*pairs, ("embedding.weight", "decoder.embedding.weight")]:
            assert named[mine].data_ptr() != named[theirs].data_ptr()
            assert named[mine].shape == named[theirs].shape
            assert not torch.isclose(named[mine], named[theirs]).any()
    before = model(READING).states
    with torch.no_grad():
        model.decoder.stack.weight_hh_l0.mul_(2.0)
    after = model(READING).states
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [key.part == "decoder" for key in model.state_keys]


def test_a_gradient_that_overflows_in_the_encoder_is_found_there() -> None:
    """The states stay 0 while dL/dh of the encoder grows 1e4-fold a timestep, beyond float32 after ten."""
    replicas = Replicas([EncoderDecoder(INTERFACE, spec_of(cell="elman_linear", hidden_size=1), 0)])
    for name, view in replicas.named(replicas.flat_RP).items():
        view.fill_(1e4 if name == "encoder.weight_hh_l0" else 0.5 if "readout.weight" in name else 0.0)
    replicas.named(replicas.flat_RP)["decoder.stack.weight_hh_l0"].fill_(0.5)
    replicas.named(replicas.flat_RP)["decoder.readout.weight"][0, 3] = -0.5
    source, targets = torch.full((1, 4, 30), 3, dtype=torch.uint8), torch.full((1, 4, 2), 3)
    place = locate(replicas, replicas.flat_RP, Seq2SeqInputs(source, teacher_forced(targets)), targets, replica=0)
    assert (place.quantity, place.timestep) == ("grad_h (encoder)", 20)
    assert place.num_nonfinite == 7 + 1 + 2  # W_ih, W_hh and both biases of the encoder


def test_attention_sees_the_encoder_otherwise_it_sees_its_end_alone() -> None:
    """Without attention the middle of a source acts through the last state only; with it, directly as well."""
    for attention in (NO_ATTENTION, ADDITIVE):
        replicas = replicas_of(1, cell="elman", attention=attention)
        with torch.no_grad():
            replicas.named(replicas.flat_RP)["encoder.weight_hh_l0"].zero_()
        states = replicas.backpropagate(replicas.flat_RP, *example(0), trace=True, shared=True).grad_states
        (middle,) = (grad[0, 2].norm().item() for key, grad in states.items() if key.part == "encoder")
        assert (middle > 0) == (attention is ADDITIVE)
        assert (states[INPUT][0, 2].norm() > 0) == (attention is ADDITIVE)


def test_coverage_is_the_penalty_written_as_loops_whatever_the_padding() -> None:
    replicas = replicas_of(attention=ADDITIVE)
    run = replicas.backpropagate(replicas.flat_RP, READING, TARGETS, shared=True)
    weights = replicas.attend(replicas.named(replicas.flat_RP), READING)
    expected = [
        sum((1 - weights[r, i, : TARGET_LENGTHS[i], s].sum()) ** 2 for i in range(3) for s in range(LENGTHS[i])) / 3
        for r in range(2)
    ]
    close(run.coverage, torch.stack(expected))
    for i in range(3):
        alone, longer = (
            replicas.backpropagate(replicas.flat_RP, *example(i, further), coverage_weight=2.0, shared=True)
            for further in (0, 3)
        )
        close(longer.coverage, alone.coverage)
        close(longer.grad_RP, alone.grad_RP)


def test_the_weight_of_coverage_is_in_the_gradient_and_not_in_the_losses() -> None:
    model = model_of(attention=ADDITIVE)
    replicas = Replicas([model])
    plain, weighed = (
        replicas.backpropagate(replicas.flat_RP, READING, TARGETS, coverage_weight=weight, shared=True)
        for weight in (0.0, 0.7)
    )
    assert torch.equal(plain.losses, weighed.losses)
    penalty = coverage_penalty(model(READING).weights, TARGETS, SOURCE != PAD)
    grads = torch.autograd.grad(penalty, [*model.parameters()], allow_unused=True, materialize_grads=True)
    close(weighed.grad_RP[0] - plain.grad_RP[0], 0.7 * torch.cat([grad.flatten() for grad in grads]))


@pytest.mark.parametrize("attention", [NO_ATTENTION, Dot(feeds="nothing")])
def test_taps_and_clipping_inside_the_recurrence_are_the_same_step_by_step(
    attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(attention=attention, num_layers=2)
    taps = [torch.zeros(shape, dtype=torch.float64).requires_grad_() for shape in model.tap_shapes(READING)]
    results = []
    for feeds in ("nothing", "nothing, but step by step"):
        monkeypatch.setattr(model.decoder, "feeds", feeds)
        predicted = model(READING, RunOptions(taps=taps, state_threshold=1e-3))
        grads = torch.autograd.grad(loss(INTERFACE, predicted.values, TARGETS), [*taps, *model.parameters()])
        results.append([*grads, *predicted.states])
    for whole, stepped in zip(*results, strict=True):
        close(whole, stepped)
