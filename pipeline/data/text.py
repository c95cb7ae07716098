"""A text, character by character: at every timestep, say the next one.

    inputs   T successive characters of the text
    targets  the same, shifted by one: target_t = input_{t+1}
    baseline the unigram entropy of the training targets, in nats per character

Characters are printable ASCII and the line feed, of a text from the network also all others of its training part, and
one that stands for those that are left: ▯, which in a text is that one, too. A file from the network is believed only
once its sha256 is the expected one, and then kept under its sha256 in $XDG_CACHE_HOME/gradient-dynamics, by default
~/.cache/gradient-dynamics. What is there is verified again, so a file that was copied there by hand is as good as a
download. Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sysconfig
import unicodedata
from abc import abstractmethod
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.paths import write_whole
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, UNKNOWN_CHARACTER, Dataset, Split, Task, make_task
from pipeline.data.generator import AtLengths, Drawn, Shares
from pipeline.data.vocabulary import MAX_TOKENS, dtype_of, unigram_entropy
from pipeline.errors import DatasetError, unknown_name

VOCABULARY = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
NUM_CODE_POINTS = 0x110000
MAX_BYTES = 100_000_000
TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class CharacterText(AtLengths, Drawn):
    """Windows of texts, none across two of them: as many as the scale wants, or as there are."""

    @abstractmethod
    def texts_by_split(self) -> dict[str, list[str]]:
        """Return every text of each split."""

    def characters(self, texts: dict[str, list[str]]) -> str:
        """Return the characters that are told apart in these texts, by id; the next id stands for all others."""
        return VOCABULARY

    @property
    def longest_length(self) -> int:
        """One less than the longest text of every split: a window needs a character after its last one."""
        return min(max(map(len, texts)) for texts in self.texts_by_split().values()) - 1

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return windows of `length` characters, drawn without repetition."""
        texts, splits = self.texts_by_split(), {}
        characters = self.characters(texts)
        for split, rng, num in self.streams(length, sizes):
            windows = cut_windows([encode(text, characters) for text in texts[split]], length)
            chosen = rng.permutation(len(windows))[:num]
            splits[split] = Split(windows[chosen, :-1], windows[chosen, 1:])
        tokens = (*characters, UNKNOWN_CHARACTER)
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
class StdlibText(CharacterText):
    """The Python standard library's own source: windows of one module each.

    A module belongs to one split, so no text of the test split is trained on. Text differs between versions of Python:
    the version and every file's sha256 are recorded with the data.
    """

    modules: Modules

    length_reason = "a window lies within one module of its split"

    def texts_by_split(self) -> dict[str, list[str]]:
        """Return every module of each split."""
        texts = {file: content.decode(errors="replace") for file, content in self.contents().items()}
        return {split: [texts[file] for file in getattr(self.modules, split)] for split in SPLITS}

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


@dataclass(frozen=True, kw_only=True)
class WebText(CharacterText):
    """The text at `url` whose sha256 is known, cut into three consecutive parts by `shares`.

    No text of the test split is trained on, unless the text repeats itself. A carriage return before a line feed, and a
    byte order mark, do not count, and letters with their marks are as NFC composes them. Of any alphabet, every
    character of the training part is one of its own; those that only the others have are unknown, and how many they are
    stands in the manifest. The file is known by its sha256, not by its address: write configs/datasets/<name>.yaml with

        generator: web_text
        seed: 0
        lengths: [100]
        url: https://example.org/corpus.txt
        sha256: <what `sha256sum corpus.txt` prints, of a copy that you have looked at>
        shares: {train: 0.8, validation: 0.1, test: 0.1}
    """

    url: str
    sha256: str
    shares: Shares

    length_reason = "a window lies within the part of its split"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.url.startswith(("http://", "https://")), "url", "an address with http:// or https://", self.url)
        hexadecimal = re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(hexadecimal, "sha256", "64 hexadecimal digits in small letters", self.sha256)

    def texts_by_split(self) -> dict[str, list[str]]:
        """Return the three consecutive parts of the text.

        Raises:
            DatasetError: If the file cannot be had, is another one, is not UTF-8, has other ends of lines, or is too
                short for a window in every part.
        """
        text = decode(fetch(self.url, self.sha256), self.url)
        if "\r" in text and "\n" not in text:
            raise DatasetError(f"{self.url}: {CARRIAGE_RETURNS}, and take the sha256 of that")
        first, second = self.shares.cuts(len(text)).tolist()
        parts = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
        for split, part in parts.items():
            if len(part) < 2:  # noqa: PLR2004 - a character, and the next one
                got = f"{len(text)} characters, of which {split} has {len(part)}"
                raise DatasetError(f"{self.url}: expected at least 2 characters in every split, got a text of {got}")
        return {split: [part] for split, part in parts.items()}

    def characters(self, texts: dict[str, list[str]]) -> str:
        """Return printable ASCII and the line feed, then whatever else the training part has, in order of code points.

        Raises:
            DatasetError: If they are more than there are ids.
        """
        more = sorted({*"".join(texts["train"])} - {*VOCABULARY, UNKNOWN_CHARACTER})
        if len(VOCABULARY) + len(more) >= MAX_TOKENS:
            got = f"{len(more)} beside printable ASCII"
            raise DatasetError(f"{self.url}: expected fewer than {MAX_TOKENS} different characters, got {got}")
        return VOCABULARY + "".join(more)

    def source(self) -> dict[str, Any]:
        """Return the address and the sha256, which is verified whenever the text is read."""
        return {"url": self.url, "sha256": self.sha256}


