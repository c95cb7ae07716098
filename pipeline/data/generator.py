"""What every dataset shares: the ritual round the function that makes its sequences, and how it is found.

A dataset is declared by a subclass of `Generator`, a frozen dataclass whose fields are the keys of
configs/datasets/<name>.yaml. The class is found by its file, any module of this folder, and named after itself: the
file says `generator: copy_memory` for `CopyMemory`. What is drawn anew for every split and length is a `Sampled`; it
declares its task and draws its sequences, and the rest is here.

Shapes: N sequences, T timesteps.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import Checked, build, read_yaml, require
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, assemble
from pipeline.data.preview import shared_inputs
from pipeline.errors import ConfigError, DatasetError, unknown_name

PAGE_WIDTH = 110
SHARES_KEY = (64, 0)
"""The stream that divides a whole by shares."""


@dataclass(frozen=True, kw_only=True)
class Generator(Checked, ABC):
    """The description of a dataset, and how it is made.

    A subclass says which lengths are possible, by `natural_length` or by a shortest and a longest one, and why.

    Attributes:
        length_reason: Why lengths are limited, with fields in braces: "a copy comes {self.lag} timesteps later".
        num_drawn: How many sequences a preview shows.
        leaks_of: What of validation and test is looked for in training.
        folder: Where relative paths begin: the project's folder, for a generator that is read from its file.
    """

    folder: ClassVar[Path] = Path()
    length_reason: ClassVar[str]
    num_drawn: ClassVar[int] = 3
    leaks_of: ClassVar[str] = "sequences"

    def __post_init__(self) -> None:  # noqa: B027 - most generators add checks, some have none
        """Check the fields."""

    @property
    def natural_length(self) -> int | None:
        """The length that `null` stands for, where the data have only one."""
        return None

    @property
    def shortest_length(self) -> int:
        """The least possible length."""
        return 1 if self.natural_length is None else self.natural_length

    @property
    def longest_length(self) -> int | None:
        """The largest possible length; None where there is no limit."""
        return self.natural_length

    @property
    def listed_lengths(self) -> tuple[int, ...]:
        """Lengths that are prepared even if no study asks for them."""
        return () if self.natural_length is None else (self.natural_length,)

    @classmethod
    def key(cls) -> str:
        """Return its `generator` in a dataset's file: the name of the class in small letters, `copy_memory`."""
        return re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower()

    def check_length(self, length: int, name: str | None = None) -> None:
        """Refuse a length that cannot be made, of the dataset of that name where it is known.

        Raises:
            DatasetError: If the length is impossible; the message says which are possible, and why.
        """
        shortest, longest = self.shortest_length, self.longest_length
        if length >= shortest and (longest is None or length <= longest):
            return
        possible = f"at least {shortest}" if longest is None else f"from {shortest} to {longest}"
        if self.natural_length is not None:
            possible = f"write null (or {self.natural_length})"
        impossible = f"dataset {name or self.key()!r}: length {length} is impossible"
        raise DatasetError(f"{impossible}; {self.length_reason.format(self=self)}: {possible}")

    def lengths_to_make(self, name: str, asked: Sequence[int]) -> tuple[int, ...]:
        """Return, sorted, the lengths that studies ask for and those that the dataset's own file lists.

        Raises:
            DatasetError: If there is none, or one is impossible.
        """
        lengths = tuple(sorted({*asked, *self.listed_lengths}))
        if not lengths:
            raise DatasetError(
                f"dataset {name!r}: no length to prepare; list one under `lengths` in its file or a study"
            )
        for length in lengths:
            self.check_length(length, name)
        return lengths

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return the dataset at one length, named after the generator.

        Raises:
            DatasetError: If the length is impossible, or data are not at hand.
        """
        self.check_length(length)
        task, splits = self.make(length, sizes)
        return assemble(self.key(), task, splits)

    @abstractmethod
    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return what there is to do, and the sequences of every split; real data may have sizes of their own."""

    def draw(self, dataset: Dataset) -> str:
        """Return the first training sequences as text for a person."""
        train = dataset.splits["train"]
        num = min(self.num_drawn, len(train.inputs))
        ones = (Split(**{role: array[i] for role, array in train.arrays.items()}) for i in range(num))
        return "\n\n".join(self.draw_one(dataset, one) for one in ones)

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return one sequence as text: inputs above targets, or above a single target; `one` has no axis N."""
        input_texts, target_texts = self.texts(dataset)
        if dataset.target_at != "last":
            return draw_rows({"input": _cells(one.inputs, input_texts), "target": _cells(one.targets, target_texts)})
        (target,) = _cells(np.atleast_1d(one.targets), target_texts)
        return f"{draw_rows({'input': _cells(one.inputs, input_texts)})}\ntarget {target}"

    def texts(self, dataset: Dataset) -> tuple[Sequence[str] | None, Sequence[str] | None]:
        """Return the texts of inputs and of targets, by id, in a preview; None where numbers are shown."""
        return dataset.input_tokens, dataset.target_tokens

    def leaks(self, dataset: Dataset) -> dict[str, int]:
        """Return how many of `leaks_of`, inputs of validation and of test, are in training as well."""
        return shared_inputs(dataset.splits)

    def source(self) -> Mapping[str, Any]:
        """Return where data that are not generated come from: versions and checksums."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """Return, in words, what of a user's data is used otherwise than asked; for the manifest and the screen."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Drawn(Generator):
    """A dataset of which something is drawn: it has a seed."""

    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.seed >= 0, "seed", "an integer of at least 0", self.seed)

    def streams(self, length: int, sizes: Sizes) -> Iterator[tuple[str, np.random.Generator, int]]:
        """Yield every split with its own stream, and the number of sequences that the scale wants.

        The stream depends on seed, length and split alone, so a further length never changes another one's data.
        """
        for position, split in enumerate(SPLITS):
            yield split, stream(self.seed, length, position), num_sequences(sizes, split)


