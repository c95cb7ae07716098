"""A user's own parallel text: read the source of a pair, say its target.

    inputs   the source, token by token: characters, or words between white space
    targets  the target, then EOS
    baseline the unigram entropy of the training targets, in nats per token

Either `source_file` and `target_file` have a line a pair, or `tsv_file` has both in a line; relative paths begin at the
project's folder. DVC watches the files: `dvc repro` prepares the dataset anew once one has changed.

Texts are composed as NFC says, so a letter with its mark is one token, however it is written. The vocabularies are
those of the training split. With `min_count` of 0 a token that it lacks is an error, for no network could read or write
it; else `<unk>` stands for every token seen less often than that in training. A text's own `<unk>` (or ▯) is that token
as well, whatever `min_count` says; the words `<pad>`, `<sos>` and `<eos>` are refused, since the network reads them as
something else. `<unk>` is never a right answer; what share of the tokens it is stands in the manifest.

Pairs with the same source belong to one split, so no source of the test split is trained on; "the same" is as the
network reads them. Where unknown tokens make a source of the validation or test split the same as one of an earlier
split, its pair moves to that. Of validation and test, at most `max_evaluated` pairs are kept, chosen at random: a
network is evaluated on all of them again and again, so they are part of what training costs. How many pairs moved, and
how many are left out, stands in the manifest.

Files are UTF-8. A line ends with a line feed (a carriage return before it, and a byte order mark, do not count), and
white space at either end of a text does not count. A mistake is named with file and line.
Shapes: N pairs, S and U tokens of the longest source and target.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPECIAL_TOKENS, SPLITS, UNKNOWN, UNKNOWN_CHARACTER, Dataset, Split, Task
from pipeline.data.generator import Drawn, Shares, split_indices
from pipeline.data.text import CARRIAGE_RETURNS, decode, read_bytes
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError


class Pair(NamedTuple):
    """The tokens that are read and those to be answered, and the line (from 1) that they are from."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    line: int


Side = Literal["source", "target"]


