"""The text is that of the address, cut into three parts in order, and every target is the next character."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import textwrap

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import read_generator
from pipeline.data.dataset import SPLITS, unknown_id, unknown_shares
from pipeline.data.generator import Shares
from pipeline.data.text import VOCABULARY, WebText, cache_path
from pipeline.data.vocabulary import unigram_entropy
from pipeline.errors import DatasetError

TEXT = "".join(f"{number} bottles of beer on the wall.\n" for number in range(999, 0, -1))
SHARES = Shares(train=0.8, validation=0.1, test=0.1)


@pytest.fixture
def web_text(tmp_path, monkeypatch):
    """Return a function that makes the generator of a file that is already kept, so that no server is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(content: bytes) -> WebText:
        sha256 = hashlib.sha256(content).hexdigest()
        cache_path(sha256).parent.mkdir(parents=True, exist_ok=True)
        cache_path(sha256).write_bytes(content)
        return WebText(seed=0, lengths=(), url="https://nowhere.invalid/beer.txt", sha256=sha256, shares=SHARES)

    return make


def decode(dataset, ids: np.ndarray) -> str:
    return "".join(dataset.input_tokens[symbol] for symbol in ids)


def test_the_parts_follow_each_other_and_are_the_text(web_text):
    parts = {split: part for split, (part,) in web_text(TEXT.encode()).texts_by_split().items()}
    assert "".join(parts[split] for split in SPLITS) == TEXT
    lengths = [len(parts[split]) for split in SPLITS]
    assert lengths == pytest.approx([0.8 * len(TEXT), 0.1 * len(TEXT), 0.1 * len(TEXT)], abs=1)


def test_targets_are_the_next_characters_within_the_part(web_text, sizes):
    text = web_text(TEXT.encode())
    dataset, parts = text.generate(30, sizes), text.texts_by_split()
    for split, num in zip(SPLITS, (40, 10, 20), strict=True):
        arrays, part = dataset.splits[split], parts[split][0]
        assert arrays.inputs.shape == arrays.targets.shape == (num, 30)
        np.testing.assert_array_equal(arrays.inputs[:, 1:], arrays.targets[:, :-1])
        for inputs, targets in zip(arrays.inputs, arrays.targets, strict=True):
            assert decode(dataset, inputs) + decode(dataset, targets[-1:]) in part