@dataclass(frozen=True, kw_only=True)
class AtLengths(Generator):
    """A dataset of several possible lengths; `lengths` are prepared even if no study asks for them."""

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len({*self.lengths}) == len(self.lengths), "lengths", "each length once", list(self.lengths))

    @property
    def listed_lengths(self) -> tuple[int, ...]:
        """The lengths of the dataset's file."""
        return self.lengths


@dataclass(frozen=True, kw_only=True)
class Sampled(AtLengths, Drawn):
    """A dataset whose sequences are drawn independently."""

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the task, and every split, each drawn from its own stream."""
        splits = {split: self.sample(rng, num, length) for split, rng, num in self.streams(length, sizes)}
        return self.task(length, splits["train"]), splits

    @abstractmethod
    def task(self, length: int, train: Split) -> Task:
        """Return what there is to do, and what the best memoryless answer costs, in training sequences if it varies."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, num: int, length: int) -> Split:
        """Return `num` sequences of `length`, drawn from the stream `rng`."""


@dataclass(frozen=True)
class Shares(Checked):
    """Which part of a whole goes into which split; they sum to 1."""

    train: float
    validation: float
    test: float

    def __post_init__(self) -> None:
        for split in SPLITS:
            require(0 < getattr(self, split) < 1, split, "a share between 0 and 1", getattr(self, split))
        total = self.train + self.validation + self.test
        require(math.isclose(total, 1, abs_tol=1e-9), "test", "train, validation and test to sum to 1", total)

    def cuts(self, num: int) -> np.ndarray:
        """Return where, of `num` members in a row, the validation and the test split begin."""
        return np.rint(np.array([self.train, self.train + self.validation]) * num).astype(int)

    def cuts_of_labels(self, nums: Sequence[int]) -> list[np.ndarray]:
        """Return the cuts of each of several labels with so many members, of which every split gets some, if possible.

        Each label is cut by itself. Only where all are so small that a split would get none, a label takes over what
        rounding owes the splits of those before it, less what training needs: a member of every label.
        """
        alone = [self.cuts(num) for num in nums]
        owed, carried = np.zeros(2), []
        for num in nums:
            wanted = owed + num * np.array([self.validation, self.test])
            validation = int(np.clip(np.rint(wanted[0]), 0, num - 1))
            test = int(np.clip(np.rint(wanted[1]), 0, num - 1 - validation))
            owed = wanted - (validation, test)
            carried.append(np.array([num - validation - test, num - test]))
        return carried if self._is_empty(nums, alone) and not self._is_empty(nums, carried) else alone

    @staticmethod
    def _is_empty(nums: Sequence[int], cuts: Sequence[np.ndarray]) -> bool:
        return not np.diff([0, *np.sum(cuts, axis=0), sum(nums)]).all()

    def require_two(self, num: int, members: str) -> None:
        """Check that of `num` members every split has two."""
        least = num * min(self.train, self.validation, self.test)
        require(least >= 2, "shares", f"at least 2 {members} in every split", least)


