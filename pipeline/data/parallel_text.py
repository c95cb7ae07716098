"""A user's own parallel text: read the source of a pair, say its target.

    inputs   the source, token by token: characters, or words between white space
    targets  the target, then EOS
    baseline the unigram entropy of the training targets, in nats per token

Either `source_file` and `target_file` have a line a pair, or `tsv_file` has both in a line; paths are relative to the
folder in which `stages/prepare.py` runs, the project's own under `dvc repro`. DVC does not watch these files: once they
are edited, run `stages/prepare.py <name>`. Pairs with the same source belong to one split, so no source of the test
split is trained on. Vocabularies are those of the training split. With `min_count` of 0 a token that it lacks is an
error, for no network could read or write it; else `<unk>` stands for every token seen less often than that.
Shapes: N pairs, S and U tokens of the longest source and target.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPLITS, Dataset, Split, assemble
from pipeline.data.digits import Shares, split_indices
from pipeline.data.generator import check_length, require_seed_and_lengths
from pipeline.data.text_pairs import Pair, Text, Unit, check_lengths, read_bytes, read_tsv, read_two_files
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError

NUM_DRAWN = 5
UNKNOWN = "<unk>"
"""Stands for tokens that are seen too seldom."""


@dataclass(frozen=True)
class ParallelText:
    """Pairs of texts of at most `max_length` tokens, divided by `shares`. Their number does not depend on the scale."""

    generator: Literal["parallel_text"]
    seed: int
    source_file: str | None
    target_file: str | None
    tsv_file: str | None
    unit: Unit
    max_length: int
    min_count: int
    shares: Shares

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, ())
        require(self.max_length >= 1, "max_length", "an integer of at least 1", self.max_length)
        require(self.min_count >= 0, "min_count", "an integer of at least 0", self.min_count)
        given = tuple(file is not None for file in (self.source_file, self.target_file, self.tsv_file))
        expected = "either this file alone, or both source_file and target_file"
        require(given in {(True, True, False), (False, False, True)}, "tsv_file", expected, self.tsv_file)

    @property
    def natural_length(self) -> int:
        """The most tokens that a text may have."""
        return self.max_length

    @property
    def lengths(self) -> tuple[int, ...]:
        """The only length."""
        return (self.max_length,)

    @property
    def possible_lengths(self) -> str:
        """Which lengths are possible, in words."""
        return f"texts are as long as they are, up to max_length: write null (or {self.max_length})"

    def allows(self, length: int) -> bool:
        """Return whether `length` is the most that a text may have."""
        return length == self.max_length

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return all pairs, filled up to the longest; `sizes` are of generated sequences and change nothing here."""
        check_length(self.generator, self, length)
        parts = split_pairs(self.read(), self.shares, self.seed)
        source, inputs = encode_side(parts, "source", self.min_count)
        target, targets = encode_side(parts, "target", self.min_count)
        num_source, num_target = (max(len(row) for rows in ids.values() for row in rows) for ids in (inputs, targets))
        splits = {}
        for split in SPLITS:
            ended = [[*row, EOS] for row in targets[split]]
            read = pad(inputs[split], num_source, len(source))
            splits[split] = Split(read, pad(ended, num_target + 1, len(target)))
        return assemble(self.generator, translation_task(length, source, target, splits["train"].targets), splits)

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

    def draw(self, dataset: Dataset) -> str:
        """Return pairs as text, the target under the source."""
        train, between = dataset.splits["train"], " " if self.unit == "word" else ""
        sides = (("source", train.inputs, dataset.input_tokens), ("target", train.targets, dataset.target_tokens))
        lines = (
            [f"{side} {between.join((tokens or ())[i] for i in row if i > EOS)}" for row in rows[:NUM_DRAWN]]
            for side, rows, tokens in sides
        )
        return "\n\n".join("\n".join(pair) for pair in zip(*lines, strict=True))

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
