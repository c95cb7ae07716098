"""A text, token by token: at every timestep, say the next one.

    inputs   T successive characters, or words, of the text
    targets  the same, shifted by one: target_t = input_{t+1}
    baseline the unigram entropy of the training targets, in nats per token

Of the standard library's text, characters are printable ASCII and the line feed, and one that stands for all others: ▯,
which in a text is that one, too. Of a user's own text they are those of its training part. Shapes: N sequences, T
timesteps.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sysconfig
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, UNKNOWN, UNKNOWN_CHARACTER, Dataset, Split, Task, make_task
from pipeline.data.files import CHUNK, fetch, read_bytes, read_lines
from pipeline.data.generator import AtLengths, Drawn
from pipeline.data.own import FILE_KEYS, OwnTexts, frequent
from pipeline.data.vocabulary import dtype_of, unigram_entropy
from pipeline.errors import DatasetError

VOCABULARY = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
NUM_CODE_POINTS = 0x110000
END_OF_LINE = "<eos>"
"""The token at the end of a line of words."""
LONG_LINE = {"character": 40, "word": 8}
"""Tokens of a line that two parts of a text hardly share by chance."""
WINDOWS_AT_ONCE = 4096
BYTES_OF_WORD = 64
"""What a word takes in memory, roughly."""


@dataclass(frozen=True, kw_only=True)
class Windows(AtLengths, Drawn):
    """Windows of texts, none across two of them."""

    @abstractmethod
    def ids_by_split(self) -> dict[str, list[np.ndarray]]:
        """Return the ids of every text of each split."""

    @abstractmethod
    def token_texts(self) -> tuple[str, ...]:
        """Return the text of every id."""

    def num_windows(self, split: str, num: int, length: int, scale: int) -> int:
        """Return how many of `num` windows of a split are used: as many as the scale wants, or as there are."""
        return min(num, scale)

    @property
    def longest_length(self) -> int:
        """One less than the longest text of every split: a window needs a token after its last one."""
        return min(max(map(len, texts)) for texts in self.ids_by_split().values()) - 1

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return windows of `length` tokens, drawn without repetition."""
        texts, splits = self.ids_by_split(), {}
        for split, rng, scale in self.streams(length, sizes):
            starts = window_starts(texts[split], length)
            chosen = rng.permutation(len(starts))[: self.num_windows(split, len(starts), length, scale)]
            windows = cut_windows(texts[split], starts[chosen], length)
            splits[split] = Split(windows[:, :-1], windows[:, 1:])
        tokens = self.token_texts()
        task = make_task(
            length,
            inputs=("token", len(tokens)),
            targets=("class", "every", len(tokens)),
            baseline=(unigram_entropy(splits["train"].targets), "unigram"),
            input_tokens=tokens,
            target_tokens=tokens,
        )
        return task, splits

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a window as text; a bent arrow is the end of a line."""
        return "".join((dataset.input_tokens or ())[symbol] for symbol in one.inputs).replace("\n", "⏎")


@dataclass(frozen=True)
class Modules:
    """Files below the standard library's folder, by split; a file belongs to one split only."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: list[str] = []
        for split in SPLITS:
            files = getattr(self, split)
            require(len(files) > 0, split, "at least one file", list(files))
            for file in files:
                require(file not in seen, split, "files that are listed once, in one split only", file)
                seen.append(file)


@dataclass(frozen=True, kw_only=True)
class StdlibText(Windows):
    """The Python standard library's own source: windows of one module each.

    A module belongs to one split, so no text of the test split is trained on. Text differs between versions of Python:
    the version and every file's sha256 are recorded with the data.
    """

    modules: Modules

    length_reason = "a window lies within one module of its split"

    def ids_by_split(self) -> dict[str, list[np.ndarray]]:
        """Return the ids of every module of each split."""
        texts = {file: content.decode(errors="replace") for file, content in self.contents().items()}
        return {split: [encode(texts[file], VOCABULARY) for file in getattr(self.modules, split)] for split in SPLITS}

    def token_texts(self) -> tuple[str, ...]:
        """Return the characters that are told apart, and the one that stands for all others."""
        return (*VOCABULARY, UNKNOWN_CHARACTER)

    def contents(self) -> dict[str, bytes]:
        """Return the content of every file.

        Raises:
            DatasetError: If one is not there; the message names the nearest.
        """
        folder = Path(sysconfig.get_path("stdlib"))
        return {file: read_bytes(folder / file) for split in SPLITS for file in getattr(self.modules, split)}

    def source(self) -> dict[str, Any]:
        """Return the version of Python and the sha256 of every file, and of all of them together."""
        checksums = {file: _sha256(content) for file, content in self.contents().items()}
        together = _sha256("".join(checksums.values()).encode())
        return {"python_version": platform.python_version(), "sha256": together, "files": checksums}


class Piece(NamedTuple):
    """Tokens of a line of one split, a text of characters or a list of words, and the number of the line."""

    split: str
    line: int
    tokens: Sequence[str]


