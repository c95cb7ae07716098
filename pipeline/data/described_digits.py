"""Described digits: a canvas with several handwritten digits, and a few words that describe one of them: which digit?

    inputs   the words, then EOS, then padding: "last in the lower line", or "left of seven"
    images   the canvas, as `DigitCanvases` draws it, with no digit twice
    targets  the digit that is described, 0..9, once
    baseline the image alone: any of its digits alike, the mean of ln n over training canvases of n digits

Words describe a digit by one of two things:

    place     ORDER in the upper | lower line     first, second ... counted from the left, and last, of that line
    relation  left | right of DIGIT               the next digit in the line, on that side
              above | below DIGIT                 the digit of the next line, over or under DIGIT by more than half

They fit no other digit of the canvas. Digits are drawn before their images, all ten alike. Which one is described is
drawn first, all of a canvas alike; then the kind of its description, place or relation where there are both; then one
of that kind. So the canvas alone says nothing of which of its digits is meant, and the words alone leave all ten digits
alike after a place, and all but the one that they name, ln 9 nats, after a relation.

The alignment is of `EOS`, where the words are read: the cells of the described digit, as in `DigitCanvases`.

Source: made for this project, after the referring expressions of Kazemzadeh, Ordonez, Matten & Berg 2014 and the
relations of Johnson et al. 2017 (CLEVR). Shapes: N canvases, n digits of a canvas at most, T words with `EOS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.strict import require
from pipeline.data.dataset import EOS, SPECIAL_TOKENS, Dataset, Split, Task, make_task
from pipeline.data.digit_canvases import WORDS as NAMES
from pipeline.data.digit_canvases import DigitCanvases, covered_cells
from pipeline.data.digits import SIDE, draw_images
from pipeline.data.generator import require_between
from pipeline.data.preview import shared_inputs
from pipeline.data.vocabulary import Vocabulary, pad
from pipeline.errors import DatasetError

DIGITS = NAMES.tokens[len(SPECIAL_TOKENS) :]
NUM_CLASSES = len(DIGITS)
LINES = ("upper", "lower")
ORDERS = ("first", "second", "third", "fourth", "fifth")
RELATIONS = ("left", "right", "above", "below")
WORDS = Vocabulary((*ORDERS, "last", "in", "the", *LINES, "line", *RELATIONS, "of", *DIGITS))
MAX_PER_LINE = len(ORDERS)
OVER = SIDE // 2
"""More columns than this are more than half of a digit: at most one digit of another line shares so many."""


@dataclass(frozen=True, kw_only=True)
class DescribedDigits(DigitCanvases):
    """Canvases of two lines of `line_height` x `width` pixels with `min_digits` to `max_digits` different digits."""

    length_reason = "the longest description has {self.natural_length} words with its end"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_lines == len(LINES), "num_lines", "2, an upper and a lower line", self.num_lines)
        most = MAX_PER_LINE * SIDE + SIDE - 1
        require(self.width <= most, "width", f"at most {most} pixels: {MAX_PER_LINE} digits of a line", self.width)
        require_between(2, NUM_CLASSES, "max_digits", self.max_digits, why=", for no digit is shown twice")
        require_between(2, self.max_digits, "min_digits", self.min_digits, why=": of one alone the canvas says it all")

    @property
    def natural_length(self) -> int:
        """T, the most words of a description, with `EOS`."""
        return len(f"{ORDERS[0]} in the {LINES[0]} line".split()) + 1

    def task_of(self, length: int, train: Split) -> Task:
        """Return the task of saying which digit is described."""
        any_alike = float(np.log(np.arange(self.min_digits, self.max_digits + 1)).mean())
        return make_task(
            length,
            inputs=("token", len(WORDS)),
            targets=("class", "last", NUM_CLASSES),
            baseline=(any_alike, "image alone"),
            token_groups={"place": tuple(WORDS.encode(LINES)), "relation": tuple(WORDS.encode(RELATIONS))},
            padded=True,
            input_tokens=WORDS.tokens,
            target_tokens=DIGITS,
            frame_shape=(self.height, self.width),
        )

    def sample(self, rng: np.random.Generator, num: int, length: int, images: np.ndarray, digits: np.ndarray) -> Split:
        """Return words (N, T) uint8, targets (N,) uint8, alignment (N, T, L), canvases (N, height, width) float32."""
        num_digits = rng.integers(self.min_digits, self.max_digits + 1, num)
        present = np.arange(self.max_digits) < num_digits[:, None]
        shown = rng.permuted(np.tile(np.arange(NUM_CLASSES), (num, 1)), axis=1)[:, : self.max_digits]
        chosen = images_of(rng, shown, digits)
        tops, lefts = self.place(rng, present)
        which = rng.integers(0, num_digits)
        texts = list[list[int]]()
        for i, (n, j) in enumerate(zip(num_digits.tolist(), which.tolist(), strict=True)):
            lines = (tops[i, :n] // self.line_height).tolist()
            possible = [kind for kind in descriptions(lines, lefts[i, :n].tolist(), shown[i, :n].tolist(), j) if kind]
            kind = possible[rng.integers(len(possible))]
            texts.append([*WORDS.encode(kind[rng.integers(len(kind))].split()), EOS])
        each = np.arange(num)
        alignment = np.zeros((num, length, self.height * self.width // self.cell**2), dtype=bool)
        alignment[each, [len(text) - 1 for text in texts]] = covered_cells(
            tops[each, which], lefts[each, which], self.height, self.width, self.cell
        )
        canvases = self.canvases(present, tops, lefts, images[chosen])
        return Split(pad(texts, length), shown[each, which].astype(np.uint8), alignment, canvases)

    def leaks(self, dataset: Dataset) -> dict[str, int]:
        """Return how many canvases of validation and of test are in training as well; words are."""
        splits = {name: split.arrays for name, split in dataset.splits.items()}
        return shared_inputs({name: Split(arrays["images"], arrays["targets"]) for name, arrays in splits.items()})

    def draw(self, dataset: Dataset) -> str:
        """Return canvases, each below what describes one of its digits, and that digit."""
        train = dataset.splits["train"]
        assert train.images is not None  # noqa: S101 - it is of this dataset
        pairs = zip(train.inputs[: self.num_drawn], train.targets, strict=False)
        labels = [f"{' '.join(WORDS.decode(words)[:-1])}: {DIGITS[digit]}" for words, digit in pairs]
        return draw_images(train.images[: self.num_drawn], labels)


def images_of(rng: np.random.Generator, shown: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Return for every digit of `shown` the index of one of its images, all alike, in the shape of `shown`.

    Args:
        rng: Where draws come from.
        shown: Digits.
        digits: Of each image, (M,).

    Raises:
        DatasetError: If there is no image of some digit.
    """
    counts = np.bincount(digits, minlength=NUM_CLASSES)
    if not counts.all():
        none = ", ".join(DIGITS[digit] for digit in np.flatnonzero(counts == 0))
        raise DatasetError(f"dataset 'described_digits': a split has no image of {none}; give it a larger share")
    starts = np.cumsum(counts) - counts
    return digits.argsort(kind="stable")[starts[shown] + rng.integers(0, counts[shown])]


def descriptions(
    lines: Sequence[int], lefts: Sequence[int], digits: Sequence[int], which: int
) -> tuple[list[str], list[str]]:
    """Return what describes one digit of a canvas, and fits no other: by its place, and by its relation to another.

    Args:
        lines: Of each digit, 0 for the upper one, in reading order.
        lefts: Their left edges, in pixels.
        digits: What they are, all different.
        which: The index of the digit to be described.
    """
    line, left = lines[which], lefts[which]
    order = which - lines.index(line)
    is_last = which == len(lines) - 1 or lines[which + 1] != line
    orders = (ORDERS[order], *["last"] * is_last)
    relations = []
    for other, (its_line, its_left) in enumerate(zip(lines, lefts, strict=True)):
        name = DIGITS[digits[other]]
        if its_line == line and abs(other - which) == 1:
            relations.append(f"{'left' if which < other else 'right'} of {name}")
        if its_line != line and SIDE - abs(its_left - left) > OVER:
            relations.append(f"{'above' if line < its_line else 'below'} {name}")
    return [f"{word} in the {LINES[line]} line" for word in orders], relations
