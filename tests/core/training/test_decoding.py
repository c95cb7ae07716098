"""What decoders write in both modes: errors counted in loops over answers laid down by hand; a law that ties both."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from pipeline.core.attention.score import NO_ATTENTION, Dot
from pipeline.core.models import Interface, ModelSpec, Replicas, Seq2SeqInputs, loss, teacher_forced
from pipeline.core.models.encoder_decoder import EncoderDecoder
from pipeline.core.training import evaluation
from pipeline.core.training.data import Sequences
from pipeline.core.training.evaluation import FREE_RUNNING, MODES, TEACHER_FORCED, Decoding, decode, ended, evaluate
from pipeline.data.dataset import EOS, PAD, SOS

R, N, U, S, V = 3, 150, 5, 6, 6  # more sequences than are decoded at once
INTERFACE = Interface(
    input_kind="token", input_size=7, target_at="sequence", target_kind="class", output_size=V, padded=True
)


def randint(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def ragged(width: int, lengths_N: Tensor, seed: int) -> Tensor:
    tokens = randint(3, V, len(lengths_N), width, seed=seed)
    return tokens.masked_fill(torch.arange(width) >= lengths_N[:, None], PAD)


LENGTHS, TARGET_LENGTHS = randint(1, S + 1, N), randint(0, U, N, seed=1)
TARGETS = ragged(U, TARGET_LENGTHS, 2).index_put((torch.arange(N), TARGET_LENGTHS), torch.tensor(EOS))


class Canned:
    """A pack whose answers to the n-th source are laid down; the source's only token is n."""

    interface = INTERFACE
    model = SimpleNamespace(tap_shapes=lambda inputs: [], attends=False)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        hit = torch.nn.functional.one_hot(TARGETS, V) * 1.5  # right more often than not
        self.forced, self.free = (torch.randn(R, N, U, V, generator=generator) + hit for _ in range(2))
        self.said = self.free.argmax(dim=-1)
        self.given = torch.cat([torch.full((R, N, 1), SOS), self.said[..., :-1]], dim=2)

    num_replicas = R

    def named(self, flat_RP: Tensor) -> dict[str, Tensor]:
        return {"all": flat_RP}

    def predict(self, parameters: Any, inputs: Seq2SeqInputs) -> Tensor:
        at = inputs.source[:, 0]
        if inputs.decoder_inputs.dim() == 2:
            return self.forced[:, at]
        assert torch.equal(inputs.decoder_inputs, self.given[:, at])
        return self.free[:, at]

    def free_running(
        self, parameters: Any, inputs: Seq2SeqInputs, coins: Tensor, shared: bool
    ) -> tuple[Tensor, Tensor]:
        at = inputs.source[:, 0]
        assert shared
        assert not coins.any()
        return self.given[:, at], self.said[:, at]


@pytest.fixture(scope="module")
def canned() -> Canned:
    return Canned()


@pytest.fixture(scope="module")
def decoding(canned: Canned) -> Decoding:
    source = torch.arange(N)[:, None]
    split = Sequences(Seq2SeqInputs(source, teacher_forced(TARGETS)), TARGETS)
    return decode(cast(Replicas, canned), torch.zeros(R, 1), split)


def written(canned: Canned, mode: str, r: int, n: int) -> list[int]:
    """Tokens that count: free-running, nothing after the first EOS."""
    tokens = (canned.forced if mode == TEACHER_FORCED else canned.free)[r, n].argmax(dim=-1).tolist()
    if mode == FREE_RUNNING and EOS in tokens:
        stop = tokens.index(EOS) + 1
        return tokens[:stop] + [PAD] * (U - stop)
    return tokens


def mistakes(canned: Canned, mode: str, r: int, n: int) -> list[bool]:
    """At every token of the target, whether it was missed."""
    return [said != true for said, true in zip(written(canned, mode, r, n), TARGETS[n].tolist(), strict=True) if true]


def test_losses_are_over_the_true_tokens(canned: Canned, decoding: Decoding) -> None:
    for mode, logits in ((TEACHER_FORCED, canned.forced), (FREE_RUNNING, canned.free)):
        log_p = logits.double().log_softmax(dim=-1)
        terms = [[log_p[:, n, u, true] for u, true in enumerate(TARGETS[n].tolist()) if true] for n in range(N)]
        flat = torch.stack([term for row in terms for term in row])
        torch.testing.assert_close(decoding.losses[mode], -flat.mean(dim=0), rtol=1e-6, atol=0)


