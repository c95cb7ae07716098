"""What a decoder writes: greedily as when it runs free, by a beam the best of all texts there are."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pipeline.config import InvalidFieldError
from pipeline.core.attention.score import Dot, NoAttention
from pipeline.core.models import Interface, ModelSpec, Seq2SeqInputs, build_network
from pipeline.core.models.encoder_decoder import EncoderDecoder
from pipeline.core.models.writing import write_by_beam, write_greedily
from pipeline.data.dataset import EOS, PAD, SOS
from tests.core.slowly import slowly

NUM_TOKENS, LONGEST = 6, 4
PAIRS = Interface(
    input_kind="token", input_size=8, target_at="sequence", target_kind="class", output_size=NUM_TOKENS, padded=True
)
SOURCES = torch.tensor([[3, 4, 5, 6], [7, 3, PAD, PAD], [5, 5, 5, PAD]])


def network(attention: str = "attentional_state", seed: int = 1) -> EncoderDecoder:
    rule = NoAttention() if attention == "none" else Dot(feeds=attention)  # type: ignore[arg-type]
    spec = ModelSpec.plain("gru", 8, attention=rule, bidirectional=True)
    made = build_network(PAIRS, spec, seed)
    assert isinstance(made, EncoderDecoder)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3.0)  # so that probabilities are not all alike
    return made.double()


def log_p(model: EncoderDecoder, source: Tensor, tokens: list[int]) -> float:
    """ln P of a text and its end, from one teacher-forced pass."""
    said = [*tokens, EOS]
    values = model(Seq2SeqInputs(source, torch.tensor([[SOS, *tokens]]))).values[0].log_softmax(dim=-1)
    return sum(values[u, token].item() for u, token in enumerate(said))


def every_text() -> list[list[int]]:
    symbols = range(EOS + 1, NUM_TOKENS)
    return [list(text) for length in range(LONGEST) for text in itertools.product(symbols, repeat=length)]


@pytest.mark.parametrize("penalty", [1.0, *slowly(0.0)])
@pytest.mark.parametrize("attention", ["nothing", *slowly("none", "attentional_state")])
def test_a_beam_that_drops_nothing_finds_the_best_of_all_texts(attention: str, penalty: float) -> None:
    model = network(attention)
    for source in (SOURCES[:1], SOURCES[1:2, :2]):
        known = {tuple(text): log_p(model, source, text) for text in every_text()}
        scores = {text: p / ((6 + len(text)) / 6) ** penalty for text, p in known.items()}
        found = write_by_beam(model, source, LONGEST, 100, penalty)
        best = sorted(scores, key=lambda text: -scores[text])[: len(found)]
        assert [tuple(one.tokens) for one in found[:10]] == best[:10]
        for one in found[:10]:
            assert one.log_probability == pytest.approx(known[tuple(one.tokens)], rel=1e-12)
            assert one.is_whole


@pytest.mark.slow
def test_more_beams_never_find_worse_where_the_first_ends_by_itself() -> None:
    for seed in range(4):
        model = network(seed=seed)
        scores = [write_by_beam(model, SOURCES[:1], 8, beams)[0].log_probability for beams in (1, 100)]
        assert scores[1] >= scores[0] - 1e-12


@pytest.mark.parametrize("attention", ["none", "attentional_state"])
def test_greedy_texts_are_those_of_a_loop_and_of_each_source_alone(attention: str) -> None:
    model = network(attention)
    together = write_greedily(model, SOURCES, 7)
    for row, one in zip(SOURCES, together, strict=True):
        source, tokens = row[row != PAD][None], [SOS]
        total, weights = 0.0, None
        for _ in range(7):
            predicted = model(Seq2SeqInputs(source, torch.tensor([tokens])))
            best = predicted.values[0, -1].log_softmax(dim=-1).max(dim=0)
            total, weights = total + best.values.item(), predicted.weights
            tokens.append(int(best.indices))
            if tokens[-1] == EOS:
                break
        assert one.is_whole == (tokens[-1] == EOS)
        assert one.tokens == [token for token in tokens[1:] if token != EOS]
        assert one.log_probability == pytest.approx(total, rel=1e-10)
        if weights is None:
            assert one.weights_US is None
        else:
            assert one.weights_US is not None
            torch.testing.assert_close(one.weights_US[:, : source.shape[1]], weights[0], rtol=1e-9, atol=1e-12)


def test_what_is_cut_off_says_so() -> None:
    model = network("none")
    with torch.no_grad():
        model.decoder.readout.bias[EOS] = -1e3
    (one,) = write_greedily(model, SOURCES[:1], 5)
    assert not one.is_whole
    assert len(one.tokens) == 5


@pytest.mark.parametrize(("beams", "longest", "penalty"), [(0, 5, 0.0), (1, 0, 0.0), (1, 5, -1.0)])
def test_numbers_out_of_range_are_refused(beams: int, longest: int, penalty: float) -> None:
    with pytest.raises(InvalidFieldError, match="at least"):
        write_by_beam(network(), SOURCES[:1], longest, beams, penalty)
