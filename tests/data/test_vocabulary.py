"""Ids and texts are each other's inverse, the special tokens come first, and what does not fit is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.data.dataset import EOS, PAD, SOS, SPECIAL_TOKENS
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError

WORDS = Vocabulary(["deux", "dix", "cent"])


def test_symbols_follow_the_special_tokens():
    assert WORDS.tokens == (*SPECIAL_TOKENS, "deux", "dix", "cent")
    assert len(WORDS) == 6
    assert [WORDS.tokens[i] for i in (PAD, SOS, EOS)] == ["<pad>", "<sos>", "<eos>"]
    assert WORDS.encode(["cent", "deux"]) == [5, 3]
    assert WORDS.encode([]) == []


def test_decoding_is_the_inverse_of_encoding():
    assert WORDS.decode([*WORDS.encode(["dix", "cent"]), EOS, PAD, PAD]) == ("dix", "cent", "<eos>")
    assert Vocabulary("añ한").encode("한a") == [5, 3]


def test_a_token_outside_the_vocabulary():
    with pytest.raises(DatasetError, match="unknown token 'deus'; did you mean 'deux'\\? known: cent, deux, dix"):
        WORDS.encode(["dix", "deus"])


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_text_cannot_spell_a_special_token(token):
    with pytest.raises(DatasetError, match=f"unknown token '{token}'"):
        WORDS.encode([token])


@pytest.mark.parametrize("symbols", [["a", "b", "a"], ["<eos>"]])
def test_a_token_twice(symbols):
    with pytest.raises(DatasetError, match=f"expected every token once, got '{symbols[0]}' more than once"):
        Vocabulary(symbols)


def test_as_many_tokens_as_an_id_can_tell_apart():
    most = 2**15 - 3
    assert len(Vocabulary(map(str, range(most)))) == 2**15
    with pytest.raises(DatasetError, match="expected at most 32768 tokens with <pad>, <sos>, <eos>, got 32769"):
        Vocabulary(map(str, range(most + 1)))


def test_ids_of_more_than_256_tokens_have_two_bytes():
    padded = pad([[2**15 - 1], [256, 3]], 2, num_tokens=2**15)
    assert padded.dtype == np.int16
    assert padded.tolist() == [[2**15 - 1, PAD], [256, 3]]


def test_rows_are_filled_up_at_their_end():
    padded = pad([[3, 4, 5], [255]], 3)
    assert padded.dtype == np.uint8
    assert padded.tolist() == [[3, 4, 5], [255, PAD, PAD]]
    assert pad([], 2).shape == (0, 2)


@pytest.mark.parametrize(("row", "got"), [([], 0), ([3, 4, 5, 6], 4)])
def test_a_row_that_is_empty_or_too_long(row, got):
    with pytest.raises(DatasetError, match=f"sequence 1: expected 1 to 3 tokens, got {got}"):
        pad([[3], row], 3)


def test_a_translation_names_its_tokens_and_its_baseline_ignores_padding():
    task = translation_task(9, WORDS, Vocabulary("ab"), np.array([[3, EOS, PAD, PAD], [4, EOS, PAD, PAD]]))
    assert (task.length, task.input_kind, task.target_kind, task.target_at) == (9, "token", "class", "sequence")
    assert (task.input_size, task.output_size, task.padded) == (6, 5, True)
    assert (task.input_tokens, task.target_tokens) == (WORDS.tokens, (*SPECIAL_TOKENS, "a", "b"))
    assert task.baseline_name == "unigram"
    assert task.baseline_loss == pytest.approx(1.5 * math.log(2))
