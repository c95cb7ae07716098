"""Matching digits: for each of several handwritten digits, how many of the others are the same digit.

    inputs   T images of 8 x 8 pixels, no image twice, of at most `num_digits` different digits
    targets  of each image, the number of other images that show its digit, 0..T-1
    baseline the unigram entropy of the training targets, in nats per image

The order of the images says nothing. Each has to be compared with all the others, which a self-attention does at once:
the alignment tells, for each image, the others of its digit. Sequences of a split show images of that split only.

Source: made for this project, after the relational tasks of Santoro et al. 2017. Shapes: N sequences, T images of a
sequence, M images of a split.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, assemble
from pipeline.data.digit_images import draw_images, images_by_split, sample_digit_splits
from pipeline.data.digits import NUM_PIXELS, SIDE, Digits, Shares
from pipeline.data.generator import check_length, require_seed_and_lengths
from pipeline.data.stdlib_text import unigram_entropy

NUM_CLASSES = 10


@dataclass(frozen=True)
class MatchingDigits:
    """Images of `num_digits` different digits, each to be matched with the others of its digit."""

    generator: Literal["matching_digits"]
    seed: int
    lengths: tuple[int, ...]
    num_digits: int
    shares: Shares

    natural_length = None

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        fits = 1 <= self.num_digits <= NUM_CLASSES
        require(fits, "num_digits", f"an integer from 1 to {NUM_CLASSES}", self.num_digits)

    @property
    def possible_lengths(self) -> str:
        """Which lengths are possible, in words."""
        return f"no image is shown twice, and there are few of a digit: from 2 to {self._most()}"

    def allows(self, length: int) -> bool:
        """Return whether there are as many images of any `num_digits` digits in every split."""
        return 2 <= length <= self._most()

    def _most(self) -> int:
        parts = images_by_split(self.shares, self.seed).values()
        return self.num_digits * min(int(np.bincount(digits, minlength=NUM_CLASSES).min()) for _, digits in parts)

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return sequences of `length` images."""
        check_length(self.generator, self, length)
        draw = partial(sample, num_timesteps=length, num_digits=self.num_digits)
        splits = sample_digit_splits(self.seed, length, sizes, self.shares, draw)
        task = Task(
            length,
            input_kind="real",
            input_size=NUM_PIXELS,
            target_kind="class",
            target_at="every",
            output_size=length,
            baseline_loss=unigram_entropy(splits["train"].targets),
            baseline_name="unigram",
            target_tokens=tuple(map(str, range(length))),
            frame_shape=(SIDE, SIDE),
        )
        return assemble(self.generator, task, splits)

    def draw(self, dataset: Dataset) -> str:
        """Return the images of one sequence, each below its target."""
        train = dataset.splits["train"]
        return draw_images(train.inputs[0].reshape(-1, SIDE, SIDE), [f"target {target}" for target in train.targets[0]])

    def source(self) -> dict[str, Any]:
        """Return which images they are."""
        return Digits("digits", self.seed, permuted=False, shares=self.shares).source()


def sample(
    rng: np.random.Generator,
    num: int,
    images: np.ndarray,
    digits: np.ndarray,
    *,
    num_timesteps: int,
    num_digits: int,
) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        images: What to draw from, (M, 8, 8).
        digits: What they show, (M,).
        num_timesteps: T, at most as many as there are images of `num_digits` digits.
        num_digits: How many different digits a sequence may show.

    Returns:
        Images (N, T, 64) float32 in [0, 1], targets (N, T) uint8 in 0..T-1 and alignment (N, T, T) Boolean.
    """
    allowed = rng.random((num, NUM_CLASSES)).argsort(axis=1) < num_digits
    keys = rng.random((num, len(images)), dtype=np.float32) + ~allowed[:, digits]
    lowest = np.argpartition(keys, num_timesteps - 1, axis=1)[:, :num_timesteps]
    chosen = rng.permuted(lowest, axis=1)
    shown = digits[chosen]
    matches = (shown[:, :, None] == shown[:, None, :]) & ~np.eye(num_timesteps, dtype=bool)
    inputs = images[chosen].reshape(num, num_timesteps, NUM_PIXELS)
    return Split(inputs, matches.sum(axis=2).astype(np.uint8), matches)
