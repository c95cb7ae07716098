"""A user's own labelled sequences: a class or a number for each of them, or a tag for every word.

    inputs   the tokens of a text, then padding; or numbers, (N, T, D)
    targets  labelled  a class, (N,), or a number, (N, 1), at the last timestep
             tagged    a tag for every word, (N, T), then padding
    baseline labelled  the entropy of the training classes; of numbers, the squared error of their training mean on the
                       test split
             tagged    the unigram entropy of the training tags

Classes and tags are those of the training split. Sequences that are the same belong to one split. With named groups
those of a group do, and what of validation and test reads like a sequence of an earlier split is left out and counted.
So none of the test split is trained on; classes are divided alike. What `<unk>` is, and what is left out: see own.py.
Shapes: N sequences, T timesteps, D numbers of a timestep.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import (
    PAD,
    SPECIAL_TOKENS,
    SPLITS,
    UNKNOWN,
    UNKNOWN_CHARACTER,
    Dataset,
    Split,
    Task,
    make_task,
)
from pipeline.data.files import Table, read_lines, read_table
from pipeline.data.generator import draw_rows
from pipeline.data.own import ShortTexts, scale_of
from pipeline.data.vocabulary import MAX_TOKENS, Vocabulary, dtype_of, pad, unigram_entropy
from pipeline.errors import DatasetError

DOCUMENT_START = "-DOCSTART-"
"""The word of a line that CoNLL 2003 puts between documents."""
Answer = TypeVar("Answer")


class Labelling(NamedTuple, Generic[Answer]):
    """A sequence, what is to be answered, the group that it belongs to, and where it stands.

    `read` are tokens, or numbers (t, D) of which t timesteps are there.
    """

    read: Any
    answer: Answer
    group: Any
    where: str


class Division(NamedTuple):
    """The sequences of each split, and the vocabulary that they are read in, None of numbers."""

    parts: dict[str, list[Labelling[Any]]]
    vocabulary: Vocabulary | None


@dataclass(frozen=True, kw_only=True)
class Labelled(ShortTexts):
    """Sequences with a class or a number each: texts of a table, or numbers of an NPZ archive.

    Of a CSV or Parquet file `inputs` is a column of texts. Of an NPZ archive it is an array of numbers, (N, T) or
    (N, T, D), and `lengths`, where it is given, the array that says how many timesteps of each are there. A network
    answers at the last timestep, so a shorter sequence comes last: zeros stand before it, and one more input says which
    timesteps are there. Numbers are scaled by mean and deviation of the training split, which stand in the manifest.

    Attributes:
        inputs: The column, or array, that is read.
        targets: That of the labels.
        kind: What a label is.
        group: The column of groups, of which none is in two splits; what reads like an earlier split's is left out.
        lengths: The array of lengths, of an NPZ archive.
        scaling: Whether numbers are scaled to mean 0 and deviation 1, or taken as they are.
    """

    inputs: str
    targets: str
    kind: Literal["class", "value"] = "class"
    unit: Literal["character", "word"] | None = None
    group: str | None = None
    lengths: str | None = None
    scaling: Literal["standard", "none"] = "standard"

    length_reason = "a sequence is as long as it is"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.are_numbers:
            self.check_no_texts("as an NPZ archive holds numbers")
        else:
            self.check_texts()
            require(self.lengths is None, "lengths", "null, as texts have their own", self.lengths)
            scaled = self.kind == "value" or self.scaling == "standard"
            require(scaled, "scaling", "'standard', or nothing, as there are no numbers", self.scaling)
        require(self.inputs != self.targets, "targets", "another column than that of the inputs", self.targets)

    @property
    def are_numbers(self) -> bool:
        """Whether the sequences are numbers of an NPZ archive."""
        return str(self.train_file if self.given else self.data_file).lower().endswith(".npz")

    @property
    def natural_length(self) -> int | None:
        """The most timesteps that a sequence may have."""
        if not self.are_numbers:
            return self.max_length
        return max(len(example.read) for some in self.division.parts.values() for example in some)

    what_is_divided = "sequences"

    @cached_property
    def division(self) -> Division:
        """The sequences of each split, of which training has every class.

        Raises:
            DatasetError: If a file is damaged, or there are too few sequences, or not two classes.
        """
        if self.kind == "class":
            where = f"{self.whole_path}, column {self.targets!r}"
            check = partial(check_classes, where=where, hint="; kind: value is for numbers")
            parts = self.divide(self.read, lambda one: one.group, lambda one: one.answer, check)
        else:
            parts = self.divide(self.read, lambda one: one.group)
        parts = self.kept(parts, "sequences", ["train"])
        vocabulary = None if self.are_numbers else vocabulary_of(self, parts)
        if self.group is not None:
            read_of = (lambda one: one.read.tobytes()) if self.are_numbers else (lambda one: one.read)
            parts = self.unlike_earlier(parts, read_of, vocabulary)
        elif vocabulary is not None:
            parts = self.apart(parts, lambda one: one.read, vocabulary)
        parts = self.kept(parts, "sequences", SPLITS[1:])
        if self.kind == "class":
            check_answers(parts, lambda example: [example.answer], "class", self.max_train)
        return Division(parts, vocabulary)

    def read(self, paths: Sequence[Path]) -> list[Labelling[Any]]:
        """Return the sequences of a file, in order.

        Raises:
            DatasetError: If the file cannot be read, a text is too long, or a label or a number is missing.
        """
        names = (self.inputs, self.targets, self.group, self.lengths)
        table = read_table(paths[0], [name for name in names if name is not None])
        rows = range(len(table))
        answers: Sequence[Any] = table.texts(self.targets, name="label")
        if self.kind == "value":
            answers = numbers_of(table, self.targets).tolist()
        for row in rows if self.kind == "class" else ():
            if answers[row] in {UNKNOWN, UNKNOWN_CHARACTER}:
                got = f"a class cannot be called {answers[row]!r}, which is never a right answer"
                raise DatasetError(f"{table.where(row, self.targets)}: {got}; name it otherwise")
        inputs: Sequence[Any] = self._numbers(table) if self.are_numbers else self._texts(table)
        groups: Sequence[Any] = [one.tobytes() for one in inputs] if self.are_numbers else inputs
        if self.group is not None:
            groups = table.texts(self.group, name="name of a group")
        name = f"column {self.inputs!r}"
        kept = [row for row in rows if self.are_numbers or self.fits(inputs[row], table.where(row), name)]
        self.note_longer(table.path, "text", len(kept), len(table))
        return [Labelling(inputs[row], answers[row], groups[row], table.where(row)) for row in kept]

    def _texts(self, table: Table) -> list[tuple[str, ...]]:
        return [self.tokens(text) for text in table.texts(self.inputs)]

    def _numbers(self, table: Table) -> list[np.ndarray]:
        """Return the timesteps of each row that are there, (t, D) float64.

        Raises:
            DatasetError: If one of them is missing, or the array has another shape.
        """
        numbers = table.numbers(self.inputs)
        if numbers.ndim not in {2, 3}:
            got = f"shape {numbers.shape}"
            raise DatasetError(f"{table.path}, array {self.inputs!r}: expected (N, T) or (N, T, D), got {got}")
        if 0 in numbers.shape:
            raise DatasetError(f"{table.path}, array {self.inputs!r}: expected numbers, got shape {numbers.shape}")
        numbers = numbers.reshape(*numbers.shape[:2], -1)
        lengths = np.full(len(numbers), numbers.shape[1])
        if self.lengths is not None:
            given = numbers_of(table, self.lengths)
            wrong = np.flatnonzero((given < 1) | (given > numbers.shape[1]) | (given != np.floor(given)))
            if len(wrong):
                expected = f"a whole number from 1 to {numbers.shape[1]}, the timesteps of {self.inputs!r}"
                raise DatasetError(
                    f"{table.where(wrong[0], self.lengths)}: expected {expected}, got {given[wrong[0]]:g}"
                )
            lengths = given.astype(np.int64)
        rows = [row[:length] for row, length in zip(numbers, lengths, strict=True)]
        for i, row in enumerate(rows):
            if np.isnan(row).any():
                at = int(np.argwhere(np.isnan(row))[0, 0])
                raise DatasetError(f"{table.where(i, self.inputs)}: timestep {at + 1} of {len(row)} is missing (NaN)")
        return rows

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all sequences; `sizes` are of generated sequences and change nothing here."""
        read, more = self._read_numbers(length) if self.are_numbers else encode_texts(self, self.division)
        parts = self.division.parts
        if self.kind == "class":
            targets, more["target_tokens"] = class_targets(parts)
            baseline = unigram_entropy(targets["train"]), "class frequencies"
        else:
            answers = {split: np.array([example.answer for example in parts[split]]) for split in SPLITS}
            minus, by = self._scale_of("the labels", answers["train"])
            targets = {split: ((some - minus) / by)[:, None] for split, some in answers.items()}
            mean = targets["train"].mean()
            baseline = float(np.mean((targets["test"] - mean) ** 2)), "training mean"
            targets = {split: some.astype(np.float32) for split, some in targets.items()}
            self.scales[self.targets] = {"minus": minus, "divided_by": by}
        splits = {split: Split(read[split], targets[split]) for split in SPLITS}
        size = more.pop("input_size")
        task = make_task(
            length,
            inputs=("real" if self.are_numbers else "token", size),
            targets=(self.kind, "last", len(more.get("target_tokens", "1"))),
            baseline=baseline,
            **more,
        )
        return task, splits

    def _read_numbers(self, length: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the sequences of each split, at the end of T timesteps, scaled, and whether timesteps are there.

        Raises:
            DatasetError: If files differ in the numbers of a timestep.
        """
        size = self.division.parts["train"][0].read.shape[1]
        train = np.concatenate([example.read for example in self.division.parts["train"]])
        scales = [self._scale_of(f"number {i + 1} of a timestep", train[:, i]) for i in range(size)]
        minus, by = (np.array(some) for some in zip(*scales, strict=True))
        self.scales[self.inputs] = {"minus": minus.tolist(), "divided_by": by.tolist()}
        differ = len({len(example.read) for some in self.division.parts.values() for example in some}) > 1
        arrays = {}
        for split, some in self.division.parts.items():
            arrays[split] = np.zeros((len(some), length, size + differ), dtype=np.float32)
            for row, example in zip(arrays[split], some, strict=True):
                if example.read.shape[1] != size:
                    got = f"{example.read.shape[1]}, those of training have {size}"
                    raise DatasetError(f"{example.where}: expected as many numbers a timestep in every file, got {got}")
                row[length - len(example.read) :, :size] = (example.read - minus) / by
                row[length - len(example.read) :, size:] = 1
        if differ:
            self.notes.append(f"shorter sequences stand behind zeros; input {size + 1} is 1 where a timestep is there")
        return arrays, {"input_size": size + differ}

    def _scale_of(self, what: str, train: np.ndarray) -> tuple[float, float]:
        return scale_of(train, self.scaling, f"{self.whole_path}: {what}", "the whole training split")

    @cached_property
    def scales(self) -> dict[str, Any]:
        """What is taken from numbers, and what they are divided by, once the dataset is generated."""
        return {}

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file, and how numbers are scaled."""
        return super().source() | ({"scaling": self.scales} if self.scales else {})

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a text, or numbers, above its label."""
        if self.are_numbers:
            return super().draw_one(dataset, one)
        read = (" " if self.unit == "word" else "").join(
            (dataset.input_tokens or ())[i] for i in one.inputs if i != PAD
        )
        answer = dataset.target_tokens[int(one.targets)] if dataset.target_tokens else f"{float(one.targets[0]):.2f}"
        return f"{read}\ntarget {answer}"


@dataclass(frozen=True, kw_only=True)
class Tagged(ShortTexts):
    """Sentences of words, each with a tag, a line a word and an empty line behind each sentence, as CoNLL has them.

    Columns have white space between, or tabs where a line has one. A sentence of `-DOCSTART-` alone is left out, and
    counted.

    Attributes:
        word_column: Where the word stands, from 1.
        tag_column: Where its tag stands; null: in the last column.
        comments: Whether lines that begin with # are left out, as in CoNLL-U, and, where the first column numbers the
            words, those of ranges and empty nodes (4-5 and 8.1), which are counted.
    """

    word_column: int = 1
    tag_column: int | None = None
    comments: bool = False

    what_is_divided = "sentences"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_texts()
        require(self.unit == "word", "unit", "word", self.unit)
        for key in ("word_column", "tag_column"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, "a column, from 1", value)
        require(self.word_column != self.tag_column, "tag_column", "another column than the word's", self.tag_column)

    @cached_property
    def division(self) -> Division:
        """The sentences of each split, of which training has every tag.

        Raises:
            DatasetError: If a file is damaged, or there are too few sentences, or not two tags.
        """
        parts = self.divide(self.read, lambda one: one.read)
        tags = {tag for some in parts.values() for one in some for tag in one.answer}
        if len(tags) < 2:  # noqa: PLR2004 - nothing to tell apart
            raise DatasetError(
                f"{self.whole_path}: expected at least two tags, got {min(tags)!r} alone; see tag_column"
            )
        parts = self.kept(parts, "sentences", ["train"])
        vocabulary = vocabulary_of(self, parts)
        parts = self.kept(self.apart(parts, lambda one: one.read, vocabulary), "sentences", SPLITS[1:])
        check_answers(parts, lambda example: list(example.answer), "tag", self.max_train)
        return Division(parts, vocabulary)

    def read(self, paths: Sequence[Path]) -> list[Labelling[tuple[str, ...]]]:
        """Return the sentences of a file, in order.

        Raises:
            DatasetError: If the file cannot be read, its lines are ragged, or a sentence is too long.
        """
        (path,) = paths
        sentences: list[Labelling[tuple[str, ...]]] = []
        words: list[str] = []
        tags: list[str] = []
        first, num_columns, num_long, num_starts, num_ranges, marked = 1, 0, 0, 0, 0, False

        def end(line: int) -> None:
            nonlocal first, num_long, num_starts
            where = f"{path}, line {first}"
            if words == [DOCUMENT_START]:
                num_starts += 1
            elif words and self.fits(read := self.tokens(" ".join(words)), where, "the sentence, up to an empty line,"):
                sentences.append(Labelling(read, tuple(tags), read, where))
            else:
                num_long += bool(words)
            words.clear()
            tags.clear()
            first = line + 1

        line = 0
        for line, text in read_lines(path):
            if not text.strip():
                end(line)
                continue
            if self.comments and text.startswith("#"):
                first = first if words else line + 1
                continue
            fields = text.rstrip("\n").split("\t") if "\t" in text else text.split()
            marked = marked or text.startswith("#")
            num_columns = num_columns or len(fields)
            if len(fields) != num_columns:
                hint = "; comments: true leaves lines out that begin with #" if marked else ""
                got = f"{len(fields)}: {text.strip()[:60]!r}{hint}"
                raise DatasetError(
                    f"{path}, line {line}: expected {num_columns} columns as in the first line, got {got}"
                )
            tag_column = self.tag_column or num_columns
            for key, column in (("word_column", self.word_column), ("tag_column", tag_column)):
                if column > num_columns:
                    raise DatasetError(f"{path}, line {line}: expected a column {column} ({key}), got {num_columns}")
            if tag_column == self.word_column:
                got = f"one column: {text.strip()[:60]!r}"
                raise DatasetError(f"{path}, line {line}: expected a word and a tag, got {got}")
            if self.comments and self.word_column > 1 and re.fullmatch(r"\d+[-.]\d+", fields[0]):
                num_ranges += 1
                continue
            word, tag = fields[self.word_column - 1].strip(), fields[tag_column - 1].strip()
            if not word or not tag or len(word.split()) > 1:
                got = f"{word!r} and {tag!r}"
                raise DatasetError(f"{path}, line {line}: expected a word without white space and a tag, got {got}")
            if tag in {*SPECIAL_TOKENS, UNKNOWN, UNKNOWN_CHARACTER}:
                raise DatasetError(f"{path}, line {line}: a tag cannot be called {tag!r}; name it otherwise")
            words.append(word)
            tags.append(tag)
        end(line)
        for num, why in (
            (num_long, f"longer than max_length {self.max_length}"),
            (num_starts, f"{DOCUMENT_START} alone"),
        ):
            self.notes.extend([f"{path.name}: {num} sentences left out, {why}"] if num else [])
        if num_ranges:
            self.notes.append(f"{path.name}: {num_ranges} lines left out, ranges of words or empty nodes")
        if len(sentences) == 1 and not self.given:
            raise DatasetError(f"{path}: expected an empty line behind each sentence, got a single sentence")
        if not sentences:
            expected = f"at least one sentence of at most {self.max_length} words, with an empty line behind each"
            raise DatasetError(f"{path}: expected {expected}, got none")
        return sentences

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return all sentences, filled up to the longest; `sizes` change nothing here."""
        read, more = encode_texts(self, self.division)
        tags = (SPECIAL_TOKENS[PAD], *sorted({tag for one in self.division.parts["train"] for tag in one.answer}))
        ids = {tag: i for i, tag in enumerate(tags)}
        splits = {}
        for split, inputs in read.items():
            rows = [[ids[tag] for tag in one.answer] for one in self.division.parts[split]]
            splits[split] = Split(inputs, pad(rows, inputs.shape[1], len(tags)))
        train = splits["train"].targets
        task = make_task(
            length,
            inputs=("token", more.pop("input_size")),
            targets=("class", "every", len(tags)),
            baseline=(unigram_entropy(train[train != PAD]), "unigram"),
            target_tokens=tags,
            **more,
        )
        return task, splits

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return a sentence with its tags underneath."""
        rows = {}
        for name, ids, texts in (
            ("word", one.inputs, dataset.input_tokens),
            ("tag", one.targets, dataset.target_tokens),
        ):
            rows[name] = [(texts or ())[i] for i in ids if i != PAD]
        return draw_rows(rows)


def vocabulary_of(texts: ShortTexts, parts: dict[str, list[Labelling[Any]]]) -> Vocabulary:
    """Return the vocabulary of the training texts."""
    return texts.vocabulary(f"{texts.whole_path}: texts of the training split", (one.read for one in parts["train"]))


def encode_texts(texts: ShortTexts, division: Division) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return texts of each split as ids, filled up to the longest, (N, T), and what a task says of them."""
    parts, vocabulary = division
    assert vocabulary is not None  # noqa: S101 - numbers are not encoded
    longest = max(len(one.read) for some in parts.values() for one in some)
    arrays = {
        split: pad([texts.encode(one.read, vocabulary, split, one.where) for one in some], longest, len(vocabulary))
        for split, some in parts.items()
    }
    return arrays, {"padded": True, "input_tokens": vocabulary.tokens, "input_size": len(vocabulary)}


def check_classes(examples: Sequence[Labelling[Any]], where: str, hint: str = "") -> None:
    """Check that there are classes to learn, before anything is divided.

    Raises:
        DatasetError: If there are not two, or hardly any occurs twice; it begins with `where`.
    """
    counts = Counter(example.answer for example in examples)
    if len(counts) < 2:  # noqa: PLR2004 - nothing to tell apart
        raise DatasetError(f"{where}: expected at least two classes, got {next(iter(counts))!r} alone")
    if len(counts) > max(2, len(examples) / 2):
        got = f"{len(counts)} different ones of {len(examples)}"
        raise DatasetError(f"{where}: expected classes that repeat, got {got}{hint}")


def check_answers(
    parts: dict[str, list[Labelling[Any]]], answers_of: Any, what: str, max_train: int | None = None
) -> None:
    """Check that training has every class, or tag, that validation and test have, after at most `max_train` are kept.

    Raises:
        DatasetError: If one is missing, or there are more than ids.
    """
    trained = {answer for example in parts["train"] for answer in answers_of(example)}
    for split in SPLITS[1:]:
        for example in parts[split]:
            for answer in answers_of(example):
                if answer not in trained:
                    got = f"the {what} {answer!r}, which no training sequence has"
                    remedy = "leave it out, or give more of it" + (
                        f", or raise max_train {max_train}" if max_train else ""
                    )
                    raise DatasetError(f"{example.where}: in the {split} split, {got}; {remedy}")
    if len(trained) >= MAX_TOKENS:
        where = next(iter(parts["train"])).where
        plural = "classes" if what == "class" else f"{what}s"
        raise DatasetError(f"{where}: expected fewer than {MAX_TOKENS} different {plural}, got {len(trained)}")


def numbers_of(table: Table, column: str) -> np.ndarray:
    """Return a column of numbers, none of which is missing.

    Raises:
        DatasetError: If one is missing, or there are more axes.
    """
    numbers = table.numbers(column)
    if numbers.ndim != 1:
        raise DatasetError(f"{table.path}, column {column!r}: expected 1 axis, got shape {numbers.shape}")
    if np.isnan(numbers).any():
        raise DatasetError(f"{table.where(int(np.argmax(np.isnan(numbers))), column)}: a number is missing")
    return numbers


def class_targets(parts: dict[str, list[Labelling[Any]]]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the class of every sequence of each split, (N,), and the names of the classes, those of training."""
    names = tuple(in_order({one.answer for one in parts["train"]}))
    ids, dtype = {name: i for i, name in enumerate(names)}, dtype_of(len(names))
    return {split: np.array([ids[one.answer] for one in some], dtype=dtype) for split, some in parts.items()}, names


def in_order(names: set[str]) -> list[str]:
    """Return names in alphabetical order, or by size where all of them are numbers; 01 comes before 1."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return sorted(names)
    if any(map(math.isnan, numbers.values())):
        return sorted(names)
    return sorted(names, key=lambda name: (numbers[name], name))
