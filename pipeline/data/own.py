"""What datasets of a user's own files share: which files, how they are divided, what is kept, and how texts are read.

Either `data_file` is divided by `shares`, or `train_file`, `validation_file` and `test_file` are the splits as given.
Relative paths begin at the project's folder; DVC watches every file. Of validation and test at most `max_evaluated`
examples are kept, of training `max_train`, chosen at random: a network is evaluated on all of them again and again, so
they are part of what training costs. Whatever is left out is counted in the manifest. A mistake is named with file,
line and column.

Of texts, tokens are characters or words between white space. The vocabulary is that of the training split, of short
texts that of what `max_train` leaves of it: with `min_count` of 0 a token that it lacks is an error, for no network
could read it; else `<unk>` stands for every token seen less often than that in training. A text's own `<unk>` (or ▯) is
that token as well; the words `<pad>`, `<sos>` and `<eos>` are refused, since the network reads them as something else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from pipeline.config.strict import require
from pipeline.data.dataset import SPECIAL_TOKENS, SPLITS, UNKNOWN, UNKNOWN_CHARACTER
from pipeline.data.files import checksum
from pipeline.data.generator import Drawn, Shares, split_indices, stream
from pipeline.data.vocabulary import MAX_TOKENS, Vocabulary
from pipeline.errors import DatasetError

CAP_KEY = 65
"""The stream that chooses what is kept of a split."""
FILE_KEYS = {"train": "train_file", "validation": "validation_file", "test": "test_file"}
MAX_LENGTH = 100_000
"""Tokens of a text that is read as a whole: as many timesteps."""


class Example(Protocol):
    """Anything that is read from a place of a file."""

    @property
    def where(self) -> str:
        """«file, line 7»."""


One = TypeVar("One")
AnyExample = TypeVar("AnyExample", bound=Example)


@dataclass(frozen=True, kw_only=True)
class OwnData(Drawn):
    """A dataset of a user's own files. Its number of sequences does not depend on the scale.

    Attributes:
        seed: Of what is drawn: which split an example goes into, and what is kept of a split.
        data_file: The file (of pairs perhaps two, in a list) that is divided by `shares`; null where every split has
            its own.
        train_file: The training split as it is given.
        validation_file: The validation split as it is given.
        test_file: The test split as it is given.
        shares: Which part of `data_file` goes into which split.
        max_train: At most so many training examples; null: all.
        max_evaluated: At most so many examples of validation, and of test; null: all.
    """

    seed: int = 0
    data_file: Any = None
    train_file: Any = None
    validation_file: Any = None
    test_file: Any = None
    shares: Shares | None = None
    max_train: int | None = None
    max_evaluated: int | None = 2000

    num_files: ClassVar[int] = 1
    """Most files that make one whole."""
    wholes: ClassVar[tuple[str, ...]] = ("data_file",)
    """The keys of which one names the whole that is divided."""
    what_is_divided: ClassVar[str] = "examples"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("max_train", "max_evaluated"):
            most = getattr(self, key)
            if most is not None:
                require(most >= 1, key, "an integer of at least 1, or null", most)
        for key in ("data_file", *FILE_KEYS.values()):
            check_path(key, getattr(self, key), self.num_files)
        given = [key for key in FILE_KEYS.values() if getattr(self, key) is not None]
        whole = [key for key in self.wholes if getattr(self, key) is not None]
        expected = f"either {' or '.join(self.wholes)} alone, or train_file, validation_file and test_file"
        require(len(whole) + bool(given) == 1, "data_file", expected, self.data_file)
        for key in FILE_KEYS.values() if given else ():
            require(key in given, key, "a file, as the other splits have one", None)
        named = {str(getattr(self, key)): key for key in reversed(given)}
        for key in given:
            other = named[str(getattr(self, key))]
            require(key == other, key, f"another file than {other}, to test on what is not known", getattr(self, key))
        self.check_division(bool(given))

    def check_division(self, given: bool) -> None:
        """Check how the whole is divided; `given` says that every split has its own file."""
        expected = "null, as every split has its own file" if given else "train, validation and test, which sum to 1"
        require((self.shares is None) == given, "shares", expected, self.shares)

    @property
    def given(self) -> bool:
        """Whether the splits are given, a file for each."""
        return self.train_file is not None

    def paths(self, key: str) -> list[Path]:
        """Return the files that a key names."""
        value = getattr(self, key)
        return [self.folder / path for path in ([value] if isinstance(value, str) else value or ())]

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file, by its path as the configuration has it."""
        keys = ("data_file", *FILE_KEYS.values())
        return {"files": {str(self._named(path)): checksum(path) for key in keys for path in self.paths(key)}}

    def _named(self, path: Path) -> Path:
        return path.relative_to(self.folder) if path.is_relative_to(self.folder) else path

    def divide(
        self,
        read: Callable[[Sequence[Path]], list[AnyExample]],
        group_of: Callable[[AnyExample], Hashable],
        stratum_of: Callable[[AnyExample], Hashable] = lambda _: 0,
        check: Callable[[Sequence[AnyExample]], None] = lambda _: None,
    ) -> dict[str, list[AnyExample]]:
        """Return the examples of each split; of a group none is in two of them, and strata are divided alike.

        A group counts as the stratum that most of its examples have. Given splits stay as they are. All examples
        together are checked before they are divided.

        Raises:
            DatasetError: If there are too few groups for one in every split.
        """
        if self.given:
            given = {split: read(self.paths(key)) for split, key in FILE_KEYS.items()}
            check([example for some in given.values() for example in some])
            return given
        assert self.shares is not None  # noqa: S101 - see `check_division`
        groups: dict[Hashable, list[AnyExample]] = {}
        whole = read(self.paths(next(key for key in self.wholes if getattr(self, key) is not None)))
        check(whole)
        for example in whole:
            groups.setdefault(group_of(example), []).append(example)
        members = list(groups.values())
        most = [Counter(map(stratum_of, some)).most_common(1)[0][0] for some in members]
        numbers = {stratum: number for number, stratum in enumerate(dict.fromkeys(most))}
        strata = np.array([numbers[stratum] for stratum in most], dtype=np.int64)
        parts = split_indices(strata, self.shares, self.seed)
        for split, chosen in parts.items():
            if len(chosen) == 0:
                share = getattr(self.shares, split)
                got = f"{len(members)} different {self.what_is_divided}, too few for a share of {share}"
                raise DatasetError(f"{self.whole_path}: {got}; {split} needs at least one, so give more of them")
        return {split: [example for i in chosen for example in members[i]] for split, chosen in parts.items()}

    @property
    def whole_path(self) -> Path:
        """The file that is named where a message is about all of the data."""
        return next(path for key in (*self.wholes, "train_file") for path in self.paths(key))

    def kept(
        self, parts: Mapping[str, Sequence[One]], what: str, capped: Collection[str] = SPLITS
    ) -> dict[str, list[One]]:
        """Return at most `max_train` or `max_evaluated` members, which are `what`, of each split in `capped`, in order.

        Training is capped before there is a vocabulary, which has nothing that is not trained on.
        """
        return {
            split: [members[i] for i in self.choose(split, len(members), what)] if split in capped else [*members]
            for split, members in parts.items()
        }

    def choose(self, split: str, num: int, what: str) -> np.ndarray:
        """Return which of `num` members of a split are kept, in order, and note how many are not."""
        key = "max_train" if split == "train" else "max_evaluated"
        most = getattr(self, key)
        if most is None or num <= most:
            return np.arange(num)
        self.notes.append(f"{num - most} {split} {what} left out, beyond {key} {most}")
        return np.sort(stream(self.seed, CAP_KEY, SPLITS.index(split)).permutation(num)[:most])

    @cached_property
    def notes(self) -> list[str]:
        """What was done with the data so far, in words."""
        return []

    def remarks(self) -> tuple[str, ...]:
        """Return, once the dataset is generated, what of the files is left out or used otherwise."""
        return tuple(dict.fromkeys(self.notes))


