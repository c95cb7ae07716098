"""Digit canvases: an image with a few handwritten digits, to be named in reading order.

    inputs   a canvas of `num_lines` lines, with scikit-learn's 8 x 8 digits at random places of it
    targets  the digits' names, "seven two nine": line by line from the top, in a line from left to right; then EOS
    baseline the unigram entropy of the training targets, in nats per token

Each digit lies within one line, and digits of one line never share a column of pixels, so there is one reading order.
The alignment is over a grid of square cells, row by row, as a feature map sees the canvas: a word is made from those
cells that its digit's 8 x 8 box covers at least by half. Canvases of a split show images of that split only.

Source: made for this project, after the cluttered digits of Mnih, Heess, Graves & Kavukcuoglu 2014 and the captions of
Xu et al. 2015. Shapes: N canvases, n digits of a canvas at most, U = n + 1 target tokens, M digits, L cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.strict import require
from pipeline.data.dataset import EOS, PAD, SPECIAL_TOKENS, Dataset, Split, Task, make_task
from pipeline.data.digits import SIDE, ShowsDigits, draw_images
from pipeline.data.generator import Shares, require_between
from pipeline.data.vocabulary import Vocabulary, unigram_entropy

WORDS = Vocabulary(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
ZERO = len(SPECIAL_TOKENS)
MAX_CELL = SIDE // 2


@dataclass(frozen=True, kw_only=True)
class DigitCanvases(ShowsDigits):
    """Canvases of `num_lines` lines of `line_height` x `width` pixels, with `min_digits` to `max_digits` digits."""

    num_lines: int
    line_height: int
    width: int
    min_digits: int
    max_digits: int
    cell: int
    shares: Shares

    length_reason = "the names of {self.max_digits} digits and an end"
    num_drawn = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_lines >= 1, "num_lines", "an integer of at least 1", self.num_lines)
        for field in ("line_height", "width"):
            pixels = getattr(self, field)
            require(pixels >= SIDE, field, f"at least the {SIDE} pixels of a digit", pixels)
        room = self.num_lines * (self.width // SIDE)
        require_between(1, room, "max_digits", self.max_digits, why=", all that the lines have room for")
        require_between(1, self.max_digits, "min_digits", self.min_digits, why=" (max_digits)")
        fits = 1 <= self.cell <= MAX_CELL and self.height % self.cell == self.width % self.cell == 0
        expected = f"1 to {MAX_CELL} pixels that divide the canvas of {self.height} x {self.width}"
        require(fits, "cell", expected, self.cell)

    @property
    def height(self) -> int:
        """Height of a canvas, in pixels."""
        return self.num_lines * self.line_height

    @property
    def natural_length(self) -> int:
        """U, the most tokens of a target, with its `EOS`."""
        return self.max_digits + 1

    def task_of(self, length: int, train: Split) -> Task:
        """Return the task of naming the digits of a canvas."""
        return make_task(
            length,
            inputs=("image", 1),
            targets=("class", "sequence", len(WORDS)),
            baseline=(unigram_entropy(train.targets[train.targets != PAD]), "unigram"),
            padded=True,
            target_tokens=WORDS.tokens,
        )

    def sample(self, rng: np.random.Generator, num: int, length: int, images: np.ndarray, digits: np.ndarray) -> Split:
        """Return canvases (N, height, width) float32, targets (N, U) uint8 and alignment (N, U, L) Boolean."""
        num_digits = rng.integers(self.min_digits, self.max_digits + 1, num)
        present = np.arange(self.max_digits) < num_digits[:, None]
        chosen = rng.integers(0, len(images), present.shape)
        tops, lefts = self.place(rng, present)
        targets = np.full((num, length), PAD, dtype=np.uint8)
        targets[:, :-1][present] = digits[chosen[present]] + ZERO
        targets[np.arange(num), num_digits] = EOS
        cells = covered_cells(tops[present], lefts[present], self.height, self.width, self.cell)
        alignment = np.zeros((*targets.shape, cells.shape[1]), dtype=bool)
        alignment[:, :-1][present] = cells
        return Split(self.canvases(present, tops, lefts, images[chosen]), targets, alignment)

    def canvases(self, present: np.ndarray, tops: np.ndarray, lefts: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return canvases (N, height, width) float32 with the images (N, n, 8, 8) of the digits that are present."""
        y, x = np.ogrid[:SIDE, :SIDE]
        canvases = np.zeros((len(present), self.height, self.width), dtype=np.float32)
        rows, columns = tops[present][:, None, None] + y, lefts[present][:, None, None] + x
        canvases[np.nonzero(present)[0][:, None, None], rows, columns] = images[present]
        return canvases

    def place(self, rng: np.random.Generator, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the top and the left edge of each digit, in pixels, in reading order, both (N, n).

        A line has as many seats as there is room for digits; digits take different seats of the canvas at random, and
        then move apart: the room that is left in their line is divided at random. Edges of digits that are not
        `present`, (N, n) Boolean, say nothing.
        """
        per_line = self.width // SIDE
        seats = rng.permuted(np.tile(np.arange(self.num_lines * per_line), (len(present), 1)), axis=1)
        lines = np.where(present, seats[:, : present.shape[1]] // per_line, self.num_lines)
        lines.sort(axis=1)
        same_line = lines[:, :, None] == lines[:, None, :]
        room = np.maximum(self.width - SIDE * same_line.sum(axis=2), 0)
        shifts = rng.integers(0, room + 1)
        shifts = np.take_along_axis(shifts, np.lexsort((shifts, lines)), axis=1)
        lefts = shifts + SIDE * np.tril(same_line, -1).sum(axis=2)
        tops = lines * self.line_height + rng.integers(0, self.line_height - SIDE + 1, lines.shape)
        return tops, lefts

    def draw(self, dataset: Dataset) -> str:
        """Return canvases, each below its words."""
        train = dataset.splits["train"]
        labels = [" ".join(WORDS.decode(target)[:-1]) for target in train.targets[: self.num_drawn]]
        return draw_images(train.inputs[: self.num_drawn], labels)


def covered_cells(tops: np.ndarray, lefts: np.ndarray, height: int, width: int, cell: int) -> np.ndarray:
    """Return which cells of the grid the box of each digit covers at least by half, row by row, (M, L) Boolean.

    A box has the top and the left edge `tops` and `lefts`, (M,); a cell has sides of `cell`. All are in pixels.
    """
    overlaps = []  # how many pixels of each cell, along one axis, lie in each box: (M, size / cell)
    for starts, size in ((tops, height), (lefts, width)):
        edges = np.arange(0, size, cell)
        ends = np.minimum(starts[:, None] + SIDE, edges + cell)
        overlaps.append(np.maximum(ends - np.maximum(starts[:, None], edges), 0))
    areas = overlaps[0][:, :, None] * overlaps[1][:, None, :]
    return (2 * areas >= cell**2).reshape(len(tops), -1)
