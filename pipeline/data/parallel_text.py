"""A user's own parallel text: read the source of a pair, say its target.

    inputs   the source, token by token: characters, or words between white space
    targets  the target, then EOS
    baseline the unigram entropy of the training targets, in nats per token

Either `source_file` and `target_file` have a line a pair, or `tsv_file` has both in a line; paths are relative to the
folder in which `stages/prepare.py` runs, the project's own under `dvc repro`. DVC does not watch these files: once they
are edited, run `stages/prepare.py <name>`. Pairs with the same source belong to one split, so no source of the test
split is trained on. Vocabularies are those of the training split. With `min_count` of 0 a token that it lacks is an
error, for no network could read or write it; else `<unk>` stands for every token seen less often than that.
Files are UTF-8. A line ends with a line feed (a carriage return before it, and a byte order mark, do not count), and
white space at either end of a text does not count. A mistake is named with file and line.
Shapes: N pairs, S and U tokens of the longest source and target.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPLITS, Dataset, Split, Task
from pipeline.data.generator import Drawn, Shares, split_indices
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError, unknown_name

Unit = Literal["character", "word"]


UNKNOWN = "<unk>"
"""Stands for tokens that are seen too seldom."""


class Text(NamedTuple):
    """One side of a pair: its tokens, and the file and line (from 1) that it is from."""

    tokens: tuple[str, ...]
    path: Path
    line: int

    @property
    def where(self) -> str:
        """File and line, for an error."""
        return f"{self.path}, line {self.line}"


class Pair(NamedTuple):
    """What is read, and what is to be answered."""

    source: Text
    target: Text


@dataclass(frozen=True, kw_only=True)
class ParallelText(Drawn):
    """Pairs of texts of at most `max_length` tokens, divided by `shares`. Their number does not depend on the scale."""

    source_file: str | None
    target_file: str | None
    tsv_file: str | None
    unit: Unit
    max_length: int
    min_count: int
    shares: Shares

    length_reason = "texts are as long as they are, up to max_length"
    num_drawn = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_length >= 1, "max_length", "an integer of at least 1", self.max_length)
        require(self.min_count >= 0, "min_count", "an integer of at least 0", self.min_count)
        given = tuple(file is not None for file in (self.source_file, self.target_file, self.tsv_file))
        expected = "either this file alone, or both source_file and target_file"
        require(given in {(True, True, False), (False, False, True)}, "tsv_file", expected, self.tsv_file)

    @property
    def natural_length(self) -> int:
        """The most tokens that a text may have."""
        return self.max_length

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all pairs, filled up to the longest; `sizes` are of generated sequences and change nothing here."""
        parts = split_pairs(self.read(), self.shares, self.seed)
        source, inputs = encode_side(parts, "source", self.min_count)
        target, targets = encode_side(parts, "target", self.min_count)
        num_source, num_target = (max(len(row) for rows in ids.values() for row in rows) for ids in (inputs, targets))
        splits = {}
        for split in SPLITS:
            ended = [[*row, EOS] for row in targets[split]]
            read = pad(inputs[split], num_source, len(source))
            splits[split] = Split(read, pad(ended, num_target + 1, len(target)))
        return translation_task(length, source, target, splits["train"].targets), splits

    def read(self) -> list[Pair]:
        """Return the pairs, in the order of the file.

        Raises:
            DatasetError: If a file cannot be read, or holds anything but pairs of texts that are long enough and no
                longer than `max_length`.
        """
        first, *second = self._files()
        pairs = read_two_files(first, second[0], self.unit) if second else read_tsv(first, self.unit)
        check_lengths(pairs, self.unit, self.max_length)
        return pairs

    def _files(self) -> list[Path]:
        return [Path(file) for file in (self.source_file, self.target_file, self.tsv_file) if file is not None]

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a pair as text, the target under the source."""
        between = " " if self.unit == "word" else ""
        sides = (("source", one.inputs, dataset.input_tokens), ("target", one.targets, dataset.target_tokens))
        return "\n".join(
            f"{side} {between.join((tokens or ())[i] for i in ids if i > EOS)}" for side, ids, tokens in sides
        )

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file."""
        return {"files": {str(path): hashlib.sha256(read_bytes(path)).hexdigest() for path in self._files()}}