def test_as_many_windows_as_there_are(web_text):
    dataset = web_text(TEXT.encode()).generate(100, Sizes(5, 10**6, 3))
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [5, (len(TEXT) // 10 - 1) // 100, 3]


def test_the_task_and_its_baseline(web_text, sizes):
    dataset = web_text(TEXT.encode()).generate(30, sizes)
    assert (dataset.input_kind, dataset.input_size, dataset.output_size) == ("token", 97, 97)
    assert (dataset.target_kind, dataset.target_at, dataset.padded) == ("class", "every", False)
    assert dataset.num_timesteps == dataset.length == 30
    assert dataset.splits["train"].inputs.dtype == np.uint8
    assert dataset.baseline_loss == unigram_entropy(dataset.splits["train"].targets)
    assert dataset.baseline_name == "unigram"


def test_the_same_again_and_another_seed(web_text, sizes):
    text = web_text(TEXT.encode())
    other = dataclasses.replace(text, seed=1)
    assert text.generate(30, sizes).digest == text.generate(30, sizes).digest != other.generate(30, sizes).digest


def test_marks_of_other_systems_do_not_count(web_text):
    parts = web_text(("\ufeff" + "one\r\ntwo\r\n" * 9).encode()).texts_by_split().values()
    assert "".join(part for (part,) in parts) == "one\ntwo\n" * 9


RUSSIAN = "".join(f"{number} бутылок пива на стене, всё\u0301 ещё.\n" for number in range(999, 0, -1))


@pytest.mark.parametrize("text", [RUSSIAN, "".join(map(chr, range(0x4E00, 0x4E00 + 500))) * 40, "ا ب ت ث ج\n" * 999])
def test_every_alphabet_is_told_apart(web_text, sizes, text):
    made = web_text(text.encode())
    dataset, parts = made.generate(30, sizes), made.texts_by_split()
    for split in SPLITS:
        for inputs in dataset.splits[split].inputs:
            assert decode(dataset, inputs) in parts[split][0]
    assert {*dataset.input_tokens} == {*VOCABULARY, *text, "▯"}
    assert dataset.splits["train"].inputs.dtype == (np.uint8 if len(dataset.input_tokens) <= 256 else np.int16)
    assert unknown_shares(dataset, dataset.splits)["inputs"] == dict.fromkeys(SPLITS, 0.0)


def test_characters_that_training_lacks_are_one_and_are_counted(web_text):
    dataset = web_text(("a" * 80 + "aé€a😀" * 2 + "a▯" * 5).encode()).generate(1, Sizes(99, 99, 99))
    assert dataset.input_tokens == (*VOCABULARY, "▯")
    assert unknown_id(dataset.target_tokens) == len(VOCABULARY)
    assert unknown_shares(dataset, dataset.splits)["targets"]["train"] == 0.0
    assert unknown_shares(dataset, dataset.splits)["targets"]["validation"] == pytest.approx(6 / 9, abs=0.12)
    assert unknown_shares(dataset, dataset.splits)["targets"]["test"] == pytest.approx(5 / 9, abs=0.01)


def test_a_letter_with_its_mark_is_one_character(web_text, sizes):
    composed = web_text(("île " * 400).encode()).generate(20, sizes)
    assert composed.digest == web_text(("i\u0302le " * 400).encode()).generate(20, sizes).digest


def test_more_characters_than_ids(web_text, sizes):
    text = web_text("".join(map(chr, range(0x20000, 0x20000 + 45_000))).encode())
    with pytest.raises(
        DatasetError, match=r"beer.txt: expected fewer than 32768 different characters, got 36000 beside"
    ):
        text.generate(20, sizes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "beer.txt: expected text, got an empty file"),
        (b"\xef\xbb\xbf\r\n", "beer.txt: expected text, got an empty file"),
        (b"one\rtwo\r" * 99, r"beer.txt: expected lines that end with a line feed, got .*`tr .* the sha256 of that"),
        (
            b"abcdefghij",
            "beer.txt: expected at least 2 characters in every split, got a text of 10 ch.* validation has 1",
        ),
    ],
)
def test_a_text_of_which_there_are_no_windows(web_text, sizes, content, message):
    with pytest.raises(DatasetError, match=message):
        web_text(content).generate(1, sizes)


def test_text_that_is_not_utf_8(web_text):
    with pytest.raises(DatasetError, match=r"beer.txt, line 1: not UTF-8 text \(invalid start byte at byte 4\)"):
        web_text(b"beer\xff").texts_by_split()


@pytest.mark.parametrize("length", [0, 10**6])
def test_a_window_longer_than_a_part(web_text, length, sizes):
    text = web_text(TEXT.encode())
    longest = min(len(part) for (part,) in text.texts_by_split().values()) - 1
    assert text.generate(longest, sizes).num_timesteps == longest
    with pytest.raises(DatasetError, match=f"'web_text': length {length} is impossible; .*from 1 to {longest}"):
        text.generate(length, sizes)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("url", "ftp://a.org/b.txt", "url: expected an address with http:// or https://, got 'ftp://a.org/b.txt'"),
        ("url", "file:///etc/passwd", "url: expected an address with http:// or https://"),
        ("sha256", "ABC", "sha256: expected 64 hexadecimal digits in small letters, got 'ABC'"),
        ("sha256", "A" * 64, "sha256: expected 64 hexadecimal digits in small letters"),
        ("seed", -1, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_fields_out_of_range(web_text, field, value, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(web_text(b""), **{field: value})


def test_the_source_is_the_address_and_the_checksum(web_text):
    text = web_text(TEXT.encode())
    assert text.source() == {"url": text.url, "sha256": hashlib.sha256(TEXT.encode()).hexdigest()}


def test_the_drawing_is_the_text(web_text, sizes):
    text = web_text(TEXT.encode())
    dataset = text.generate(30, sizes)
    drawn = text.draw(dataset).split("\n\n")
    assert [line.replace("⏎", "\n") for line in drawn] == [
        decode(dataset, row) for row in dataset.splits["train"].inputs[:3]
    ]


def test_the_file_that_the_docstring_shows(config_path):
    shown = textwrap.dedent(WebText.__doc__.split("with\n\n")[1])
    generator = read_generator(config_path("mine", re.sub("<.*>", "a" * 64, shown)))
    assert (generator.url, generator.sha256, generator.lengths) == ("https://example.org/corpus.txt", "a" * 64, (100,))
