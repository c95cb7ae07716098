"""What every generator offers, and what all of them share: streams of random numbers, lengths, sizes.

A generator is a frozen dataclass, read from configs/datasets/<name>.yaml by its `generator` key, with a pure
function that makes the sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Dataset, Split
from pipeline.errors import DatasetError


class Generator(Protocol):
    """The description of a dataset, a frozen dataclass, and how it is made."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def generator(self) -> str:
        """Its key in the registry."""

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths that are prepared even if no study asks for them."""

    @property
    def natural_length(self) -> int | None:
        """The length that `null` stands for, where the data have only one."""

    @property
    def possible_lengths(self) -> str:
        """Which lengths are possible, in words that end an error message."""

    def allows(self, length: int) -> bool:
        """Return whether sequences of this length can be made."""

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return the dataset at one length, named after the generator."""

    def draw(self, dataset: Dataset) -> str:
        """Return a few training sequences as text for a person."""

    def source(self) -> Mapping[str, Any]:
        """Return where data that are not generated come from: versions and checksums."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random numbers that belong to `seed` and `key`, independent of those of any other key."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def sample_splits(
    seed: int, length: int, sizes: Sizes, sample: Callable[[np.random.Generator, int], Split]
) -> dict[str, Split]:
    """Return every split, each drawn by `sample(rng, num_sequences)` from its own stream.

    The stream depends on seed, length and split alone, so a further length never changes another one's data.
    """
    return {
        split: sample(stream(seed, length, position), num_sequences(sizes, split))
        for position, split in enumerate(SPLITS)
    }


def num_sequences(sizes: Sizes, split: str) -> int:
    """Return how many sequences the scale wants in `split`."""
    return {"train": sizes.num_train, "validation": sizes.num_validation, "test": sizes.num_test}[split]


def require_seed_and_lengths(seed: int, lengths: tuple[int, ...]) -> None:
    """Check the two fields that every generated dataset has."""
    require(seed >= 0, "seed", "an integer of at least 0", seed)
    require(len(set(lengths)) == len(lengths), "lengths", "each length once", list(lengths))


def check_length(name: str, generator: Generator, length: int) -> None:
    """Refuse a length that `generator` cannot make.

    Raises:
        DatasetError: If the length is impossible; the message says which are possible.
    """
    if not generator.allows(length):
        raise DatasetError(f"dataset {name!r}: length {length} is impossible; {generator.possible_lengths}")


def lengths_to_make(name: str, generator: Generator, asked: Sequence[int]) -> tuple[int, ...]:
    """Return, sorted, the lengths that studies ask for and those that the dataset's own file lists.

    Raises:
        DatasetError: If there is none, or one is impossible.
    """
    lengths = tuple(sorted({*asked, *generator.lengths}))
    if not lengths:
        raise DatasetError(f"dataset {name!r}: no length to prepare; list one under `lengths` in its file or a study")
    for length in lengths:
        check_length(name, generator, length)
    return lengths