def split_pairs(pairs: list[Pair], shares: Shares, seed: int) -> dict[str, list[Pair]]:
    """Return the pairs of each split; those with the same source stay together, so `shares` are of different sources.

    Raises:
        DatasetError: If there are too few different sources for one in every split.
    """
    by_source: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        by_source.setdefault(pair.source.tokens, []).append(pair)
    groups = list(by_source.values())
    parts = split_indices(np.zeros(len(groups), dtype=np.uint8), shares, seed)
    for split, chosen in parts.items():
        if len(chosen) == 0:
            got = f"{len(groups)} different sources, too few for a share of {getattr(shares, split)}"
            raise DatasetError(f"{pairs[0].source.path}: {got}; {split} needs at least one")
    return {split: [pair for i in chosen for pair in groups[i]] for split, chosen in parts.items()}


def encode_side(
    parts: Mapping[str, list[Pair]], side: Literal["source", "target"], min_count: int
) -> tuple[Vocabulary, dict[str, list[list[int]]]]:
    """Return the vocabulary of one side of the training pairs, and the ids of that side of every pair, by split.

    Raises:
        DatasetError: If there are more different tokens than ids, a word is a special token, or a text has a token
            that no training pair has.
    """
    texts = {split: [getattr(pair, side) for pair in pairs] for split, pairs in parts.items()}
    vocabulary = _vocabulary_of(texts["train"], side, min_count)
    if min_count:
        known = set(vocabulary.tokens)
        texts = {split: [_without_rare(text, known) for text in some] for split, some in texts.items()}
    return vocabulary, {split: [_encode(vocabulary, text, split) for text in some] for split, some in texts.items()}


def _without_rare(text: Text, known: set[str]) -> Text:
    return text._replace(tokens=tuple(token if token in known else UNKNOWN for token in text.tokens))


def _vocabulary_of(texts: list[Text], side: str, min_count: int) -> Vocabulary:
    counts = Counter(token for text in texts for token in text.tokens)
    frequent = sorted(token for token, count in counts.items() if count >= min_count)
    try:
        return Vocabulary([*([UNKNOWN] if min_count else []), *frequent])
    except DatasetError as error:
        raise DatasetError(f"{texts[0].path}: {side}s of the training split: {error}") from None


def _encode(vocabulary: Vocabulary, text: Text, split: str) -> list[int]:
    try:
        return vocabulary.encode(text.tokens)
    except DatasetError as error:
        message = f"{text.where}: in the {split} split, with a token that the training split lacks"
        raise DatasetError(f"{message}: {error}; leave such pairs out, or set min_count") from None


def read_two_files(source: Path, target: Path, unit: Unit) -> list[Pair]:
    """Return the pairs of two files, of which each line belongs to the line with the same number in the other.

    Raises:
        DatasetError: If a file cannot be read, is not UTF-8, or has another number of lines than the other.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        message = f"{source} has {len(sources)} lines, {target} has {len(targets)}; expected as many in both"
        raise DatasetError(message)
    lines = enumerate(zip(sources, targets, strict=True), start=1)
    return [Pair(Text(_split(one, unit), source, i), Text(_split(other, unit), target, i)) for i, (one, other) in lines]


def read_tsv(path: Path, unit: Unit) -> list[Pair]:
    """Return the pairs of a table without a head: a source, a tab and a target in every line.

    Raises:
        DatasetError: If the file cannot be read, is not UTF-8, or a line has not exactly two columns.
    """
    pairs = []
    for i, line in enumerate(read_lines(path), start=1):
        columns = [Text(_split(column, unit), path, i) for column in line.split("\t")]
        if len(columns) != 2:
            expected = "two columns, source and target with a tab between"
            raise DatasetError(f"{path}, line {i}: expected {expected}, got {len(columns)}")
        pairs.append(Pair(*columns))
    return pairs


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without their ends.

    Raises:
        DatasetError: If the file is missing, cannot be read, or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


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


def check_lengths(pairs: list[Pair], unit: Unit, max_length: int) -> None:
    """Refuse pairs of which a side is empty or too long.

    Raises:
        DatasetError: At the first such text; the message names file and line.
    """
    for pair in pairs:
        for side, text in pair._asdict().items():
            if not text.tokens:
                raise DatasetError(f"{text.where}: the {side} is empty; expected at least one {unit}")
            if len(text.tokens) > max_length:
                got = f"the {side} has {len(text.tokens)} {unit}s"
                raise DatasetError(f"{text.where}: {got}, more than max_length {max_length}")


def _split(text: str, unit: Unit) -> tuple[str, ...]:
    return tuple(text.split() if unit == "word" else text.strip())
