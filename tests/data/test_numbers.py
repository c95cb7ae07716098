"""Sources and targets are num2words' own words of one number, and nothing is known but the words."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.dataset import EOS, PAD, SPLITS
from pipeline.data.generator import Shares
from pipeline.data.numbers import Numbers, num_words, vocabulary, words
from pipeline.errors import DatasetError

num2words = pytest.importorskip("num2words").num2words

NUMBERS = Numbers(seed=0, lowest=0, highest=999_999, target="words", shares=Shares(0.8, 0.1, 0.1))
DIGITS = dataclasses.replace(NUMBERS, target="digits")
SMALL = dataclasses.replace(DIGITS, highest=99)
SAMPLE = [*range(100), *range(71, 1_000_000, 3989), 80_080, 999_999]


def texts(tokens: tuple[str, ...], rows: np.ndarray) -> list[str]:
    return [" ".join(tokens[i] for i in row if i not in (PAD, EOS)) for row in rows]


@pytest.mark.parametrize(
    ("number", "french", "english"),
    [
        (0, "zéro", "zero"),
        (71, "soixante et onze", "seventy one"),
        (90_200, "quatre vingt dix mille deux cents", "ninety thousand two hundred"),
        (1001, "mille un", "one thousand and one"),
    ],
)
def test_known_numbers(number, french, english):
    assert (words(number, "fr"), words(number, "en")) == (french.split(), english.split())


@pytest.mark.slow
def test_sources_and_targets_are_words_of_the_same_number(sizes):
    in_words, in_digits = NUMBERS.generate(13, sizes), DIGITS.generate(13, sizes)
    for split in SPLITS:
        np.testing.assert_array_equal(in_words.splits[split].inputs, in_digits.splits[split].inputs)
        french = texts(in_words.input_tokens, in_words.splits[split].inputs)
        english = texts(in_words.target_tokens, in_words.splits[split].targets)
        digits = texts(in_digits.target_tokens, in_digits.splits[split].targets)
        numbers = [int(text.replace(" ", "")) for text in digits]
        assert french == [num2words(number, lang="fr").replace("-", " ") for number in numbers]
        assert english == [num2words(number).replace("-", " ").replace(",", "") for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["fr", "en"])
def test_words_are_counted_and_known_without_writing_every_number(language):
    counts, tokens = num_words(language), vocabulary(language)
    assert counts.shape == (1_000_000,)
    for number in SAMPLE:
        spelt = num2words(number, lang=language).replace("-", " ").replace(",", "").split()
        assert counts[number] == len(spelt)
        assert tokens.decode(tokens.encode(spelt)) == tuple(spelt)


def test_the_longest_number_of_a_range():
    assert NUMBERS.natural_length == len(words(497_497, "fr")) == 13
    for lowest, highest, longest in ((0, 19, 2), (0, 30, 3), (80, 100, 4)):
        assert dataclasses.replace(NUMBERS, lowest=lowest, highest=highest).natural_length == longest


def test_every_number_is_in_one_split_and_in_none_twice():
    dataset = SMALL.generate(4, Sizes(1000, 1000, 1000))
    numbers = [texts(dataset.target_tokens, dataset.splits[split].targets) for split in SPLITS]
    assert [len(found) for found in numbers] == [80, 10, 10]
    assert {int(text.replace(" ", "")) for found in numbers for text in found} == set(range(100))
    sources = [row.tobytes() for split in SPLITS for row in dataset.splits[split].inputs]
    assert len(set(sources)) == 100


@pytest.mark.parametrize(("numbers", "num_target_tokens", "num_targets"), [(NUMBERS, 34, 12), (DIGITS, 13, 7)])
def test_the_task_says_what_the_arrays_are(numbers, num_target_tokens, num_targets, sizes):
    dataset = numbers.generate(13, sizes)
    assert (dataset.input_kind, dataset.target_kind, dataset.target_at) == ("token", "class", "sequence")
    assert (dataset.input_size, dataset.output_size) == (30, num_target_tokens)
    assert dataset.input_tokens == vocabulary("fr").tokens
    assert dataset.length == dataset.num_timesteps == numbers.natural_length == 13
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        arrays = dataset.splits[split]
        assert (arrays.inputs.shape, arrays.targets.shape) == ((num, 13), (num, num_targets))
        assert arrays.alignment is None
        assert ((arrays.targets == EOS).sum(axis=1) == 1).all()


def test_the_same_again_and_other_numbers_with_another_seed(sizes):
    first, second = (NUMBERS.generate(13, sizes).digest for _ in range(2))
    assert first == second != dataclasses.replace(NUMBERS, seed=1).generate(13, sizes).digest


def test_sizes_of_one_split_leave_the_others_alone():
    small, large = (DIGITS.generate(13, Sizes(num, 5, 5)).splits["test"] for num in (5, 50))
    np.testing.assert_array_equal(small.inputs, large.inputs)


def test_another_length(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'numbers': length 12 is impossible; .* 13 words: write null"):
        NUMBERS.generate(12, sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"lowest": -1}, "lowest: expected an integer of at least 0, got -1"),
        ({"highest": 10**6}, r"highest: expected an integer from 0 \(lowest\) to 999999, got 1000000"),
        ({"lowest": 5, "highest": 4}, r"highest: expected an integer from 5 \(lowest\) to 999999, got 4"),
        ({"highest": 9}, "shares: expected at least 2 of 10 numbers in every split, got 1"),
    ],
)
def test_fields_out_of_range(changes, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(NUMBERS, **changes)


def test_the_source_names_the_version():
    assert set(NUMBERS.source()) == {"num2words_version"}


def test_without_num2words(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(DatasetError, match="come with num2words, which is not installed; pip install num2words"):
        words(1, "fr")


def test_the_drawing_is_pairs(sizes):
    dataset = NUMBERS.generate(13, sizes)
    source, target = NUMBERS.draw(dataset).splitlines()[0].split(" -> ")
    assert source == texts(dataset.input_tokens, dataset.splits["train"].inputs)[0]
    assert target == texts(dataset.target_tokens, dataset.splits["train"].targets)[0] + " <eos>"
