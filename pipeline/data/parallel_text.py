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
from pipeline.data.text import read_bytes
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError

UNKNOWN = "<unk>"
"""Stands for tokens that are seen too seldom."""


class Pair(NamedTuple):
    """The tokens that are read and those to be answered, and the line (from 1) that they are from."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    line: int


@dataclass(frozen=True, kw_only=True)
class ParallelText(Drawn):
    """Pairs of texts of at most `max_length` tokens, divided by `shares`. Their number does not depend on the scale."""

    source_file: str | None
    target_file: str | None
    tsv_file: str | None
    unit: Literal["character", "word"]
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

    def files(self) -> list[Path]:
        """Return the file of the sources and that of the targets, or the one of both."""
        return [Path(file) for file in (self.source_file, self.target_file, self.tsv_file) if file is not None]

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all pairs, filled up to the longest; `sizes` are of generated sequences and change nothing here."""
        parts = self.split(self.read())
        source, inputs = self.encode("source", parts)
        target, targets = self.encode("target", parts)
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
        paths = self.files()
        columns = [read_lines(path) for path in paths]
        if len({*map(len, columns)}) > 1:
            first, second = (f"{path} has {len(lines)}" for path, lines in zip(paths, columns, strict=True))
            raise DatasetError(f"{first} lines, {second}; expected as many in both")
        pairs = []
        for line, row in enumerate(zip(*columns, strict=True), start=1):
            texts = row if len(paths) == 2 else row[0].split("\t")
            if len(texts) != 2:
                expected = "two columns, source and target with a tab between"
                raise DatasetError(f"{paths[0]}, line {line}: expected {expected}, got {len(texts)}")
            source, target = (tuple(text.split() if self.unit == "word" else text.strip()) for text in texts)
            for side, path, tokens in (("source", paths[0], source), ("target", paths[-1], target)):
                if not tokens:
                    raise DatasetError(f"{path}, line {line}: the {side} is empty; expected at least one {self.unit}")
                if len(tokens) > self.max_length:
                    got = f"the {side} has {len(tokens)} {self.unit}s, more than max_length {self.max_length}"
                    raise DatasetError(f"{path}, line {line}: {got}")
            pairs.append(Pair(source, target, line))
        return pairs

    def split(self, pairs: list[Pair]) -> dict[str, list[Pair]]:
        """Return the pairs of each split; those with one source stay together, so `shares` are of different sources.

        Raises:
            DatasetError: If there are too few different sources for one in every split.
        """
        by_source: dict[tuple[str, ...], list[Pair]] = {}
        for pair in pairs:
            by_source.setdefault(pair.source, []).append(pair)
        groups = list(by_source.values())
        parts = split_indices(np.zeros(len(groups), dtype=np.uint8), self.shares, self.seed)
        for split, chosen in parts.items():
            if len(chosen) == 0:
                got = f"{len(groups)} different sources, too few for a share of {getattr(self.shares, split)}"
                raise DatasetError(f"{self.files()[0]}: {got}; {split} needs at least one")
        return {split: [pair for i in chosen for pair in groups[i]] for split, chosen in parts.items()}

    def encode(
        self, side: Literal["source", "target"], parts: Mapping[str, list[Pair]]
    ) -> tuple[Vocabulary, dict[str, list[list[int]]]]:
        """Return the vocabulary of one side of the training pairs, and the ids of that side of every pair, by split.

        Raises:
            DatasetError: If there are more different tokens than ids, a word is a special token, or a text has a token
                that no training pair has.
        """
        path = self.files()[0 if side == "source" else -1]
        counts = Counter(token for pair in parts["train"] for token in getattr(pair, side))
        frequent = sorted(token for token, count in counts.items() if count >= self.min_count)
        try:
            vocabulary = Vocabulary([*([UNKNOWN] if self.min_count else []), *frequent])
        except DatasetError as error:
            raise DatasetError(f"{path}: {side}s of the training split: {error}") from None
        known = {*frequent}
        ids: dict[str, list[list[int]]] = {split: [] for split in parts}
        for split, pair in ((split, pair) for split, pairs in parts.items() for pair in pairs):
            tokens = getattr(pair, side)
            if self.min_count:
                tokens = [token if token in known else UNKNOWN for token in tokens]
            try:
                ids[split].append(vocabulary.encode(tokens))
            except DatasetError as error:
                message = f"{path}, line {pair.line}: in the {split} split, with a token that the training split lacks"
                raise DatasetError(f"{message}: {error}; leave such pairs out, or set min_count") from None
        return vocabulary, ids

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a pair as text, the target under the source."""
        between = " " if self.unit == "word" else ""
        sides = (("source", one.inputs, dataset.input_tokens), ("target", one.targets, dataset.target_tokens))
        return "\n".join(
            f"{side} {between.join((tokens or ())[i] for i in ids if i > EOS)}" for side, ids, tokens in sides
        )

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file."""
        return {"files": {str(path): hashlib.sha256(read_bytes(path)).hexdigest() for path in self.files()}}


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