class Division(NamedTuple):
    """The pairs of each split, and the two vocabularies that they are read in.

    Attributes:
        parts: The pairs by split.
        vocabularies: Of sources and of targets.
        num_moved: Pairs whose source reads like one of an earlier split, to which they were moved.
        num_left_out: By split, pairs beyond `max_evaluated`.
    """

    parts: dict[str, list[Pair]]
    vocabularies: dict[Side, Vocabulary]
    num_moved: int
    num_left_out: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ParallelText(Drawn):
    """Pairs of texts of at most `max_length` tokens, divided by `shares`. Their number does not depend on the scale.

    At most `max_evaluated` of them are in the validation split and in the test split; null is all.
    """

    source_file: str | None
    target_file: str | None
    tsv_file: str | None
    unit: Literal["character", "word"]
    max_length: int
    min_count: int
    max_evaluated: int | None
    shares: Shares

    length_reason = "texts are as long as they are, up to max_length"
    num_drawn = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_length >= 1, "max_length", "an integer of at least 1", self.max_length)
        require(self.min_count >= 0, "min_count", "an integer of at least 0", self.min_count)
        if self.max_evaluated is not None:
            require(self.max_evaluated >= 1, "max_evaluated", "an integer of at least 1, or null", self.max_evaluated)
        given = tuple(file is not None for file in (self.source_file, self.target_file, self.tsv_file))
        expected = "either this file alone, or both source_file and target_file"
        require(given in {(True, True, False), (False, False, True)}, "tsv_file", expected, self.tsv_file)

    @property
    def natural_length(self) -> int:
        """The most tokens that a text may have."""
        return self.max_length

    def files(self) -> list[Path]:
        """Return the file of the sources and that of the targets, or the one of both."""
        named = (self.source_file, self.target_file, self.tsv_file)
        return [self.folder / file for file in named if file is not None]

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all pairs, filled up to the longest; `sizes` are of generated sequences and change nothing here."""
        division = self.divide(self.read())
        source, target = division.vocabularies.values()
        inputs, targets = self.encode("source", division), self.encode("target", division)
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
            source, target = (self.tokens(text) for text in texts)
            for side, path, tokens in (("source", paths[0], source), ("target", paths[-1], target)):
                for token in {*SPECIAL_TOKENS} & {*tokens}:
                    got = f"the {side} has the word {token!r}, which the network reads as something else"
                    raise DatasetError(f"{path}, line {line}: {got}; write it otherwise, or leave it out")
                if not tokens:
                    raise DatasetError(f"{path}, line {line}: the {side} is empty; expected at least one {self.unit}")
                if len(tokens) > self.max_length:
                    got = f"the {side} has {len(tokens)} {self.unit}s, more than max_length {self.max_length}"
                    raise DatasetError(f"{path}, line {line}: {got}")
            pairs.append(Pair(source, target, line))
        return pairs

    def tokens(self, text: str) -> tuple[str, ...]:
        """Return the tokens of a text; what stands for unknown ones in it is `UNKNOWN`."""
        tokens = text.split() if self.unit == "word" else text.strip()
        return tuple(UNKNOWN if token == UNKNOWN_CHARACTER else token for token in tokens)

    def divide(self, pairs: list[Pair]) -> Division:
        """Return the pairs of each split, no source in two of them as the network reads it, and the vocabularies.

        Raises:
            DatasetError: If there are too few different sources for one in every split, or no vocabulary.
        """
        drawn = self.split(pairs)
        sides: tuple[Side, Side] = ("source", "target")
        vocabularies = {side: self.vocabulary(side, drawn["train"]) for side in sides}
        first_split: dict[tuple[str, ...], str] = {}
        parts: dict[str, list[Pair]] = {split: [] for split in SPLITS}
        num_moved = 0
        for split in SPLITS:
            for pair in drawn[split]:
                read = self.known(pair.source, vocabularies["source"])
                first = first_split.setdefault(read, split)
                parts[first].append(pair)
                num_moved += first != split
        for split, kept in parts.items():
            if not kept:
                got = f"every source of the {split} split reads like one of another split"
                raise DatasetError(
                    f"{self.files()[0]}: {got} once tokens seen less often than min_count {self.min_count} are "
                    f"{UNKNOWN}; lower min_count, or give more pairs"
                )
        num_left_out = {}
        for split in SPLITS[1:]:
            kept = parts[split][: self.max_evaluated]
            num_left_out[split], parts[split] = len(parts[split]) - len(kept), kept
        return Division(parts, vocabularies, num_moved, num_left_out)

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

    def vocabulary(self, side: Side, train: list[Pair]) -> Vocabulary:
        """Return the vocabulary of one side of the training pairs: `UNKNOWN` where there can be one, then the tokens.

        Raises:
            DatasetError: If there is no token but `UNKNOWN`, or there are more than ids.
        """
        what = f"{self.files()[0 if side == 'source' else -1]}: {side}s of the training split"
        counts = Counter(token for pair in train for token in getattr(pair, side))
        own_unknown = counts.pop(UNKNOWN, 0)
        frequent = sorted(token for token, count in counts.items() if count >= self.min_count)
        if not frequent:
            expected = f"a token that occurs min_count {self.min_count} times" if self.min_count else "any other token"
            got = f"{UNKNOWN} alone; the most frequent one occurs {max(counts.values(), default=0)} times"
            raise DatasetError(f"{what}: expected {expected}, got {got}")
        try:
            return Vocabulary([*([UNKNOWN] if self.min_count or own_unknown else []), *frequent])
        except DatasetError as error:
            raise DatasetError(f"{what}: {error}; a larger min_count makes them fewer") from None

    def known(self, tokens: tuple[str, ...], vocabulary: Vocabulary) -> tuple[str, ...]:
        """Return the tokens as the network reads them: with a `min_count`, `UNKNOWN` for those the vocabulary lacks."""
        return tuple(token if token in vocabulary else UNKNOWN for token in tokens) if self.min_count else tokens

    def encode(self, side: Side, division: Division) -> dict[str, list[list[int]]]:
        """Return the ids of one side of every pair, by split.

        Raises:
            DatasetError: If a text has a token that no training pair has, and no `min_count` makes it `UNKNOWN`.
        """
        path, vocabulary = self.files()[0 if side == "source" else -1], division.vocabularies[side]
        ids: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
        for split, pair in ((split, pair) for split, pairs in division.parts.items() for pair in pairs):
            try:
                ids[split].append(vocabulary.encode(self.known(getattr(pair, side), vocabulary)))
            except DatasetError as error:
                message = f"{path}, line {pair.line}: in the {split} split, with a token that the training split lacks"
                raise DatasetError(f"{message}: {error}; leave such pairs out, or set min_count") from None
        return ids

    def remarks(self) -> tuple[str, ...]:
        """Return how many pairs are in another split than drawn for, and how many are left out."""
        _, _, num_moved, num_left_out = self.divide(self.read())
        said = []
        if num_moved:
            said.append(
                f"{num_moved} pairs moved to an earlier split, where a source reads the same with {UNKNOWN} in it"
            )
        left_out = [f"{num} {split} pairs" for split, num in num_left_out.items() if num]
        if left_out:
            said.append(f"{' and '.join(left_out)} left out, beyond max_evaluated {self.max_evaluated}")
        return tuple(said)

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a pair as text, the target under the source."""
        between = " " if self.unit == "word" else ""
        sides = (("source", one.inputs, dataset.input_tokens), ("target", one.targets, dataset.target_tokens))
        return "\n".join(
            f"{side} {between.join((tokens or ())[i] for i in ids if i > EOS)}" for side, ids, tokens in sides
        )

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file."""
        named = (self.source_file, self.target_file, self.tsv_file)
        files = [file for file in named if file is not None]
        return {"files": {file: hashlib.sha256(read_bytes(self.folder / file)).hexdigest() for file in files}}


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without their ends.

    Raises:
        DatasetError: If the file is missing, cannot be read, is empty, not UTF-8, or has other ends of lines.
    """
    text = decode(read_bytes(path), path)
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise DatasetError(f"{path}, line {line}: {CARRIAGE_RETURNS}")
    return text.removesuffix("\n").split("\n")