class Corpus(NamedTuple):
    """The ids of each split, the text of every id, and how many long lines of each later split training has as well."""

    ids: dict[str, np.ndarray]
    tokens: tuple[str, ...]
    leaks: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Text(OwnTexts, Windows):
    """A user's own text, from files or from `url`, in windows of characters or of words.

    `data_file`, or the text at `url`, is cut into three consecutive parts by `shares`; or every split has its file, as
    PTB and WikiText have. The text is read as a stream: what is held of it is an id a token. All of its windows are
    used, up to `max_train` and `max_evaluated`.

    Attributes:
        lengths: Of windows, in tokens, that are prepared even if no study asks for them.
        url: An address with http:// or https://, in place of `data_file`.
        sha256: What `sha256sum` prints of a copy that you have looked at: a file from the network is known by it.
        end_of_line: Of words, whether the end of a line is a token, `<eos>`, as it is in PTB; else it is white space.
    """

    lengths: tuple[int, ...] = ()
    url: str | None = None
    sha256: str | None = None
    end_of_line: bool = True

    wholes: ClassVar[tuple[str, ...]] = ("data_file", "url")
    leaks_of: ClassVar[str] = "long lines"
    length_reason = "a window lies within the part of its split"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.unit is not None, "unit", "character or word", None)
        lines = self.unit == "word" or self.end_of_line
        require(lines, "end_of_line", "true, or nothing, as it is a character like others", self.end_of_line)
        if self.url is None:
            require(self.sha256 is None, "sha256", "null without url: DVC watches files", self.sha256)
            return
        require(self.url.startswith(("http://", "https://")), "url", "an address with http:// or https://", self.url)
        fine = self.sha256 is not None and re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(fine, "sha256", "64 hexadecimal digits in small letters, as sha256sum prints them", self.sha256)

    def num_windows(self, split: str, num: int, length: int, scale: int) -> int:
        """Return how many windows are used: all up to the caps, which are noted."""
        return len(self.choose(split, num, f"windows of length {length}"))

    @property
    def name(self) -> str:
        """What messages call the text."""
        return self.url or str(self.whole_path)

    def _lines(self, key: str) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield the number and the tokens of each line, or of part of a long one: a text of characters, or words.

        Raises:
            DatasetError: If a line is not what it should be.
        """
        if key == "url":
            assert self.url is not None  # noqa: S101 - see `__post_init__`
            lines = read_lines(fetch(self.url, self.sha256 or ""), self.url, whole=False)
        else:
            lines = read_lines(self.paths(key)[0], whole=False)
        for number, line in lines:
            text = line.lower() if self.lower_case else line
            if self.unit == "character":
                yield number, text
                continue
            words = text.split()
            if self.end_of_line:
                if END_OF_LINE in words:
                    got = f"the text has the word {END_OF_LINE!r}, which stands for the end of a line"
                    name = self.url or self.paths(key)[0]
                    raise DatasetError(f"{name}, line {number}: {got}; leave it out, or write end_of_line: false")
                words += [END_OF_LINE] if line.endswith("\n") else []
            yield number, words

    @property
    def _whole(self) -> str:
        return "url" if self.url else "data_file"

    def _pieces(self) -> Iterator[Piece]:
        """Yield the tokens of the text, line by line; a line that shares cut comes in pieces."""
        if self.shares is None:
            for split, key in FILE_KEYS.items():
                yield from (Piece(split, line, tokens) for line, tokens in self._lines(key))
            return
        cuts = [0, *self.shares.cuts(self._num_tokens).tolist(), self._num_tokens]
        at = 0
        for line, tokens in self._lines(self._whole):
            for split, (first, last) in zip(SPLITS, pairwise(cuts), strict=True):
                if at < last and first < at + len(tokens):
                    yield Piece(split, line, tokens[max(0, first - at) : last - at])
            at += len(tokens)

    @cached_property
    def _num_tokens(self) -> int:
        return sum(len(tokens) for _, tokens in self._lines(self._whole))

    @cached_property
    def corpus(self) -> Corpus:
        """The ids of each split: tokens are counted, told apart and looked up, in passes over the text.

        Raises:
            DatasetError: If the text is not what it should be, or too short.
        """
        characters = self.unit == "character"
        unknown, counts, sizes = UNKNOWN_CHARACTER if characters else UNKNOWN, Counter[str](), dict.fromkeys(SPLITS, 0)
        for block in _blocks(self._pieces()):
            sizes[block[0].split] += sum(len(piece.tokens) for piece in block)
            if block[0].split == "train":
                counts.update(_counted(block))
        for split, size in sizes.items():
            if size < 2:  # noqa: PLR2004 - a token, and the next one
                got = f"{sum(sizes.values())} {self.unit}s, of which {split} has {size}"
                raise DatasetError(f"{self.name}: expected at least 2 {self.unit}s in every split, got a text of {got}")
        if not characters and UNKNOWN_CHARACTER in counts:
            counts[UNKNOWN] += counts.pop(UNKNOWN_CHARACTER)
        tokens = tuple(frequent(f"{self.name}: the training split", counts, self.min_count, unknown))
        known = {token: i for i, token in enumerate(tokens)}
        known.setdefault(UNKNOWN_CHARACTER, known.get(unknown, -1))
        ids = {split: np.empty(size, dtype=dtype_of(len(tokens))) for split, size in sizes.items()}
        at, hashes = dict.fromkeys(SPLITS, 0), {split: [np.zeros(0, dtype=np.int64)] for split in SPLITS}
        for block in _blocks(self._pieces()):
            split, looked_up = block[0].split, look_up(block, known, known.get(unknown, -1))
            if looked_up.min() < 0:
                self._refuse(block, int(np.argmax(looked_up < 0)))
            ids[split][at[split] : at[split] + len(looked_up)] = looked_up
            at[split] += len(looked_up)
            long = (piece.tokens for piece in block if len(piece.tokens) >= LONG_LINE[self.unit or ""])
            hashes[split].append(np.array([hash(x if characters else tuple(x)) for x in long], dtype=np.int64))
        lines = {split: np.unique(np.concatenate(hashes.pop(split))) for split in SPLITS}
        leaks = {split: int(np.isin(lines[split], lines["train"], assume_unique=True).sum()) for split in SPLITS[1:]}
        return Corpus(ids, tokens, leaks)

    def _refuse(self, block: Sequence[Piece], place: int) -> None:
        """Say where the token stands that training lacks.

        Raises:
            DatasetError: With file, line and token.
        """
        for piece in block:
            if place < len(piece.tokens):
                break
            place -= len(piece.tokens)
        name = self.paths(FILE_KEYS[piece.split])[0] if self.given else self.name
        message = f"in the {piece.split} split, a token that the training split lacks: {piece.tokens[place]!r}"
        raise DatasetError(f"{name}, line {piece.line}: {message}; leave it out, or set min_count")

    def ids_by_split(self) -> dict[str, list[np.ndarray]]:
        """Return the ids of each split."""
        return {split: [ids] for split, ids in self.corpus.ids.items()}

    def token_texts(self) -> tuple[str, ...]:
        """Return the tokens of the training split, and the one that stands for all others."""
        return self.corpus.tokens

    def leaks(self, dataset: Dataset) -> dict[str, int]:
        """Return how many different lines of validation and of test, of `LONG_LINE` tokens or more, training has."""
        return self.corpus.leaks

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file, or the address and its sha256, verified whenever the text is read."""
        return {"url": self.url, "sha256": self.sha256} if self.url else super().source()

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a window as text; a bent arrow is the end of a line."""
        if self.unit == "character":
            return super().draw_one(dataset, one)
        return " ".join((dataset.input_tokens or ())[i] for i in one.inputs)


def encode(text: str, characters: str) -> np.ndarray:
    """Return the id of each character of a text, (len(text),): its index in `characters`, or the one after the last."""
    table = np.full(NUM_CODE_POINTS, len(characters), dtype=dtype_of(len(characters) + 1))
    table[[ord(character) for character in characters]] = np.arange(len(characters))
    return table[_code_points(text)]


def _blocks(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces of one split together, a few mebibytes at a time, so that they are looked up at once."""
    block: list[Piece] = []
    size = 0
    for piece in pieces:
        most = CHUNK if isinstance(piece.tokens, str) else CHUNK // BYTES_OF_WORD
        if block and (size > most or piece.split != block[0].split):
            yield block
            block, size = [], 0
        if piece.tokens:
            block.append(piece)
            size += len(piece.tokens)
    if block:
        yield block