def test_errors_of_tokens_and_of_sequences(canned: Canned, decoding: Decoding) -> None:
    for r in range(R):
        for mode in MODES:
            missed = [miss for n in range(N) for miss in mistakes(canned, mode, r, n)]
            assert decoding.token_error(mode)[r].item() == pytest.approx(sum(missed) / len(missed), rel=1e-6)
            assert 0.05 < sum(missed) / len(missed) < 0.95
        wrong = [any(mistakes(canned, FREE_RUNNING, r, n)) for n in range(N)]
        assert decoding.sequence_error()[r].item() == pytest.approx(sum(wrong) / N, rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_errors_by_output_position(canned: Canned, decoding: Decoding, mode: str) -> None:
    error_RU, num_U = decoding.by_position(mode)
    for u in range(U):
        for r in range(R):
            missed = [found[u] for n in range(N) if len(found := mistakes(canned, mode, r, n)) > u]
            assert num_U[u] == len(missed)
            assert error_RU[r, u].item() == pytest.approx(sum(missed) / len(missed), rel=1e-6)


def test_errors_by_source_length(canned: Canned, decoding: Decoding) -> None:
    lengths_N = torch.where(LENGTHS == 4, 5, LENGTHS)  # one does not occur
    lengths_K, error_RK, num_K = decoding.by_length(lengths_N)
    assert lengths_K.tolist() == [1, 2, 3, 5, 6]
    for k, length in enumerate(lengths_K.tolist()):
        chosen = [n for n in range(N) if lengths_N[n] == length]
        assert num_K[k] == len(chosen)
        for r in range(R):
            wrong = [any(mistakes(canned, FREE_RUNNING, r, n)) for n in chosen]
            assert error_RK[r, k].item() == pytest.approx(sum(wrong) / len(wrong), rel=1e-12)


def test_what_follows_the_end_is_dropped_and_the_end_itself_stays() -> None:
    said = randint(0, 5, 2, 40, 7, seed=4)
    found = ended(said)
    for row, kept in zip(said.flatten(0, 1).tolist(), found.flatten(0, 1).tolist(), strict=True):
        stop = row.index(EOS) + 1 if EOS in row else len(row)
        assert kept == row[:stop] + [PAD] * (len(row) - stop)
    assert ended(torch.tensor([[3, 4, EOS]])).tolist() == [[3, 4, EOS]]
    assert ended(torch.tensor([[EOS, 3, EOS]])).tolist() == [[EOS, PAD, PAD]]


def test_a_loss_that_is_not_finite_leaves_no_error(decoding: Decoding) -> None:
    losses = {TEACHER_FORCED: torch.tensor([0.5, math.nan, math.inf]), FREE_RUNNING: torch.ones(R)}
    ill = decoding._replace(losses=losses)
    for errors in (*(ill.token_error(mode) for mode in MODES), ill.sequence_error()):
        assert errors.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("attention", [NO_ATTENTION, Dot(feeds="attentional_state")])
def test_greedy_decoders_get_the_same_sequences_wrong_in_both_modes(attention: Any) -> None:
    """A network that writes a sequence right reads its own tokens as it would the true ones."""
    spec = ModelSpec.plain(cell="gru", hidden_size=8, attention=attention)
    pack = Replicas([EncoderDecoder(INTERFACE, spec, r) for r in range(R)])
    with torch.no_grad():
        pack.flat_RP.mul_(4.0)  # for them to have something to say
        pack.named(pack.flat_RP)["decoder.readout.bias"][:] = torch.tensor([-100.0, -100.0, 1.0, 0.0, 0.0, 0.0])
    source = ragged(S, LENGTHS, 5).to(torch.uint8)
    given = Seq2SeqInputs(source, torch.full((N, U), SOS))
    never = torch.zeros(N, U, dtype=torch.bool)
    own = ended(pack.free_running(pack.named(pack.flat_RP), given, never, shared=True)[1])[
        0
    ]  # what the first one writes
    own[::3, 0] = torch.where(own[::3, 0] == 3, 4, 3)  # but for a mistake in every third
    decoded = decode(pack, pack.flat_RP, Sequences(Seq2SeqInputs(source, teacher_forced(own)), own))
    wrong = {mode: decoded.wrong(mode).any(dim=2) for mode in MODES}
    assert torch.equal(wrong[TEACHER_FORCED], wrong[FREE_RUNNING])
    assert decoded.sequence_error()[0] == pytest.approx(1 / 3)
    assert torch.equal(decoded.sequence_error(), wrong[TEACHER_FORCED].double().mean(dim=1))
    assert (decoded.token_error(TEACHER_FORCED) != decoded.token_error(FREE_RUNNING)).any()


def test_losses_of_a_real_pack_are_those_of_its_networks_given_the_tokens_that_they_said() -> None:
    spec = ModelSpec.plain(cell="lstm", hidden_size=8, embedding_size=3, attention=Dot(feeds="context"))
    pack = Replicas([EncoderDecoder(INTERFACE, spec, r).double() for r in range(R)])
    source = ragged(S, LENGTHS, 5).to(torch.uint8)
    decoded = decode(pack, pack.flat_RP, Sequences(Seq2SeqInputs(source, teacher_forced(TARGETS)), TARGETS))
    for r in range(R):
        model = EncoderDecoder(INTERFACE, spec, r).double()
        given = teacher_forced(TARGETS)
        expected = loss(INTERFACE, model(Seq2SeqInputs(source, given)).values, TARGETS)
        torch.testing.assert_close(decoded.losses[TEACHER_FORCED][r], expected, rtol=1e-9, atol=0)
        for u in range(1, U):  # one token more at a time
            said = model(Seq2SeqInputs(source, given)).values.argmax(dim=-1)
            given = torch.cat([given[:, :u], said[:, u - 1 : u], given[:, u + 1 :]], dim=1)
        predicted = model(Seq2SeqInputs(source, given)).values
        torch.testing.assert_close(
            decoded.losses[FREE_RUNNING][r], loss(INTERFACE, predicted, TARGETS), rtol=1e-9, atol=0
        )
        assert torch.equal(decoded.tokens[FREE_RUNNING][r], ended(predicted.argmax(dim=-1)))


UNKNOWN = 4


def test_the_unknown_token_is_never_a_right_answer(decoding: Decoding) -> None:
    known = decoding._replace(interface=dataclasses.replace(INTERFACE, unknown=UNKNOWN))
    answered = (decoding.tokens[FREE_RUNNING] == UNKNOWN) & (TARGETS == UNKNOWN)
    assert answered.any()
    assert torch.equal(known.wrong(FREE_RUNNING), decoding.wrong(FREE_RUNNING) | (TARGETS == UNKNOWN).expand(R, -1, -1))
    assert (known.sequence_error() > decoding.sequence_error()).all()
    every = known._replace(tokens=dict.fromkeys(MODES, TARGETS.expand(R, -1, -1)))
    share = (TARGETS == UNKNOWN).sum() / (TARGETS != PAD).sum()
    torch.testing.assert_close(every.token_error(FREE_RUNNING), share.double().expand(R))


def small_replicas(**changes: Any) -> tuple[Replicas, Sequences]:
    spec = dataclasses.replace(ModelSpec.plain(cell="gru", hidden_size=4), attention=Dot(feeds="nothing"))
    interface = dataclasses.replace(INTERFACE, **changes)
    replicas = Replicas([EncoderDecoder(interface, spec, seed).double() for seed in range(R)])
    return replicas, Sequences(Seq2SeqInputs(ragged(S, LENGTHS, 7), teacher_forced(TARGETS)), TARGETS)


@pytest.mark.slow
def test_a_large_vocabulary_is_evaluated_in_smaller_portions_with_the_same_result(monkeypatch) -> None:
    replicas, split = small_replicas()
    per_sequence = 2 * 4 * S + 4 * (U - S) + INTERFACE.input_size * S + U * V + U * S  # states, inputs, logits, weights
    assert [len(part.targets) for part in evaluation.portions(replicas, split)] == [128, 22]
    split = split.take(slice(20))
    expected = decode(replicas, replicas.flat_RP, split), evaluate(replicas, replicas.flat_RP, split)
    for num, at_once in ((7 * R * per_sequence, 7), (7 * R * per_sequence - 1, 6), (1, 1)):
        monkeypatch.setattr(evaluation, "MAX_NUMBERS_AT_ONCE", num)
        assert len(evaluation.portions(replicas, split)[0].targets) == at_once
        found = decode(replicas, replicas.flat_RP, split), evaluate(replicas, replicas.flat_RP, split)
        for mode in MODES:
            assert torch.equal(found[0].tokens[mode], expected[0].tokens[mode])
            torch.testing.assert_close(found[0].losses[mode], expected[0].losses[mode], rtol=1e-12, atol=0)
        for mine, theirs in zip(found[1], expected[1], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)


def test_as_many_sequences_at_once_as_memory_holds() -> None:
    assert evaluation.num_at_once(5, 51 * 30_000) * 5 * 51 * 30_000 <= evaluation.MAX_NUMBERS_AT_ONCE
    assert evaluation.num_at_once(5, 100 * 97) == 128
    assert evaluation.num_at_once(5, 10**12) == 1


@pytest.mark.parametrize("attention", [NO_ATTENTION, Dot(feeds="nothing"), Dot(feeds="context")])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_empty_source_leaves_losses_and_gradients_finite_and_other_sequences_alone(
    attention: Any, bidirectional: bool
) -> None:
    spec = ModelSpec.plain(cell="lstm", hidden_size=4, bidirectional=bidirectional)
    spec = dataclasses.replace(spec, attention=attention)
    replicas = Replicas([EncoderDecoder(INTERFACE, spec, seed).double() for seed in range(R)])
    source = ragged(S, torch.tensor([0, 3]), 7)
    inputs = Seq2SeqInputs(source, teacher_forced(TARGETS[:2]))
    run = replicas.backpropagate(replicas.flat_RP, inputs, TARGETS[:2], trace=True, shared=True)
    assert run.losses.isfinite().all()
    assert run.grad_RP.isfinite().all()
    assert all(grad.isfinite().all() for grad in run.grad_states.values())
    both = replicas.predict(replicas.named(replicas.flat_RP), inputs)
    alone = replicas.predict(replicas.named(replicas.flat_RP), Seq2SeqInputs(source[1:], inputs.decoder_inputs[1:]))
    torch.testing.assert_close(both[:, 1:], alone, rtol=1e-12, atol=1e-13)
