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
from pipeline.data.dataset import SPLITS
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


def decode(ids: np.ndarray) -> str:
    return "".join((VOCABULARY + "\0")[symbol] for symbol in ids)


def test_the_parts_follow_each_other_and_are_the_text(web_text):
    parts = {split: decode(ids) for split, (ids,) in web_text(TEXT.encode()).texts_by_split().items()}
    assert "".join(parts[split] for split in SPLITS) == TEXT
    lengths = [len(parts[split]) for split in SPLITS]
    assert lengths == pytest.approx([0.8 * len(TEXT), 0.1 * len(TEXT), 0.1 * len(TEXT)], abs=1)


def test_targets_are_the_next_characters_within_the_part(web_text, sizes):
    text = web_text(TEXT.encode())
    dataset, parts = text.generate(30, sizes), text.texts_by_split()
    for split, num in zip(SPLITS, (40, 10, 20), strict=True):
        arrays, part = dataset.splits[split], decode(*parts[split])
        assert arrays.inputs.shape == arrays.targets.shape == (num, 30)
        np.testing.assert_array_equal(arrays.inputs[:, 1:], arrays.targets[:, :-1])
        for inputs, targets in zip(arrays.inputs, arrays.targets, strict=True):
            assert decode(inputs) + decode(targets[-1:]) in part


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
    parts = web_text("\ufeffone\r\ntwo\r\n".encode()).texts_by_split().values()
    assert "".join(decode(part) for (part,) in parts) == "one\ntwo\n"


def test_other_characters_are_one(web_text):
    assert decode(web_text("é€😀 a".encode()).texts_by_split()["train"][0]) == "\0\0\0 "


def test_text_that_is_not_utf_8(web_text):
    with pytest.raises(DatasetError, match=r"beer.txt: not UTF-8 text \(invalid start byte at byte 4\)"):
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
    assert [line.replace("⏎", "\n") for line in drawn] == [decode(row) for row in dataset.splits["train"].inputs[:3]]


def test_the_file_that_the_docstring_shows(config_path):
    shown = textwrap.dedent(WebText.__doc__.split("with\n\n")[1])
    generator = read_generator(config_path("mine", re.sub("<.*>", "a" * 64, shown)))
    assert (generator.url, generator.sha256, generator.lengths) == ("https://example.org/corpus.txt", "a" * 64, (100,))
