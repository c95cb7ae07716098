"""Language models written on and scored: against whole passes, exhaustive enumeration, and after training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config import build
from pipeline.core.models import Interface, ModelSpec, Replicas, SequenceModel
from pipeline.core.models.architecture import NoAttention
from pipeline.core.models.generation import beam_search, generate, log_probability, network_of
from pipeline.core.training import TrialSpec, train_networks
from tests.core.cells.reference import IN_TORCH
from tests.core.slowly import mostly, slowly
from tests.core.training.conftest import RAW, SmallDataset, Split

V, H = 4, 6
LANGUAGE = Interface(input_kind="token", input_size=V, target_at="every", target_kind="class", output_size=V)
PROMPT = (2, 0, 3)


def model_of(
    cell: str = "lstm", seed: int = 0, interface: Interface = LANGUAGE, bidirectional: bool = False
) -> SequenceModel:
    """Weights are larger than training begins with, so that distributions are far from flat."""
    spec = ModelSpec.plain(cell=cell, hidden_size=H, num_layers=2, bidirectional=bidirectional, attention=NoAttention())
    model = SequenceModel(interface, spec, seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def next_log_p(model: SequenceModel, prefix: Sequence[int]) -> Tensor:
    """ln P of the next token, (V,), by a pass over the whole prefix."""
    return model(torch.tensor([prefix])).values[0, -1].log_softmax(dim=0)


@pytest.mark.parametrize("cell", IN_TORCH)
def test_scores_follow_the_chain_rule(cell: str) -> None:
    model, tokens = model_of(cell), [*PROMPT, 1, 1, 0, 2]
    found = log_probability(model, tokens)
    assert found.shape == (len(tokens) - 1,)
    for t in range(1, len(tokens)):
        assert found[t - 1].item() == pytest.approx(next_log_p(model, tokens[:t])[tokens[t]].item(), abs=1e-9)
    assert log_probability(model, [1]).shape == (0,)
    continuations = itertools.product(range(V), repeat=3)
    total = sum(log_probability(model, [1, *others]).sum().exp().item() for others in continuations)
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, *slowly(0.0, 1.0)])
@pytest.mark.parametrize("cell", mostly(IN_TORCH, "lstm"))
def test_states_carried_from_token_to_token_write_what_whole_passes_do(cell: str, temperature: float) -> None:
    model, written, draws = model_of(cell), list(PROMPT), fresh()
    for _ in range(30):
        log_p = next_log_p(model, written)
        shares = (log_p / temperature).softmax(dim=0) if temperature else (log_p == log_p.max()).double()
        written.append(int(torch.multinomial(shares, 1, generator=draws)))
    assert generate(model, PROMPT, 30, temperature=temperature, generator=fresh()) == written[len(PROMPT) :]


@pytest.mark.parametrize("cell", IN_TORCH)
def test_the_sum_of_a_beam_is_the_score_of_what_it_wrote(cell: str) -> None:
    model = model_of(cell)
    sequence, total = beam_search(model, PROMPT, 30, num_beams=1)
    assert total == pytest.approx(log_probability(model, [*PROMPT, *sequence])[2:].sum().item(), abs=1e-9)


def test_every_token_is_read_once() -> None:
    model, lengths = model_of(), []
    model.recurrent.register_forward_pre_hook(lambda module, arguments: lengths.append(len(arguments[0])))
    generate(model, PROMPT, 20, temperature=1.0, generator=fresh())
    assert lengths == [len(PROMPT), *[1] * 19]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_draws_have_the_tempered_distribution(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws, num = model_of(), fresh(), 4000
    answer = model(torch.tensor([PROMPT]))  # to the same prompt always the same: 4000 passes are one
    monkeypatch.setattr(model, "forward", lambda *arguments, **options: answer)
    drawn = [generate(model, PROMPT, 1, temperature=temperature, generator=draws)[0] for _ in range(num)]
    shares = (next_log_p(model_of(), PROMPT) / temperature).softmax(dim=0).detach().numpy()
    error = np.sqrt(shares * (1 - shares) / num)
    assert (np.abs(np.bincount(drawn, minlength=V) / num - shares) <= 4 * error + 1 / num).all()


@pytest.mark.slow
def test_at_the_ends_of_temperature_draws_are_greedy_or_equal() -> None:
    model, draws = model_of(), fresh()
    state = draws.get_state()
    greedy = generate(model, PROMPT, 12, temperature=0.0, generator=draws)
    assert torch.equal(draws.get_state(), state)
    assert generate(model, PROMPT, 12, temperature=1e-320, generator=draws) == greedy
    counts = np.bincount(generate(model, PROMPT, 2000, temperature=math.inf, generator=draws), minlength=V)
    assert (np.abs(counts / 2000 - 1 / V) < 4 * np.sqrt(3 / 16 / 2000)).all()
    once, again, other = (generate(model, PROMPT, 12, temperature=1.0, generator=fresh(seed)) for seed in (1, 1, 2))
    assert once == again != other


@pytest.mark.parametrize("seed", range(5))
def test_with_a_beam_for_every_beginning_the_likeliest_sequence_is_found(seed: int) -> None:
    model, steps = model_of(seed=seed), 4
    sequences = [*itertools.product(range(V), repeat=steps)]
    rows = torch.tensor([[*PROMPT, *sequence] for sequence in sequences])
    log_p = model(rows).values.log_softmax(dim=2)[:, :-1].gather(2, rows[:, 1:, None])[:, len(PROMPT) - 1 :, 0]
    scores = dict(zip(sequences, log_p.sum(dim=1).tolist(), strict=True))
    best = max(scores, key=lambda sequence: scores[sequence])
    for num_beams in (V**steps, V ** (steps - 1)):
        sequence, total = beam_search(model, PROMPT, steps, num_beams)
        assert tuple(sequence) == best
        assert total == pytest.approx(scores[best], abs=1e-9)


def test_one_beam_is_greedy_and_more_find_what_is_likelier() -> None:
    gains = []
    for seed in range(12):
        model = model_of("gru", seed)
        greedy, total = beam_search(model, PROMPT, 6, num_beams=1)
        assert greedy == generate(model, PROMPT, 6, temperature=0.0, generator=fresh())
        gains.append(beam_search(model, PROMPT, 6, num_beams=V**3)[1] - total)
    assert min(gains) > -1e-12
    assert max(gains) > 0.1, "greedy should be short-sighted for some of these networks"
    assert beam_search(model, PROMPT, 0, num_beams=3) == ([], 0.0)


def test_a_network_is_taken_out_of_a_replica_batch_with_weights_of_its_own() -> None:
    models = [model_of(seed=seed) for seed in range(3)]
    replicas = Replicas(models)
    network = network_of(replicas, replicas.flat_RP, 2)
    for mine, theirs in zip(network.parameters(), models[2].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    before = replicas.flat_RP.clone()
    with torch.no_grad():
        next(network.parameters()).zero_()
    assert torch.equal(replicas.flat_RP, before)
    assert next(replicas.model.parameters()).any()


NO_LANGUAGE = [
    (
        Interface(input_kind="real", input_size=V, target_at="every", target_kind="class", output_size=V),
        "got Interface.*input_kind='real'",
    ),
    (
        Interface(input_kind="token", input_size=V, target_at="last", target_kind="class", output_size=V),
        "got Interface.*target_at='last'",
    ),
    (
        Interface(input_kind="token", input_size=V, target_at="every", target_kind="value", output_size=V),
        "got Interface.*target_kind='value'",
    ),
    (
        Interface(input_kind="token", input_size=V, target_at="every", target_kind="class", output_size=9),
        "got Interface.*output_size=9",
    ),
]
USES: list[Callable[[nn.Module, Sequence[int]], Any]] = [
    lambda model, tokens: generate(model, tokens, 2, temperature=1.0, generator=fresh()),
    lambda model, tokens: beam_search(model, tokens, 2, num_beams=2),
    log_probability,
]


@pytest.mark.parametrize("use", USES)
def test_what_is_no_language_model_is_refused(use: Callable[[nn.Module, Sequence[int]], Any]) -> None:
    for interface, told in NO_LANGUAGE:
        with pytest.raises(ValueError, match=f"model: expected a language model: tokens in.*{told}"):
            use(model_of(interface=interface), PROMPT)
    with pytest.raises(ValueError, match="reads forward in time alone, got 'both directions'"):
        use(model_of(bidirectional=True), PROMPT)
    with pytest.raises(ValueError, match="expected a language model, a SequenceModel, got 'Linear'"):
        use(nn.Linear(2, 2), PROMPT)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("token", [-1, V])
def test_a_token_outside_the_vocabulary_is_refused(use: Callable[[nn.Module, Sequence[int]], Any], token: int) -> None:
    told = f"token 2 of 3: expected an id of the vocabulary of 4 tokens, from 0 to 3, got {token}"
    with pytest.raises(ValueError, match=told):
        use(model_of(), [0, token, 1])
    with pytest.raises(ValueError, match=r"(prompt|tokens): expected at least one token"):
        use(model_of(), [])


def test_numbers_out_of_range_are_refused() -> None:
    for temperature in (-0.5, math.nan):
        with pytest.raises(ValueError, match=f"temperature: expected a number of at least 0, got {temperature}"):
            generate(model_of(), PROMPT, 2, temperature=temperature, generator=fresh())
    with pytest.raises(ValueError, match="num_tokens: expected an integer of at least 0, got -1"):
        generate(model_of(), PROMPT, -1, temperature=1.0, generator=fresh())
    with pytest.raises(ValueError, match="num_tokens: expected an integer of at least 0, got -1"):
        beam_search(model_of(), PROMPT, -1, num_beams=2)
    with pytest.raises(ValueError, match="num_beams: expected an integer of at least 1, got 0"):
        beam_search(model_of(), PROMPT, 2, num_beams=0)


def trained(sequences: Sequence[Sequence[int]], num_tokens: int, max_steps: int = 200) -> nn.Module:
    """A language model of one seed, trained as every trial is; `sequences` are of one length and are all splits."""
    ids = np.array(sequences, dtype=np.uint8)
    rows = np.resize(ids, (max(len(ids), 16), ids.shape[1]))
    split = Split(rows[:, :-1], rows[:, 1:])
    splits = dict.fromkeys(("train", "validation", "test"), split)
    dataset = SmallDataset(splits, "token", num_tokens, "every", "class", num_tokens, math.log(num_tokens))
    training = RAW["training"] | {"max_steps": max_steps, "evaluate_every": 50}
    model = RAW["model"] | {"cell": "gru", "hidden_size": 24}
    raw = RAW | {"model": model, "training": training, "optimiser": RAW["optimiser"] | {"learning_rate": 0.02}}
    spec = build(TrialSpec, raw | {"seeds": [0]}, "a test")
    return train_networks(spec, dataset)[0]


@pytest.mark.slow
def test_hello() -> None:
    letters = "ehlo"
    model = trained([[letters.index(letter) for letter in "hello"]], len(letters))
    written = generate(model, [letters.index("h")], 4, temperature=0.0, generator=fresh())
    assert "".join(letters[i] for i in written) == "ello"


CORPUS = """
you are going home    we are going home     they are going home   I am staying home
you are going away    we are going away     I am going away       they are staying away
I see the house       you see the house     we paint the house    they paint the house
I am in bed           you are in town       we are in town        they are in bed
"""


def test_i_am_going_home_is_likelier_than_i_am_going_house() -> None:
    """Neither sentence is in the corpus."""
    words = CORPUS.split()
    vocabulary = sorted(set(words))
    ids = np.array([vocabulary.index(word) for word in words]).reshape(-1, 4)
    model = trained(ids.tolist(), len(vocabulary), max_steps=50)

    def score(sentence: str) -> float:
        assert sentence not in {" ".join(words[i : i + 4]) for i in range(0, len(words), 4)}
        return log_probability(model, [vocabulary.index(word) for word in sentence.split()]).sum().item()

    assert score("I am going home") > score("I am going house") + math.log(100)


@pytest.mark.slow
def test_the_right_continuation_of_a_number_series_is_likelier_than_any_other() -> None:
    """Digits that rise by 1, 2 or 3 (modulo 10): two of them tell the step, and so all that follow."""
    series = {(start, step): [(start + step * t) % 10 for t in range(6)] for start in range(10) for step in (1, 2, 3)}
    model = trained(list(series.values()), 10, max_steps=400)
    for (start, step), digits in series.items():
        right = log_probability(model, digits)[2:].sum()
        others = [digits[:3] + series[(start + 2 * (step - other)) % 10, other][3:] for other in (1, 2, 3)]
        wrong = [log_probability(model, other)[2:].sum() for other in others if other != digits]
        assert len(wrong) == 2
        assert right > max(wrong) + math.log(10)
        assert generate(model, digits[:3], 3, temperature=0.0, generator=fresh()) == digits[3:]


@pytest.mark.parametrize(
    "use",
    [
        lambda model: generate(model, PROMPT, 3, temperature=0.0, generator=fresh()),
        lambda model: generate(model, PROMPT, 3, temperature=1.0, generator=fresh()),
        lambda model: beam_search(model, PROMPT, 3, 2),
        lambda model: log_probability(model, PROMPT),
    ],
    ids=["greedy", "sampled", "beam", "scored"],
)
def test_weights_that_are_not_finite_write_and_score_nothing_and_are_named(use: Callable[[SequenceModel], Any]) -> None:
    model = model_of()
    with torch.no_grad():
        model.recurrent.weight_hh_l1[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"model: expected .* numbers, got 'recurrent.weight_hh_l1: not finite'"):
        use(model)
    overflowing = model_of()
    with torch.no_grad():
        overflowing.recurrent.bias_ih_l1.fill_(1e3)  # every gate is open, every state near tanh 1
        overflowing.readout.weight.fill_(1e308)
    with pytest.raises(ValueError, match="model: expected .* numbers, got 'finite weights, and predictions that over"):
        use(overflowing)