def encode(text: str, characters: str) -> np.ndarray:
    """Return the id of each character of a text, (len(text),): its index in `characters`, or the one after the last."""
    table = np.full(NUM_CODE_POINTS, len(characters), dtype=dtype_of(len(characters) + 1))
    table[[ord(character) for character in characters]] = np.arange(len(characters))
    return table[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)]


def cut_windows(texts: list[np.ndarray], length: int) -> np.ndarray:
    """Return every window of `length` ids and the one after it, (N, length + 1), none across two texts.

    Windows follow each other, so no character is the target of two of them.
    """
    sliding = np.lib.stride_tricks.sliding_window_view
    return np.concatenate([sliding(ids, length + 1)[::length] for ids in texts if len(ids) > length])


CARRIAGE_RETURNS = (
    r"expected lines that end with a line feed, got stray carriage returns; "
    r"`tr -d '\r'` mends a copy that has line feeds too, `tr '\r' '\n'` one that has none"
)


def decode(content: bytes, name: object) -> str:
    """Return a text in UTF-8, without its byte order mark, its lines ended by line feeds, composed as NFC says.

    So a letter with its mark is the same whether it is one character or two.

    Raises:
        DatasetError: If it is empty or not UTF-8; the message begins with the `name` of the file.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"not UTF-8 text ({error.reason} at byte {error.start})"
        raise DatasetError(f"{name}, line {line}: {problem}; `iconv -t UTF-8 -f <its encoding>` mends a copy") from None
    if not text.strip():
        raise DatasetError(f"{name}: expected text, got an empty file")
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n"))


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DatasetError: If it is missing or cannot be read; the message names the nearest file beside it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = [other.name for other in path.parent.glob("*") if other.is_file()]
        raise DatasetError(f"{path}: no such file; {unknown_name('file', path.name, beside)}") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None


def cache_path(sha256: str) -> Path:
    """Return where the file with this checksum is kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "gradient-dynamics" / sha256


def fetch(url: str, sha256: str) -> bytes:
    """Return the file with this checksum: the kept one, or that at `url`, of at most `MAX_BYTES`.

    Raises:
        DatasetError: If it is not kept and the server cannot be reached, refuses, breaks off, or sends too much or
            another file; or if it cannot be kept.
    """
    path = cache_path(sha256)
    if path.is_file() and _sha256(content := path.read_bytes()) == sha256:
        return content
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s): see `WebText`
            content = response.read(MAX_BYTES + 1)
            announced = response.headers.get("Content-Length", "")
    except HTTPError as error:
        error.close()
        raise DatasetError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DatasetError(f"{url}: cannot be downloaded ({reason}); or put the file at {path}") from None
    if len(content) > MAX_BYTES:
        raise DatasetError(f"{url}: more than {MAX_BYTES} bytes, the most that is downloaded")
    if announced.isdigit() and len(content) < int(announced):
        raise DatasetError(f"{url}: broke off after {len(content)} of {announced} bytes; try again")
    if _sha256(content) != sha256:
        raise DatasetError(f"{url}: expected a file with sha256 {sha256}, got one with {_sha256(content)}")
    try:
        write_whole(path, content, DatasetError)
    except DatasetError as error:
        raise DatasetError(f"{error}; set XDG_CACHE_HOME elsewhere") from None
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
