"""A text is that of its files or its address, every target is the next token, and it is read as a stream."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import files, load_dataset, prepare_dataset, read_manifest
from pipeline.data.dataset import SPLITS, unknown_id, unknown_shares
from pipeline.data.files import cache_path
from pipeline.data.generator import Shares
from pipeline.data.text import Text
from pipeline.data.vocabulary import unigram_entropy
from pipeline.errors import DatasetError
from tests.test_architecture import ROOT

TEXT = "".join(f"{number} bottles of beer on the wall.\n" for number in range(999, 0, -1))
SHARES = Shares(train=0.8, validation=0.1, test=0.1)
SIZES = Sizes(1, 1, 1)


@pytest.fixture(autouse=True)
def _beside_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def of(content: str | bytes, **changes) -> Text:
    Path("beer.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    return Text(**({"lengths": (), "data_file": "beer.txt", "unit": "character", "shares": SHARES} | changes))


def whole_text(made: Text) -> dict[str, str]:
    """The parts of the text, read off the ids."""
    return {split: "".join(made.corpus.tokens[i] for i in ids) for split, ids in made.corpus.ids.items()}


def decode(dataset, ids: np.ndarray) -> str:
    return "".join(dataset.input_tokens[symbol] for symbol in ids)


def test_the_parts_follow_each_other_and_are_the_text():
    parts = whole_text(of(TEXT))
    assert "".join(parts[split] for split in SPLITS) == TEXT
    lengths = [len(parts[split]) for split in SPLITS]
    assert lengths == pytest.approx([0.8 * len(TEXT), 0.1 * len(TEXT), 0.1 * len(TEXT)], abs=1)


def test_targets_are_the_next_characters_within_the_part():
    text = of(TEXT, max_train=40, max_evaluated=20)
    dataset, parts = text.generate(30, SIZES), whole_text(text)
    for split, num in zip(SPLITS, (40, 20, 20), strict=True):
        arrays, part = dataset.splits[split], parts[split]
        assert arrays.inputs.shape == arrays.targets.shape == (num, 30)
        np.testing.assert_array_equal(arrays.inputs[:, 1:], arrays.targets[:, :-1])
        for inputs, targets in zip(arrays.inputs, arrays.targets, strict=True):
            assert decode(dataset, inputs) + decode(dataset, targets[-1:]) in part


def test_all_windows_up_to_the_caps_whatever_the_scale():
    text = of(TEXT, max_train=5)
    dataset = text.generate(100, SIZES)
    evaluated = (len(TEXT) // 10 - 1) // 100
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [5, evaluated, evaluated]
    left_out = (len(TEXT) * 8 // 10 - 1) // 100 - 5
    assert text.remarks() == (f"{left_out} train windows of length 100 left out, beyond max_train 5",)


def test_the_task_and_its_baseline():
    dataset = of(TEXT).generate(30, SIZES)
    size = len({*TEXT}) + 1
    assert (dataset.input_kind, dataset.input_size, dataset.output_size) == ("token", size, size)
    assert (dataset.target_kind, dataset.target_at, dataset.padded) == ("class", "every", False)
    assert dataset.num_timesteps == dataset.length == 30
    assert dataset.splits["train"].inputs.dtype == np.uint8
    assert dataset.baseline_loss == unigram_entropy(dataset.splits["train"].targets)
    assert dataset.baseline_name == "unigram"


def test_the_same_again_and_another_seed():
    text = of(TEXT)
    other = dataclasses.replace(text, seed=1)
    assert text.generate(30, SIZES).digest == of(TEXT).generate(30, Sizes(9, 9, 9)).digest
    assert other.generate(30, SIZES).digest != text.generate(30, SIZES).digest


def test_marks_of_other_systems_do_not_count():
    assert "".join(whole_text(of("\ufeff" + "one\r\ntwo\r\n" * 9)).values()) == "one\ntwo\n" * 9


RUSSIAN = "".join(f"{number} бутылок пива на стене, всё\u0301 ещё.\n" for number in range(999, 0, -1))


@pytest.mark.parametrize("text", [RUSSIAN, "".join(map(chr, range(0x4E00, 0x4E00 + 500))) * 40, "ا ب ت ث ج\n" * 999])
def test_every_alphabet_is_told_apart(text):
    made = of(text, max_train=40)
    dataset, parts = made.generate(30, SIZES), whole_text(made)
    for split in SPLITS:
        for inputs in dataset.splits[split].inputs:
            assert decode(dataset, inputs) in parts[split]
    assert dataset.input_tokens == ("▯", *sorted({*text}))
    assert dataset.splits["train"].inputs.dtype == (np.uint8 if len(dataset.input_tokens) <= 256 else np.int16)
    assert unknown_shares(dataset, dataset.splits)["inputs"] == dict.fromkeys(SPLITS, 0.0)


def test_characters_that_training_lacks_are_one_and_are_counted():
    dataset = of("a" * 80 + "aé€a😀" * 2 + "a▯" * 5).generate(1, SIZES)
    assert dataset.input_tokens == ("▯", "a")
    assert unknown_id(dataset.target_tokens) == 0
    assert unknown_shares(dataset, dataset.splits)["targets"]["train"] == 0.0
    assert unknown_shares(dataset, dataset.splits)["targets"]["validation"] == pytest.approx(6 / 9, abs=0.12)
    assert unknown_shares(dataset, dataset.splits)["targets"]["test"] == pytest.approx(5 / 9, abs=0.01)


def test_without_an_unknown_token_what_training_lacks_is_an_error():
    with pytest.raises(DatasetError, match=r"beer.txt, line 17: in the validation split, a token .* lacks: 'é'; leave"):
        of("aaa aaa aa\n" * 16 + "aé\n" * 8, min_count=0).generate(1, SIZES)
    assert of("ab" * 99, min_count=0).generate(1, SIZES).input_tokens == ("a", "b")
    assert of("ab▯" * 99, min_count=0).generate(1, SIZES).input_tokens == ("▯", "a", "b")


def test_a_letter_with_its_mark_is_one_character():
    composed = of("île " * 400).generate(20, SIZES)
    assert composed.digest == of("i\u0302le " * 400).generate(20, SIZES).digest


def test_capitals_count_by_choice():
    assert of("AbaB" * 99, lower_case=True).generate(9, SIZES).input_tokens == ("▯", "a", "b")
    assert of("AbaB" * 99).generate(9, SIZES).input_tokens == ("▯", "A", "B", "a", "b")


# Words, given splits


def ptb(train: str, valid: str, test: str, **changes) -> Text:
    for split, text in (("train", train), ("valid", valid), ("test", test)):
        Path(f"ptb.{split}.txt").write_text(text)
    files = {"train_file": "ptb.train.txt", "validation_file": "ptb.valid.txt", "test_file": "ptb.test.txt"}
    return Text(**({"lengths": ()} | files | changes))


def test_given_splits_of_words_with_ends_of_lines_and_an_unknown_word_of_their_own():
    made = ptb(" the <unk> cat N \n" * 9, " the dog \n", " the cat")
    dataset = made.generate(1, SIZES)
    assert dataset.input_tokens == ("<unk>", "<eos>", "N", "cat", "the")
    words = {split: [dataset.input_tokens[i] for i in ids] for split, ids in made.corpus.ids.items()}
    assert words["train"] == ["the", "<unk>", "cat", "N", "<eos>"] * 9
    assert words["validation"] == ["the", "<unk>", "<eos>"]
    assert words["test"] == ["the", "cat"]
    assert unknown_id(dataset.target_tokens) == 0
    assert {*made.draw(dataset).split()} <= {*dataset.input_tokens}


def test_ends_of_lines_are_white_space_by_choice():
    dataset = ptb("the cat\n" * 9, "the cat\n", "the cat\n", end_of_line=False).generate(1, SIZES)
    assert dataset.input_tokens == ("<unk>", "cat", "the")


def test_rare_words_are_one():
    made = ptb("the cat sat\nthe cat ran\n", "the cow sat\n", "the cat\n", min_count=2)
    assert made.generate(2, SIZES).input_tokens == ("<unk>", "<eos>", "cat", "the")
    assert whole_text(made)["validation"] == "the<unk><unk><eos>"


def test_words_of_one_file_are_cut_by_shares():
    made = of("a b c d e f g h i j\n" * 10, unit="word", end_of_line=False)
    assert [len(ids) for ids in made.corpus.ids.values()] == [80, 10, 10]
    assert "".join(whole_text(made).values()) == "abcdefghij" * 10


def test_lines_of_test_that_training_has_too_are_counted(config_path):
    shared, other = "one two three four five six seven eight\n", "eight seven six five four three two one\n"
    made = ptb(shared * 9, shared + other, other + "short\n" + shared * 2)
    assert made.leaks(made.generate(2, SIZES)) == {"validation": 1, "test": 1}
    keys = "train_file: ptb.train.txt\nvalidation_file: ptb.valid.txt\ntest_file: ptb.test.txt\nlengths: [2]\n"
    prepare_dataset("mine", config_path("mine", f"generator: text\n{keys}"), (), SIZES, Path("data/mine").absolute())
    preview = read_manifest(Path("data/mine")).variant(2).preview
    assert (preview.leaks, preview.leaks_of) == ({"validation": 1, "test": 1}, "long lines")
    assert load_dataset(Path("data/mine"), 2).digest == made.generate(2, SIZES).digest


# From the network


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of a server on loopback that serves the folder of the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **named) -> None:
            super().__init__(*arguments, directory=str(tmp_path), **named)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def of_address(url: str, content: bytes, **changes) -> Text:
    sha256 = hashlib.sha256(content).hexdigest()
    return Text(**({"lengths": (), "url": url, "sha256": sha256, "unit": "character", "shares": SHARES} | changes))


def test_a_text_of_an_address_is_that_of_the_file(server):
    local = of(RUSSIAN)
    remote = of_address(f"{server}/beer.txt", Path("beer.txt").read_bytes())
    assert remote.generate(30, SIZES).digest == local.generate(30, SIZES).digest
    assert remote.source() == {"url": remote.url, "sha256": hashlib.sha256(RUSSIAN.encode()).hexdigest()}
    assert cache_path(remote.sha256).read_bytes() == RUSSIAN.encode()


def test_what_is_wrong_with_a_text_of_an_address_is_told_with_the_address(server):
    of(b"beer\nb\xffer\n")
    with pytest.raises(
        DatasetError, match=r"^http://.*/beer.txt, line 2: not UTF-8 text \(invalid start byte at byte 6"
    ):
        of_address(f"{server}/beer.txt", b"beer\nb\xffer\n").generate(1, SIZES)


# What is no text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "beer.txt: expected text, got an empty file"),
        (b"\xef\xbb\xbf\r\n", "beer.txt: expected text, got an empty file"),
        (b"one\rtwo\r" * 99, r"beer.txt, line 1: expected lines that end with a line feed, got .*`tr"),
        (
            b"abcdefghij",
            "beer.txt: expected at least 2 characters in every split, got a text of 10 ch.* validation has 1",
        ),
    ],
)
def test_a_text_of_which_there_are_no_windows(content, message):
    with pytest.raises(DatasetError, match=message):
        of(content).generate(1, SIZES)


def test_more_characters_than_ids():
    text = of("".join(map(chr, range(0x20000, 0x20000 + 45_000))))
    with pytest.raises(
        DatasetError, match=r"beer.txt: the training split: expected fewer than 32768 .*, got 36000; a la"
    ):
        text.generate(20, SIZES)


def test_a_text_that_writes_the_end_of_a_line_itself():
    with pytest.raises(
        DatasetError, match=r"beer.txt, line 2: the text has the word '<eos>', which .* end_of_line: false"
    ):
        of("a b\na <eos>\n" * 9, unit="word").generate(1, SIZES)


@pytest.mark.parametrize("length", [0, 10**6])
def test_a_window_longer_than_a_part(length):
    text = of(TEXT)
    longest = min(map(len, text.corpus.ids.values())) - 1
    assert text.generate(longest, SIZES).num_timesteps == longest
    with pytest.raises(DatasetError, match=f"'text': length {length} is impossible; .*from 1 to {longest}"):
        text.generate(length, SIZES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "ftp://a.org/b.txt"}, "url: expected an address with http:// or https://, got 'ftp://a.org/b.txt'"),
        ({"url": "file:///etc/passwd"}, "url: expected an address with http:// or https://"),
        ({"sha256": "ABC"}, "sha256: expected 64 hexadecimal digits in small letters, as sha256sum .* got 'ABC'"),
        ({"sha256": None}, "sha256: expected 64 hexadecimal digits"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"data_file": "beer.txt"}, "data_file: expected either data_file or url alone"),
        ({"url": None, "data_file": "a.txt"}, "sha256: expected null without url"),
        ({"unit": None}, "unit: expected character or word"),
        ({"min_count": -1}, "min_count: expected an integer of at least 0"),
        ({"shares": None}, "shares: expected train, validation and test, which sum to 1"),
    ],
)
def test_fields_out_of_range(changes, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(of_address("https://a.org/b.txt", b""), **changes)


def test_the_drawing_is_the_text():
    text = of(TEXT)
    dataset = text.generate(30, SIZES)
    drawn = text.draw(dataset).split("\n\n")
    assert [line.replace("⏎", "\n") for line in drawn] == [
        decode(dataset, row) for row in dataset.splits["train"].inputs[:3]
    ]


@pytest.mark.parametrize(
    "content", [TEXT, TEXT.replace("\n", " "), RUSSIAN.replace("\n", "\r\n"), "ab" * 5000, "  \n" * 99]
)
def test_a_line_in_parts_is_the_line(content, monkeypatch):
    of("\ufeff" + content + "the end")
    for chunk in (20, 64, 1000):
        monkeypatch.setattr(files, "CHUNK", chunk)
        parts = [*files.read_lines(Path("beer.txt"), whole=False)]
        lines: dict[int, str] = {}
        for number, part in parts:
            lines[number] = lines.get(number, "") + part
        assert list(lines.items()) == [*files.read_lines(Path("beer.txt"))]
        assert " " not in content.strip("\n ") or max(len(part.encode()) for _, part in parts) < 2 * chunk


def test_a_long_line_in_parts_is_read_the_same(monkeypatch):
    for unit in ("character", "word"):
        content = TEXT[: len(TEXT) // 2].replace("\n", " ") + RUSSIAN
        whole = of(content, unit=unit).generate(9, SIZES)
        with monkeypatch.context() as patch:
            patch.setattr(files, "CHUNK", 40)
            assert of(content, unit=unit).generate(9, SIZES).digest == whole.digest


@pytest.mark.parametrize("content", [b"beer " * 20 + b"b\xffer", b"beer\n" * 3 + b"beer " * 20 + b"b\xffer"])
def test_what_is_wrong_in_a_part_of_a_line_is_told_with_line_and_byte(content, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 16)
    line, byte = content.count(b"\n") + 1, content.index(b"\xff")
    with pytest.raises(
        DatasetError, match=rf"beer.txt, line {line}: not UTF-8 text \(invalid start byte at byte {byte}\)"
    ):
        of(content).generate(1, SIZES)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is Linux's")
def test_a_long_text_is_read_as_a_stream():
    """Of fifteen megabytes, in many lines or in one, an id a token is held, windows, and what is read at a time."""
    line = " ".join(f"word{i:04d}" for i in range(300))
    for name, end in (("lines", "\n"), ("line", " ")):
        Path(f"{name}.txt").write_text((line + end) * (15_000_000 // len(line)))
    program = """
import re, sys
from pathlib import Path
from pipeline.config import Sizes
from pipeline.data.generator import Shares
from pipeline.data.text import Text
def peak_mib():  # not ru_maxrss, which begins with that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before = peak_mib()
shares = Shares(train=0.8, validation=0.1, test=0.1)
Text(lengths=(), data_file=sys.argv[2], unit=sys.argv[1], shares=shares, max_train=1000).generate(100, Sizes(1, 1, 1))
print(peak_mib() - before)
"""
    limits_mib = {("character", "lines"): 60, ("character", "line"): 80, ("word", "lines"): 25, ("word", "line"): 50}
    for (unit, name), limit_mib in limits_mib.items():
        command = [sys.executable, "-c", program, unit, f"{name}.txt"]
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert 1 < float(done.stdout) < limit_mib, (unit, name, done.stdout)
