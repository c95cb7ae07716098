"""Moving digits: a handwritten digit crosses a small frame in a straight line and bounces off its borders.

    inputs   T frames of `frame_side` x `frame_side` pixels; from one to the next the 8 x 8 box of the digit moves by
             one pixel up or down and by one left or right
    targets  reconstruct  the frames themselves, to be written once all are read; baseline: the mean training frame
             frame        at every frame, in which of four diagonal directions the box moves on from it; baseline:
                          away from a border that it touches, any direction alike elsewhere
             sequence     at the last frame, which digit it is; baseline: chance, ln 10 nats

Along each axis a phase in 0..2m-1 goes up by one a frame, m = frame_side - 8, and the box is m - |m - phase| pixels
from the border: every place of the way there and back is equally likely at every frame. One frame does not tell where
its digit moves, two do; so a network that reads forwards alone has to guess at the first frame, one that reads both
ways need not.

Source: after Srivastava, Mansimov & Salakhutdinov 2015, with one digit, smaller frames and whole pixels. Sequences of a
split show images of that split only. Shapes: N sequences, T frames, D = frame_side² pixels, M images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import Dataset, Split, Task, assemble
from pipeline.data.digit_images import draw_images, sample_digit_splits
from pipeline.data.digits import SIDE, Digits, Shares
from pipeline.data.generator import check_length, require_seed_and_lengths

Question = Literal["reconstruct", "frame", "sequence"]

DIRECTIONS: tuple[str, ...] = ("up-left", "up-right", "down-left", "down-right")
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class MovingDigits:
    """Digits that move in square frames, to be reconstructed or classified."""

    generator: Literal["moving_digits"]
    seed: int
    lengths: tuple[int, ...]
    task: Question
    frame_side: int
    shares: Shares

    natural_length = None
    possible_lengths = "a digit has to move: at least 2"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)
        expected = f"more than the {SIDE} pixels of a digit"
        require(self.frame_side > SIDE, "frame_side", expected, self.frame_side)

    def allows(self, length: int) -> bool:
        """Return whether there are two frames."""
        return length >= 2

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return sequences of `length` frames."""
        check_length(self.generator, self, length)
        draw = partial(sample, num_timesteps=length, frame_side=self.frame_side, task=self.task)
        splits = sample_digit_splits(self.seed, length, sizes, self.shares, draw)
        return assemble(self.generator, self._task(length, splits["train"].inputs), splits)

    def _task(self, length: int, frames: np.ndarray) -> Task:
        shape, D = (self.frame_side, self.frame_side), self.frame_side**2
        if self.task == "reconstruct":
            loss = mean_frame_loss(frames)
            return Task(length, "real", D, "value", "sequence", D, loss, "mean frame", frame_shape=shape)
        if self.task == "sequence":
            loss, names = math.log(len(DIGITS)), DIGITS
            return Task(length, "real", D, "class", "last", 10, loss, "chance", target_tokens=names, frame_shape=shape)
        loss, names = memoryless_loss(self.frame_side), DIRECTIONS
        return Task(length, "real", D, "class", "every", 4, loss, "memoryless", target_tokens=names, frame_shape=shape)

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

    def source(self) -> dict[str, Any]:
        """Return which images they are made of."""
        return Digits("digits", self.seed, permuted=False, shares=self.shares).source()


def sample(
    rng: np.random.Generator,
    num: int,
    images: np.ndarray,
    digits: np.ndarray,
    *,
    num_timesteps: int,
    frame_side: int,
    task: Question,
) -> Split:
    """Return `num` sequences.

    Args:
        rng: The stream to draw from.
        num: N, the number of sequences.
        images: What to draw from, (M, 8, 8).
        digits: What they show, (M,).
        num_timesteps: T.
        frame_side: Height and width of a frame, in pixels.
        task: What the targets are.

    Returns:
        Frames (N, T, D) float32 in [0, 1] with targets: the frames, directions (N, T) uint8, or digits (N,) uint8.
    """
    chosen = rng.integers(0, len(images), num)
    farthest = frame_side - SIDE
    starts = rng.integers(0, 2 * farthest, (2, num, 1))
    phases = (starts + np.arange(num_timesteps)) % (2 * farthest)
    tops, lefts = farthest - np.abs(farthest - phases)
    y, x = np.ogrid[:SIDE, :SIDE]
    frames = np.zeros((num, num_timesteps, frame_side, frame_side), dtype=np.float32)
    which, when = np.ogrid[:num, :num_timesteps]
    rows, columns = tops[..., None, None] + y, lefts[..., None, None] + x
    frames[which[..., None, None], when[..., None, None], rows, columns] = images[chosen, None]
    inputs = frames.reshape(num, num_timesteps, -1)
    if task == "reconstruct":
        return Split(inputs, inputs)
    down, right = (phases < farthest).astype(np.uint8)
    return Split(inputs, 2 * down + right if task == "frame" else digits[chosen])


def mean_frame_loss(frames: np.ndarray) -> float:
    """Return the mean squared error, per pixel, of answering every one of these frames, (N, T, D), with their mean."""
    mean = frames.mean(axis=(0, 1), dtype=np.float64)
    return float(np.mean(np.square(frames), dtype=np.float64) - np.mean(mean**2))


def memoryless_loss(frame_side: int) -> float:
    """Return the loss, in nats per frame, of the best answer to the present place of the box alone.

    Along each axis the box touches a border, which it must leave, in 2 of 2m phases.
    """
    return 2 * (1 - 1 / (frame_side - SIDE)) * math.log(2)
