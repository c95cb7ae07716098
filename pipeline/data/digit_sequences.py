"""Sequences of images: handwritten digits that move, and digits to be matched with each other.

Source of the images: digits.py. Sequences of a split show images of that split only.
Shapes: N sequences, T images of a sequence, D pixels of an image, M images of a split.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, make_task
from pipeline.data.digits import NUM_PIXELS, SIDE, ShowsDigits, draw_images
from pipeline.data.generator import AtLengths, Shares, require_between
from pipeline.data.vocabulary import unigram_entropy

NUM_CLASSES = 10
DIRECTIONS: tuple[str, ...] = ("up-left", "up-right", "down-left", "down-right")
DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class MovingDigits(AtLengths, ShowsDigits):
    """Moving digits: a handwritten digit crosses a small frame in a straight line and bounces off its borders.

        inputs   T frames of `frame_side` x `frame_side` pixels; from one to the next the 8 x 8 box of the digit moves
                 by one pixel up or down and by one left or right
        targets  reconstruct  the frames themselves, to be written once all are read; baseline: the mean training frame
                 frame        at every frame, in which of four diagonal directions the box moves on from it; baseline:
                              away from a border that it touches, any direction alike elsewhere
                 sequence     at the last frame, which digit it is; baseline: chance, ln 10 nats

    Along each axis a phase in 0..2m-1 goes up by one a frame, m = frame_side - 8, and the box is m - |m - phase| pixels
    from the border: every place of the way there and back is equally likely at every frame. One frame does not tell
    where its digit moves, two do; so a network that reads forwards alone has to guess at the first frame, one that
    reads both ways need not.

    Source: after Srivastava, Mansimov & Salakhutdinov 2015, with one digit, smaller frames and whole pixels.
    """

    task: Literal["reconstruct", "frame", "sequence"]
    frame_side: int
    shares: Shares

    shortest_length, length_reason = 2, "a digit has to move"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.frame_side > SIDE, "frame_side", f"more than the {SIDE} pixels of a digit", self.frame_side)

    def sample(self, rng: np.random.Generator, num: int, length: int, images: np.ndarray, digits: np.ndarray) -> Split:
        """Return frames (N, T, D) float32 in [0, 1]; targets are the frames, directions (N, T) or digits (N,) uint8."""
        chosen = rng.integers(0, len(images), num)
        farthest = self.frame_side - SIDE
        starts = rng.integers(0, 2 * farthest, (2, num, 1))
        phases = (starts + np.arange(length)) % (2 * farthest)
        tops, lefts = farthest - np.abs(farthest - phases)
        y, x = np.ogrid[:SIDE, :SIDE]
        frames = np.zeros((num, length, self.frame_side, self.frame_side), dtype=np.float32)
        which, when = np.ogrid[:num, :length]
        rows, columns = tops[..., None, None] + y, lefts[..., None, None] + x
        frames[which[..., None, None], when[..., None, None], rows, columns] = images[chosen, None]
        inputs = frames.reshape(num, length, -1)
        if self.task == "reconstruct":
            return Split(inputs, inputs)
        down, right = (phases < farthest).astype(np.uint8)
        return Split(inputs, 2 * down + right if self.task == "frame" else digits[chosen])

    def task_of(self, length: int, train: Split) -> Task:
        """Return what is asked about sequences of `length` frames."""
        D, shape = self.frame_side**2, (self.frame_side, self.frame_side)
        asking = partial(make_task, length, inputs=("real", D), frame_shape=shape)
        if self.task == "reconstruct":
            return asking(targets=("value", "sequence", D), baseline=(mean_frame_loss(train.inputs), "mean frame"))
        if self.task == "sequence":
            chance = math.log(NUM_CLASSES)
            return asking(targets=("class", "last", 10), baseline=(chance, "chance"), target_tokens=DIGITS)
        guessing = memoryless_loss(self.frame_side)
        return asking(targets=("class", "every", 4), baseline=(guessing, "memoryless"), target_tokens=DIRECTIONS)

    def draw(self, dataset: Dataset) -> str:
        """Return the frames of one sequence, each below its target."""
        train = dataset.splits["train"]
        frames = train.inputs[0].reshape(-1, self.frame_side, self.frame_side)
        labels = [f"frame {t + 1}" for t in range(len(frames))]
        if self.task == "frame":
            labels = [f"{label}: {DIRECTIONS[target]}" for label, target in zip(labels, train.targets[0], strict=True)]
        if self.task == "sequence":
            labels[-1] += f": {DIGITS[train.targets[0]]}"
        return draw_images(frames, labels)


@dataclass(frozen=True, kw_only=True)
class MatchingDigits(AtLengths, ShowsDigits):
    """Matching digits: for each of several handwritten digits, how many of the others are the same digit.

        inputs   T images of 8 x 8 pixels, no image twice, of at most `num_digits` different digits
        targets  of each image, the number of other images that show its digit, 0..T-1
        baseline the unigram entropy of the training targets, in nats per image

    The order of the images says nothing. Each has to be compared with all the others, which a self-attention does at
    once: the alignment tells, for each image, the others of its digit.

    Source: made for this project, after the relational tasks of Santoro et al. 2017.
    """

    num_digits: int
    shares: Shares

    shortest_length, length_reason = 2, "no image is shown twice, and there are few of a digit"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(1, NUM_CLASSES, "num_digits", self.num_digits)

    @property
    def longest_length(self) -> int:
        """As many as there are images of any `num_digits` digits in every split."""
        parts = self.images_by_split().values()
        return self.num_digits * min(int(np.bincount(digits, minlength=NUM_CLASSES).min()) for _, digits in parts)

    def task_of(self, length: int, train: Split) -> Task:
        """Return the task of counting, for each of `length` images, the others of its digit."""
        return make_task(
            length,
            inputs=("real", NUM_PIXELS),
            targets=("class", "every", length),
            baseline=(unigram_entropy(train.targets), "unigram"),
            target_tokens=tuple(map(str, range(length))),
            frame_shape=(SIDE, SIDE),
        )

    def sample(self, rng: np.random.Generator, num: int, length: int, images: np.ndarray, digits: np.ndarray) -> Split:
        """Return images (N, T, 64) float32 in [0, 1], targets (N, T) uint8 in 0..T-1, alignment (N, T, T) Boolean."""
        allowed = rng.random((num, NUM_CLASSES)).argsort(axis=1) < self.num_digits
        keys = rng.random((num, len(images)), dtype=np.float32) + ~allowed[:, digits]
        lowest = np.argpartition(keys, length - 1, axis=1)[:, :length]
        chosen = rng.permuted(lowest, axis=1)
        shown = digits[chosen]
        matches = (shown[:, :, None] == shown[:, None, :]) & ~np.eye(length, dtype=bool)
        inputs = images[chosen].reshape(num, length, NUM_PIXELS)
        return Split(inputs, matches.sum(axis=2).astype(np.uint8), matches)

    def draw(self, dataset: Dataset) -> str:
        """Return the images of one sequence, each below its target."""
        train = dataset.splits["train"]
        return draw_images(train.inputs[0].reshape(-1, SIDE, SIDE), [f"target {target}" for target in train.targets[0]])


def mean_frame_loss(frames: np.ndarray) -> float:
    """Return the mean squared error, per pixel, of answering every one of these frames, (N, T, D), with their mean."""
    mean = frames.mean(axis=(0, 1), dtype=np.float64)
    return float(np.mean(np.square(frames), dtype=np.float64) - np.mean(mean**2))


def memoryless_loss(frame_side: int) -> float:
    """Return the loss, in nats per frame, of the best answer to the present place of the box alone.

    Along each axis the box touches a border, which it must leave, in 2 of 2m phases.
    """
    return 2 * (1 - 1 / (frame_side - SIDE)) * math.log(2)