def split_indices(labels: np.ndarray, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Return which members of a whole belong to each split: shuffled indices, together 0..N-1, each once.

    Every one of the `labels`, (N,), is divided by the same shares; they are all alike where there is nothing to
    balance. What has the same labels, shares and seed is split alike.
    """
    rng = stream(seed, *SHARES_KEY)
    parts = []
    names, nums = np.unique(labels, return_counts=True)
    for label, cuts in zip(names, shares.cuts_of_labels(nums.tolist()), strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        parts.append(np.split(members, cuts))
    return {split: rng.permutation(np.concatenate(some)) for split, *some in zip(SPLITS, *parts, strict=True)}


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random numbers that belong to `seed` and `key`, independent of those of any other key."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def num_sequences(sizes: Sizes, split: str) -> int:
    """Return how many sequences the scale wants in `split`."""
    return {"train": sizes.num_train, "validation": sizes.num_validation, "test": sizes.num_test}[split]


def require_between(least: int, most: int, field: str, got: int, kind: str = "an integer", why: str = "") -> None:
    """Check a whole number that has two limits, and say what it is and why it has them."""
    require(least <= got <= most, field, f"{kind} from {least} to {most}{why}", got)


def import_source(module: str, package: str, what: str) -> Any:
    """Return the module of another package that a dataset's data come with.

    Raises:
        DatasetError: If the package is not installed; the message begins with `what`, "the images come".
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DatasetError(f"{what} with {package}, which is not installed; pip install {package}") from None


def generators() -> dict[str, type[Generator]]:
    """Return every generator by its key: the classes that the modules of this folder declare."""
    package = importlib.import_module("pipeline.data")
    found: dict[str, type[Generator]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for cls in vars(module).values():
            here = inspect.isclass(cls) and issubclass(cls, Generator) and cls.__module__ == module.__name__
            if here and not inspect.isabstract(cls):
                found[cls.key()] = cls
    return dict(sorted(found.items()))


def read_generator(config_path: Path) -> Generator:
    """Return the generator that configs/datasets/<name>.yaml describes.

    Raises:
        ConfigError: If the file is missing or wrong, or names no known generator.
    """
    where, known, config = "/".join(config_path.parts[-3:]), generators(), read_yaml(config_path)
    if not isinstance(config, Mapping) or "generator" not in config:
        expected = f"expected a mapping with a generator, one of {', '.join(known)}"
        raise ConfigError(f"{where}: {expected}; got {config!r}")
    key, fields = config["generator"], {field: value for field, value in config.items() if field != "generator"}
    if not isinstance(key, str) or key not in known:
        raise ConfigError(f"{where}.generator: {unknown_name('generator', key, known)}")
    generator: Generator = build(known[key], fields, where)
    object.__setattr__(
        generator, "folder", config_path.parent.parent.parent
    )  # no field: where the project lies is no data
    return generator


def draw_rows(rows: Mapping[str, Sequence[str]]) -> str:
    """Return labelled rows of cells, one column a timestep, right-aligned folded to the width of a page."""
    margin = max(map(len, rows))
    width = max(len(cell) for cells in rows.values() for cell in cells)
    num_timesteps, per_line = max(map(len, rows.values())), max(1, (PAGE_WIDTH - margin) // (width + 1))
    lines = []
    for start in range(0, num_timesteps, per_line):
        for label, cells in rows.items():
            shown = " ".join(f"{cell:>{width}}" for cell in cells[start : start + per_line])
            lines.append(f"{label:>{margin}}  {shown}".rstrip())
        lines.append("")
    return "\n".join(lines[:-1])


def _cells(values: np.ndarray, texts: Sequence[str] | None) -> list[str]:
    """Return a cell for every timestep: the text of an id, or one or several numbers."""
    if texts is not None:
        return [texts[i] for i in values]
    rows = values.reshape(len(values), -1).tolist()
    return [" ".join(f"{x:.2f}" if isinstance(x, float) else str(x) for x in row) for row in rows]