@dataclass(frozen=True, kw_only=True)
class OwnTexts(OwnData):
    """A dataset of a user's own texts.

    Attributes:
        unit: What a token is; null where there are no texts.
        lower_case: Whether capitals count as small letters.
        min_count: Tokens that training has less often are `<unk>`; 0: one that training lacks is an error.
    """

    unit: Literal["character", "word"] | None = "word"
    lower_case: bool = False
    min_count: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_count >= 0, "min_count", "an integer of at least 0", self.min_count)


@dataclass(frozen=True, kw_only=True)
class ShortTexts(OwnTexts):
    """A dataset of texts that are each read as a whole.

    Attributes:
        max_length: Most tokens of a text, which has to be said; null where there are no texts.
        too_long: Whether a longer text is an error, or left out and counted.
    """

    max_length: int | None = None
    too_long: Literal["refuse", "leave_out"] = "refuse"

    length_reason = "texts are as long as they are, up to max_length"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length is not None:
            expected = f"an integer from 1 to {MAX_LENGTH}"
            require(1 <= self.max_length <= MAX_LENGTH, "max_length", expected, self.max_length)

    def check_no_texts(self, why: str) -> None:
        """Check that what is said of texts is not said where there are none, `why`."""
        for key in ("unit", "max_length"):
            require(getattr(self, key) is None, key, f"null, {why}", getattr(self, key))
        for key, default in (("min_count", 1), ("lower_case", False), ("too_long", "refuse")):
            require(getattr(self, key) == default, key, f"{default!r}, or nothing, {why}", getattr(self, key))

    def check_texts(self) -> None:
        """Check that it is said how texts are read."""
        require(self.unit is not None, "unit", "character or word", None)
        require(self.max_length is not None, "max_length", f"an integer from 1 to {MAX_LENGTH}", None)

    @property
    def natural_length(self) -> int | None:
        """The most tokens that a text may have."""
        return self.max_length

    def tokens(self, text: str) -> tuple[str, ...]:
        """Return the tokens of a text; what stands for unknown ones in it is `UNKNOWN`."""
        text = text.lower() if self.lower_case else text
        tokens = text.split() if self.unit == "word" else text.strip()
        return tuple(UNKNOWN if token == UNKNOWN_CHARACTER else token for token in tokens)

    def fits(self, tokens: Sequence[str], where: str, name: str) -> bool:
        """Check the tokens of one text, «the source», and return whether they are few enough to be kept.

        Raises:
            DatasetError: If there is none, one is reserved, or there are more than `max_length` and they are refused.
        """
        for token in {*SPECIAL_TOKENS} & {*tokens}:
            got = f"{name} has the word {token!r}, which the network reads as something else"
            raise DatasetError(f"{where}: {got}; write it otherwise, or leave it out")
        if not tokens:
            raise DatasetError(f"{where}: {name} is empty; expected at least one {self.unit}")
        if self.max_length is None or len(tokens) <= self.max_length:
            return True
        if self.too_long == "refuse":
            got = f"{name} has {len(tokens)} {self.unit}s, more than max_length {self.max_length}"
            raise DatasetError(f"{where}: {got}; raise it, or write too_long: leave_out")
        return False

    def note_longer(self, path: Path, what: str, num_kept: int, num: int) -> None:
        """Note how many of a file's texts, each a `what`, are left out.

        Raises:
            DatasetError: If all of them are.
        """
        if not num_kept:
            raise DatasetError(f"{path}: every {what} is longer than max_length {self.max_length}; raise it")
        if num_kept < num:
            left_out = f"{num - num_kept} of {num} {what}s left out, longer than max_length {self.max_length}"
            self.notes.append(f"{path.name}: {left_out}")

    def vocabulary(self, what: str, train: Iterable[Sequence[str]]) -> Vocabulary:
        """Return the vocabulary of training texts: `UNKNOWN` where there can be one, then their tokens.

        Raises:
            DatasetError: If there is no token but `UNKNOWN`, or there are more than ids; it begins with `what`.
        """
        counts: Counter[str] = Counter()
        for tokens in train:
            counts.update(tokens)
        return Vocabulary(frequent(what, counts, self.min_count, UNKNOWN))

    def known(self, tokens: tuple[str, ...], vocabulary: Vocabulary) -> tuple[str, ...]:
        """Return the tokens as the network reads them: with a `min_count`, `UNKNOWN` for those the vocabulary lacks."""
        return tuple(token if token in vocabulary else UNKNOWN for token in tokens) if self.min_count else tokens

    def apart(
        self,
        drawn: dict[str, list[AnyExample]],
        read_of: Callable[[AnyExample], tuple[str, ...]],
        vocabulary: Vocabulary,
    ) -> dict[str, list[AnyExample]]:
        """Return the examples of each split, those moved that read like one of an earlier split; given ones are left.

        Training takes no more of them than `max_train` allows.

        Raises:
            DatasetError: If nothing is left of a split.
        """
        if self.given:
            return drawn
        parts: dict[str, list[AnyExample]] = {split: [] for split in SPLITS}
        num_moved = 0
        for split, first, example in self._first_splits(drawn, lambda one: self.known(read_of(one), vocabulary)):
            parts[first].append(example)
            num_moved += first != split
        self._check_left(parts, vocabulary)
        if num_moved:
            why = f"as their {self.what_is_divided} read the same with {UNKNOWN} in them"
            self.notes.append(f"{num_moved} moved to an earlier split, {why}")
        if self.max_train and (beyond := parts["train"][self.max_train :]):
            parts["train"] = parts["train"][: self.max_train]
            self.notes.append(f"{len(beyond)} of those that moved left out, beyond max_train {self.max_train}")
        return parts

    def unlike_earlier(
        self, drawn: dict[str, list[AnyExample]], read_of: Callable[[AnyExample], Any], vocabulary: Vocabulary | None
    ) -> dict[str, list[AnyExample]]:
        """Return the examples of each split but those that read like one of an earlier split; given ones are left.

        For groups, which stay together: several may share a text, and all might come together through such.

        Raises:
            DatasetError: If nothing is left of a split.
        """
        if self.given:
            return drawn
        parts: dict[str, list[AnyExample]] = {split: [] for split in SPLITS}
        key_of = read_of if vocabulary is None else lambda one: self.known(read_of(one), vocabulary)
        for split, first, example in self._first_splits(drawn, key_of):
            parts[split] += [example] if first == split else []
        self._check_left(parts, vocabulary)
        for split, kept in parts.items():
            if num := len(drawn[split]) - len(kept):
                left_out = f"{num} {split} {self.what_is_divided} left out"
                self.notes.append(f"{left_out}, as they read like one of an earlier split")
        return parts

    def _first_splits(
        self, drawn: dict[str, list[AnyExample]], key_of: Callable[[AnyExample], Hashable]
    ) -> Iterator[tuple[str, str, AnyExample]]:
        """Yield the split of every example, the first split that has one that reads the same, and the example."""
        first_split: dict[Hashable, str] = {}
        for split in SPLITS:
            for example in drawn[split]:
                yield split, first_split.setdefault(key_of(example), split), example

    def _check_left(self, parts: Mapping[str, Sequence[One]], vocabulary: Vocabulary | None) -> None:
        """Check that putting examples apart has left some in every split; there may be no tokens.

        Raises:
            DatasetError: If nothing is left of a split.
        """
        for split, kept in parts.items():
            if not kept:
                got = f"all {self.what_is_divided} of the {split} split read like those of another split"
                if vocabulary is None:
                    raise DatasetError(f"{self.whole_path}: {got}; give more {self.what_is_divided}")
                rare = f"once tokens seen less often than min_count {self.min_count} are {UNKNOWN}"
                more = "raise max_train, " if self.max_train else ""
                remedy = f"{more}lower min_count, or give more {self.what_is_divided}"
                raise DatasetError(f"{self.whole_path}: {got} {rare}; {remedy}")

    def encode(self, tokens: tuple[str, ...], vocabulary: Vocabulary, split: str, where: str) -> list[int]:
        """Return the ids of a text of a split.

        Raises:
            DatasetError: If it has a token that no training text has, and no `min_count` makes it `UNKNOWN`.
        """
        known = self.known(tokens, vocabulary)
        for token in known:
            if token not in vocabulary:
                message = f"in the {split} split, with a token that the training split lacks: {token!r}"
                more = ", or raise max_train" if self.max_train else ""
                raise DatasetError(f"{where}: {message}; leave it out, or set min_count{more}")
        return vocabulary.encode(known)


