"""A user's own pairs of texts: read the source of a pair, say its target.

    inputs   the source, token by token: characters, or words between white space
    targets  the target, then EOS
    baseline the unigram entropy of the training targets, in nats per token

A file has a pair a line, in two of its columns with tabs between; or two files, `[a.fr, a.en]`, have a line a pair.

Pairs with the same source belong to one split, so no source of the test split is trained on; "the same" is as the
network reads them. Where unknown tokens make a source of the validation or test split the same as one of an earlier
split, its pair moves to that. Given splits stay as they are. What `<unk>` is, and what is left out: see own.py.
Shapes: N pairs, S and U tokens of the longest source and target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPLITS, Dataset, Split, Task
from pipeline.data.files import read_lines
from pipeline.data.own import ShortTexts
from pipeline.data.vocabulary import Vocabulary, pad, translation_task
from pipeline.errors import DatasetError

Side = Literal["source", "target"]
SIDES: tuple[Side, Side] = ("source", "target")


class Pair(NamedTuple):
    """The tokens that are read and those to be answered, and where each of them stand."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    where: str
    target_where: str


class Division(NamedTuple):
    """The pairs of each split, and the vocabularies of sources and of targets that they are read in."""

    parts: dict[str, list[Pair]]
    vocabularies: dict[Side, Vocabulary]


@dataclass(frozen=True, kw_only=True)
class Pairs(ShortTexts):
    """Pairs of texts of at most `max_length` tokens.

    Attributes:
        columns: Those of source and target, from 1; null is that a line has these two and no other. Further columns,
            such as the attribution in the third one of ManyThings' files, are not read.
    """

    columns: tuple[int, ...] | None = None

    num_drawn = 5
    num_files: ClassVar[int] = 2
    what_is_divided: ClassVar[str] = "sources"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_texts()
        if self.columns is not None:
            fine = len(self.columns) == 2 and min(self.columns) >= 1 and len({*self.columns}) == 2  # noqa: PLR2004
            require(fine, "columns", "two different columns, from 1: [1, 2]", list(self.columns))
            two = isinstance(self.train_file if self.given else self.data_file, list | tuple)
            require(not two, "columns", "null, as there are two files", list(self.columns))

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all pairs, filled up to the longest; `sizes` are of generated sequences and change nothing here."""
        parts, (source, target) = self.division.parts, self.division.vocabularies.values()
        inputs = {split: [self.encode(p.source, source, split, p.where) for p in parts[split]] for split in SPLITS}
        targets = {
            split: [[*self.encode(p.target, target, split, p.target_where), EOS] for p in parts[split]]
            for split in SPLITS
        }
        num_source, num_target = (max(len(row) for rows in ids.values() for row in rows) for ids in (inputs, targets))
        splits = {
            split: Split(pad(inputs[split], num_source, len(source)), pad(targets[split], num_target, len(target)))
            for split in SPLITS
        }
        return translation_task(length, source, target, splits["train"].targets), splits

    def read(self, paths: Sequence[Path]) -> list[Pair]:
        """Return the pairs of a file, or of two, in their order.

        Raises:
            DatasetError: If a file cannot be read, or holds anything but pairs of texts that are long enough and no
                longer than `max_length`, unless those are to be left out.
        """
        files = [list(read_lines(path)) for path in paths]
        if len({*map(len, files)}) > 1:
            first, second = (f"{path} has {len(lines)}" for path, lines in zip(paths, files, strict=True))
            raise DatasetError(f"{first} lines, {second}; expected as many in both")
        pairs = []
        for line, rows in enumerate(zip(*files, strict=True), start=1):
            places = [f"{path}, line {line}" for path in paths]
            texts = [text for _, text in rows] if len(paths) > 1 else self._cut(rows[0][1], places[0])
            source, target = (self.tokens(text) for text in texts)
            named = zip(SIDES, (places[0], places[-1]), (source, target), strict=True)
            fit = [self.fits(tokens, where, f"the {side}") for side, where, tokens in named]
            if all(fit):
                pairs.append(Pair(source, target, places[0], places[-1]))
        self.note_longer(paths[0], "pair", len(pairs), len(files[0]))
        return pairs

    def _cut(self, line: str, where: str) -> list[str]:
        """Return source and target of a line of columns.

        Raises:
            DatasetError: If it does not have them.
        """
        texts = line.removesuffix("\n").split("\t")
        got = f"{len(texts)}: {line.strip()[:60]!r}" if line.strip() else "an empty line; leave it out"
        if self.columns is None:
            if len(texts) != 2:  # noqa: PLR2004 - source and target
                expected = "two columns, source and target with a tab between"
                remedy = "; `columns` says which of several, [1, 2]" if len(texts) > 2 else ""  # noqa: PLR2004
                raise DatasetError(f"{where}: expected {expected}, got {got}{remedy}")
            return texts
        if len(texts) < max(self.columns):
            raise DatasetError(f"{where}: expected {max(self.columns)} columns with tabs between, got {got}")
        return [texts[column - 1] for column in self.columns]

    @cached_property
    def division(self) -> Division:
        """The pairs of each split, no source in two of them as the network reads it, and the vocabularies.

        Raises:
            DatasetError: If there are too few different sources for one in every split, or no vocabulary.
        """
        drawn = self.kept(self.divide(self.read, lambda pair: pair.source), "pairs", ["train"])
        what = f"{self.whole_path}: {{}}s of the training split"
        vocabularies = {
            side: self.vocabulary(what.format(side), (getattr(pair, side) for pair in drawn["train"])) for side in SIDES
        }
        parts = self.apart(drawn, lambda pair: pair.source, vocabularies["source"])
        return Division(self.kept(parts, "pairs", SPLITS[1:]), vocabularies)

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a pair as text, the target under the source."""
        between = " " if self.unit == "word" else ""
        sides = (("source", one.inputs, dataset.input_tokens), ("target", one.targets, dataset.target_tokens))
        return "\n".join(
            f"{side} {between.join((tokens or ())[i] for i in ids if i > EOS)}" for side, ids, tokens in sides
        )
