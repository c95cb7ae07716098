"""Every tag is the symbol that its token looks at, and the losses are those of the best answers, counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.generator import stream
from pipeline.data.tagging import CONTEXTS, Tagging, memoryless_loss, parts_of
from pipeline.errors import DatasetError


def tagging(num_symbols: int, max_distance: int) -> Tagging:
    return Tagging(seed=0, lengths=(), num_symbols=num_symbols, max_distance=max_distance)


TAGGING = tagging(4, 3)


def conditional_entropy(given: np.ndarray, targets: np.ndarray) -> float:
    """Return the entropy of the targets given something else, from their frequencies, in nats."""
    table = np.zeros((given.max() + 1, targets.max() + 1))
    np.add.at(table, (given.ravel(), targets.ravel()), 1)
    shares = table / table.sum(axis=1, keepdims=True).clip(min=1)
    return float(-(table * np.log(np.where(shares > 0, shares, 1))).sum() / targets.size)


@pytest.mark.parametrize(
    ("num_timesteps", "num_symbols", "max_distance"), [(2, 2, 1), (4, 4, 3), (30, 4, 3), (9, 3, 8)]
)
def test_every_tag_is_the_symbol_that_is_looked_at(num_timesteps, num_symbols, max_distance):
    split = tagging(num_symbols, max_distance).sample(stream(0), 100, num_timesteps)
    for inputs, targets in zip(split.inputs, split.targets, strict=True):
        for t, token in enumerate(inputs.tolist()):
            context, rest = token % 3, token // 3
            distance = rest // num_symbols + 1
            looked_at = t + {0: 0, 1: -distance, 2: distance}[context]
            assert 0 <= looked_at < num_timesteps
            assert targets[t] == inputs[looked_at] // 3 % num_symbols


def test_what_a_token_is_can_be_told_from_it():
    tokens = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(2, 18)
    contexts, symbols, distances = parts_of(tokens, 4)
    np.testing.assert_array_equal(contexts + 3 * (symbols + 4 * (distances - 1)), tokens)
    assert set(contexts.ravel()) == {0, 1, 2}
    assert set(symbols.ravel()) == {0, 1, 2, 3}
    assert set(distances.ravel()) == {1, 2, 3}


def test_a_token_that_would_look_beyond_an_end_is_plain():
    inputs = TAGGING.sample(stream(0), 20_000, 7).inputs
    left, right = ((parts_of(inputs, 4)[0] == c).mean(axis=0) for c in (1, 2))
    fits = np.array([0, 1, 2, 3, 3, 3, 3]) / 9
    assert (np.abs(left - fits) < 4 * math.sqrt(1 / 4 / 20_000)).all()
    assert (np.abs(right - fits[::-1]) < 4 * math.sqrt(1 / 4 / 20_000)).all()
    assert (left[0], right[-1]) == (0, 0)


def test_symbols_are_drawn_alike_in_each_context():
    contexts, symbols, _ = parts_of(TAGGING.sample(stream(0), 2000, 20).inputs, 4)
    for context in range(3):
        counts = np.bincount(symbols[contexts == context])
        assert (np.abs(counts / counts.sum() - 1 / 4) < 0.02).all()


@pytest.mark.parametrize(("num_timesteps", "num_symbols", "max_distance"), [(4, 4, 3), (50, 4, 3), (8, 2, 1)])
def test_the_memoryless_loss_is_that_of_the_best_answer_to_one_token(num_timesteps, num_symbols, max_distance):
    split = tagging(num_symbols, max_distance).sample(stream(0), 200_000 // num_timesteps, num_timesteps)
    expected = memoryless_loss(num_timesteps, num_symbols, max_distance)
    assert conditional_entropy(split.inputs, split.targets) == pytest.approx(expected, abs=0.005)


def test_with_what_is_on_the_left_only_right_tokens_are_guessed():
    split = TAGGING.sample(stream(0), 4000, 50)
    contexts, symbols, distances = parts_of(split.inputs.astype(int), 4)
    looked_at = np.maximum(np.arange(50) - np.where(contexts == 1, distances, 0), 0)
    known = np.where(contexts == 2, 4, np.take_along_axis(symbols, looked_at, axis=1))
    assert conditional_entropy(known, split.targets) == pytest.approx(memoryless_loss(50, 4, 3) / 2, abs=0.005)
    assert memoryless_loss(50, 4, 3) / 2 == pytest.approx(math.log(4) / 3 * (1 - 4 / 100), rel=1e-12)


def test_each_context_alone_has_the_loss_that_it_should():
    split = TAGGING.sample(stream(0), 4000, 50)
    losses = []
    for context in range(3):
        chosen = parts_of(split.inputs, 4)[0] == context
        losses.append(conditional_entropy(split.inputs[chosen], split.targets[chosen]))
    assert losses[0] == 0
    assert losses[1:] == pytest.approx([math.log(4)] * 2, abs=0.001)


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = TAGGING.generate(10, sizes)
    assert (dataset.input_kind, dataset.input_size) == ("token", 36)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "every", 4)
    assert (dataset.baseline_loss, dataset.baseline_name) == (memoryless_loss(10, 4, 3), "memoryless")
    assert dataset.num_timesteps == dataset.length == 10
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        assert dataset.splits[split].inputs.shape == dataset.splits[split].targets.shape == (num, 10)
        assert dataset.splits[split].inputs.dtype == dataset.splits[split].targets.dtype == np.uint8


def test_the_groups_of_tokens_are_their_contexts(sizes):
    groups = TAGGING.generate(10, sizes).token_groups
    assert tuple(groups) == CONTEXTS
    assert sorted(token for tokens in groups.values() for token in tokens) == list(range(36))
    for context, tokens in enumerate(groups.values()):
        assert set(parts_of(np.array(tokens), 4)[0]) == {context}


def test_the_most_tokens_that_a_byte_can_tell_apart(sizes):
    largest = tagging(5, 17).generate(40, Sizes(500, 1, 1))
    assert largest.input_size == 255
    assert largest.splits["train"].inputs.max() == 254


def test_a_sequence_shorter_than_a_look(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'tagging': length 3 is impossible; .*at least 4"):
        TAGGING.generate(3, sizes)


@pytest.mark.parametrize(
    ("num_symbols", "max_distance", "message"),
    [
        (1, 3, "num_symbols: expected an integer from 2 to 26, got 1"),
        (27, 1, "num_symbols: expected an integer from 2 to 26, got 27"),
        (4, 0, r"max_distance: expected an integer from 1 to 21 \(with 4 symbols\), got 0"),
        (4, 22, r"max_distance: expected an integer from 1 to 21 \(with 4 symbols\), got 22"),
    ],
)
def test_fields_out_of_range(num_symbols, max_distance, message):
    with pytest.raises(InvalidFieldError, match=message):
        tagging(num_symbols, max_distance)


def test_the_drawing_shows_where_each_tag_comes_from(sizes):
    dataset = TAGGING.generate(10, sizes)
    symbols, looks, tags = TAGGING.draw(dataset).split("\n\n")[0].splitlines()
    train = dataset.splits["train"]
    contexts, values, distances = parts_of(train.inputs[0], 4)
    assert symbols.split() == ["symbol", *("ABCD"[v] for v in values)]
    assert tags.split() == ["target", *("ABCD"[v] for v in train.targets[0])]
    shown = looks.ljust(len(symbols))[len("symbol  ") :]
    cells = [shown[i : i + 3].strip() for i in range(0, 30, 3)]
    signs = {0: "", 1: "-", 2: "+"}
    assert cells == [f"{signs[c]}{d}" if c else "" for c, d in zip(contexts, distances, strict=True)]