def check_path(key: str, value: object, num_files: int = 1) -> None:
    """Check that a key names a file, or as many as `num_files`, or a folder, or nothing."""
    paths = list(value) if isinstance(value, list | tuple) else [value]
    fine = all(isinstance(path, str) and path.strip() for path in paths) and 1 <= len(paths) <= num_files
    expected = "the path of a file" + (f", or a list of {num_files}" if num_files > 1 else "")
    require(value is None or fine, key, expected, value)
    for path in filter(None, paths):
        here = "the path of a file on this machine; download it first, as it has an address"
        require("://" not in str(path), key, here, path)
        whole = "the path of a file, from the project's folder on or whole, without ~ and a byte 0"
        require(str(path)[0] != "~" and "\0" not in str(path), key, whole, path)


def scale_of(values: np.ndarray, scaling: str, what: str, where: str) -> tuple[float, float]:
    """Return what is taken from training numbers, (N,), and what they are divided by.

    Raises:
        DatasetError: If all of them are one; it begins with `what`, which is so in `where`.
    """
    if scaling == "none":
        return 0.0, 1.0
    if values.max() == values.min():
        got = f"{what} is {values[0]:g} in {where}, so there is no scale"
        raise DatasetError(f"{got}; leave it out, or write scaling: none")
    if scaling == "range":
        return float(values.min()), float(values.max() - values.min())
    mean = math.fsum(values) / len(values)  # exactly rounded: NumPy's sums have other last digits on other processors
    return mean, math.sqrt(math.fsum((values - mean) ** 2) / len(values))


def frequent(what: str, counts: Counter[str], min_count: int, unknown: str) -> list[str]:
    """Return the tokens that are told apart, in order: the unknown one first, if there can be one.

    Raises:
        DatasetError: If there is none besides, or more than ids.
    """
    own_unknown = counts.pop(unknown, 0)
    tokens = sorted(token for token, count in counts.items() if count >= min_count)
    if not tokens:
        expected = f"a token that occurs min_count {min_count} times" if min_count else "any other token"
        got = f"{unknown} alone; the most frequent one occurs {max(counts.values(), default=0)} times"
        remedy = f"; lower min_count, {min_count}, or give more text" if min_count > 1 else ""
        raise DatasetError(f"{what}: expected {expected}, got {got}{remedy}")
    if len(tokens) > MAX_TOKENS - len(SPECIAL_TOKENS) - 1:
        most = f"expected fewer than {MAX_TOKENS} different tokens"
        raise DatasetError(f"{what}: {most}, got {len(tokens)}; a larger min_count makes them fewer")
    return [*([unknown] if min_count or own_unknown else []), *tokens]