def _counted(block: Sequence[Piece]) -> Mapping[str, int]:
    """Return how often each token is in a block."""
    if not isinstance(block[0].tokens, str):
        return Counter(word for piece in block for word in piece.tokens)
    counts = np.bincount(_code_points("".join(str(piece.tokens) for piece in block)))
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}


def look_up(block: Sequence[Piece], known: Mapping[str, int], otherwise: int) -> np.ndarray:
    """Return the id of every token of a block, int32; `otherwise` for those that are not known."""
    if not isinstance(block[0].tokens, str):
        return np.array([known.get(word, otherwise) for piece in block for word in piece.tokens], dtype=np.int32)
    table = np.full(NUM_CODE_POINTS, otherwise, dtype=np.int32)
    table[[ord(character) for character in known]] = list(known.values())
    return table[_code_points("".join(str(piece.tokens) for piece in block))]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def window_starts(texts: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return where windows of `length` ids and the one after begin in the texts joined together, none across two.

    Windows follow each other, so no token is the target of two of them.
    """
    begin = np.cumsum([0, *map(len, texts)])
    return np.concatenate([at + np.arange(0, len(ids) - length, length) for at, ids in zip(begin, texts, strict=False)])


def cut_windows(texts: Sequence[np.ndarray], starts: np.ndarray, length: int) -> np.ndarray:
    """Return the windows of `length` ids and the one after that begin at `starts`, (N, length + 1)."""
    ids, inside = texts[0] if len(texts) == 1 else np.concatenate(texts), np.arange(length + 1)
    windows = np.empty((len(starts), length + 1), dtype=ids.dtype)
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        some = slice(first, first + WINDOWS_AT_ONCE)
        windows[some] = ids[starts[some, None] + inside]
    return windows


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
