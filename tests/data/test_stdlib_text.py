"""The text is the standard library's, every target is the next character, and no test text is trained on."""

from __future__ import annotations

import hashlib
import math
import platform
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import read_generator
from pipeline.data.text import VOCABULARY, Modules, StdlibText, cut_windows, encode, window_starts
from pipeline.data.vocabulary import unigram_entropy
from pipeline.errors import DatasetError

MODULES = Modules(train=("textwrap.py", "heapq.py"), validation=("bisect.py",), test=("queue.py",))
TEXT = StdlibText(seed=0, lengths=(), modules=MODULES)
STDLIB = Path(sysconfig.get_path("stdlib"))


def decode(ids: np.ndarray) -> str:
    return "".join((VOCABULARY + "\0")[symbol] for symbol in ids)


def test_the_vocabulary_is_printable_ascii_the_newline_and_one_other():
    assert "\n" + "".join(chr(code) for code in range(32, 127)) == VOCABULARY
    assert encode("\n ~a", VOCABULARY).tolist() == [0, 1, 95, VOCABULARY.index("a")]
    assert encode("\té\x7f😀", VOCABULARY).tolist() == [len(VOCABULARY)] * 4


def test_targets_are_inputs_shifted_by_one_and_both_are_in_the_file(sizes):
    train = TEXT.generate(30, sizes).splits["train"]
    np.testing.assert_array_equal(train.inputs[:, 1:], train.targets[:, :-1])
    texts = [decode(encode((STDLIB / file).read_text(encoding="utf-8"), VOCABULARY)) for file in MODULES.train]
    for inputs, targets in zip(train.inputs, train.targets, strict=True):
        assert any(decode(inputs) + decode(targets[-1:]) in text for text in texts)


def test_windows_follow_each_other_within_a_text():
    texts = [np.arange(8, dtype=np.uint8), np.arange(20, 23, dtype=np.uint8), np.arange(30, 34, dtype=np.uint8)]
    starts = window_starts(texts, 3)
    assert cut_windows(texts, starts, 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [30, 31, 32, 33]]


def test_no_test_or_validation_window_of_the_real_corpus_is_trained_on():
    config = Path(__file__).parents[2] / "configs" / "datasets" / "stdlib_text.yaml"
    text = read_generator(config)
    assert isinstance(text, StdlibText)
    trained = b"\xff".join(
        encode((STDLIB / file).read_text(encoding="utf-8"), VOCABULARY).tobytes() for file in text.modules.train
    )
    dataset = text.generate(100, Sizes(1, 200, 200))
    for split in ("validation", "test"):
        assert len(dataset.splits[split].inputs) == 200
        assert not [decode(window) for window in dataset.splits[split].inputs if window.tobytes() in trained]


def test_as_many_windows_as_the_scale_wants_or_as_there_are():
    dataset = TEXT.generate(100, Sizes(5, 10**6, 3))
    assert len(dataset.splits["train"].inputs) == 5
    assert len(dataset.splits["test"].inputs) == 3
    num_characters = len((STDLIB / "bisect.py").read_text(encoding="utf-8"))
    assert len(dataset.splits["validation"].inputs) == (num_characters - 1) // 100


def test_the_task_and_its_baseline(sizes):
    dataset = TEXT.generate(30, sizes)
    assert (dataset.input_kind, dataset.input_size, dataset.output_size) == ("token", 97, 97)
    assert (dataset.target_kind, dataset.target_at) == ("class", "every")
    assert dataset.num_timesteps == dataset.length == 30
    assert dataset.splits["train"].inputs.dtype == np.uint8
    assert dataset.baseline_name == "unigram"
    assert dataset.baseline_loss == unigram_entropy(dataset.splits["train"].targets)
    assert 2 < dataset.baseline_loss < math.log(97)


def test_unigram_entropy_of_known_frequencies():
    assert unigram_entropy(np.array([[7, 7], [7, 7]])) == 0
    assert unigram_entropy(np.array([0, 0, 1, 5])) == pytest.approx(1.5 * math.log(2))


def test_the_source_names_the_python_and_every_file():
    source = TEXT.source()
    assert source["python_version"] == platform.python_version()
    assert list(source["files"]) == ["textwrap.py", "heapq.py", "bisect.py", "queue.py"]
    assert source["files"]["heapq.py"] == hashlib.sha256((STDLIB / "heapq.py").read_bytes()).hexdigest()
    assert source["sha256"] == hashlib.sha256("".join(source["files"].values()).encode()).hexdigest()


@pytest.mark.parametrize("length", [0, 10**6])
def test_a_window_longer_than_the_text(length, sizes):
    longest = min(len((STDLIB / file).read_text(encoding="utf-8")) for file in ("bisect.py", "queue.py")) - 1
    with pytest.raises(DatasetError, match=f"'stdlib_text': length {length} is impossible; .*from 1 to {longest}"):
        TEXT.generate(length, sizes)


def test_the_longest_possible_window_is_possible():
    longest = min(len((STDLIB / file).read_text(encoding="utf-8")) for file in ("bisect.py", "queue.py")) - 1
    assert TEXT.generate(longest, Sizes(1, 1, 1)).num_timesteps == longest


def test_a_module_that_is_not_there(sizes):
    missing = StdlibText(
        seed=0, lengths=(), modules=Modules(train=("textwarp.py",), validation=("a.py",), test=("b.py",))
    )
    with pytest.raises(DatasetError, match=r"textwarp.py: no such file.*did you mean 'textwrap.py'"):
        missing.source()


def test_a_module_in_two_splits():
    with pytest.raises(InvalidFieldError, match="test: expected files that are listed once, .* got 'heapq.py'"):
        Modules(train=("heapq.py",), validation=("bisect.py",), test=("heapq.py",))


def test_a_split_without_modules():
    with pytest.raises(InvalidFieldError, match="validation: expected at least one file"):
        Modules(train=("heapq.py",), validation=(), test=("bisect.py",))


def test_the_drawing_is_the_text(sizes):
    dataset = TEXT.generate(30, sizes)
    first = TEXT.draw(dataset).split("\n\n")[0]
    assert first.replace("⏎", "\n") == decode(dataset.splits["train"].inputs[0])
