"""Handwritten digits: scikit-learn's 1797 images of 8 x 8 pixels, read pixel by pixel or as images.

Images of Alpaydin & Kaynak 1998, brightness 0..16 scaled to [0, 1]. Datasets that are made of them show, in each split,
images of that split only. Shapes: M images, N sequences.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import Dataset, Split, Task, make_task
from pipeline.data.generator import PAGE_WIDTH, Drawn, Shares, import_source, split_indices, stream

SIDE = 8
NUM_PIXELS = SIDE * SIDE
SHADES = " .:-=+*#%@"
GAP = "   "
PERMUTATION_STREAM = 1


class ShowsDigits(Drawn):
    """A dataset that is made of the images of digits, divided by `shares`: a split shows images of that split only.

    Two of them with the same seed and shares have the same images in a split.
    """

    shares: Shares

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the task, and every split, each drawn from its own stream and images."""
        parts = self.images_by_split()
        streams = self.streams(length, sizes)
        splits = {split: self.sample(rng, num, length, *parts[split]) for split, rng, num in streams}
        return self.task_of(length, splits["train"]), splits

    def images_by_split(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return images, (M, 8, 8) float32 in [0, 1], and their digits, (M,) uint8, of every split."""
        images, digits = load_images()
        parts = split_indices(digits, self.shares, self.seed)
        return {split: (images[chosen], digits[chosen]) for split, chosen in parts.items()}

    @abstractmethod
    def task_of(self, length: int, train: Split) -> Task:
        """Return what there is to do, and what the best memoryless answer costs, in training sequences if it varies."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, num: int, length: int, images: np.ndarray, digits: np.ndarray) -> Split:
        """Return `num` sequences drawn from `rng`, made of `images`, (M, 8, 8), that show `digits`, (M,)."""

    def source(self) -> dict[str, Any]:
        """Return which images they are: scikit-learn's version and the sha256 of pixels and labels."""
        images, digits = load_images()
        version, sha256 = metadata.version("scikit-learn"), hashlib.sha256(images.tobytes() + digits.tobytes())
        return {"scikit_learn_version": version, "num_images": len(digits), "sha256": sha256.hexdigest()}


@dataclass(frozen=True, kw_only=True)
class Digits(ShowsDigits):
    """Digits pixel by pixel: 64 timesteps of one brightness, then say which digit it was.

    Row by row; the permuted variant reads the pixels of every image in the same random order, so that neighbours in the
    image lie far apart in time. Images are split by `shares`; their number does not depend on the scale. The baseline
    is chance, ln 10 nats: the ten digits are about equally frequent.

    Source: Le, Jaitly & Hinton 2015 (with MNIST, 784 timesteps).
    """

    permuted: bool
    shares: Shares

    natural_length, length_reason = NUM_PIXELS, f"an image has {NUM_PIXELS} pixels"
    num_drawn = 6

    def task_of(self, length: int, train: Split) -> Task:
        """Return the task of naming a digit at the end."""
        return make_task(length, inputs=("real", 1), targets=("class", "last", 10), baseline=(math.log(10), "chance"))

    def sample(self, rng: np.random.Generator, num: int, length: int, images: np.ndarray, digits: np.ndarray) -> Split:
        """Return every image once, pixel by pixel, (M, 64, 1): nothing is drawn."""
        return Split(images.reshape(len(images), NUM_PIXELS)[:, self.order(), None], digits)

    def order(self) -> np.ndarray:
        """Return which pixel is read at each timestep, (64,): the same for every image."""
        if not self.permuted:
            return np.arange(NUM_PIXELS)
        return stream(self.seed, NUM_PIXELS, PERMUTATION_STREAM).permutation(NUM_PIXELS)

    def draw(self, dataset: Dataset) -> str:
        """Return images side by side, eight timesteps a line, in the order in which they are read."""
        train = dataset.splits["train"]
        images = train.inputs[: self.num_drawn].reshape(-1, SIDE, SIDE)
        labels = [f"target {target}" for target in train.targets[: self.num_drawn]]
        return draw_images(images, labels, per_line=self.num_drawn)


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """Return all images, (N, 8, 8) float32 in [0, 1], and their digits, (N,) uint8.

    Raises:
        DatasetError: If scikit-learn, which brings the images, is not installed.
    """
    source = import_source("sklearn.datasets", "scikit-learn", "dataset 'digits': the images come")
    pixels, labels = source.load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32).reshape(-1, SIDE, SIDE), labels.astype(np.uint8)


def draw_images(images: np.ndarray, labels: Sequence[str], per_line: int | None = None) -> str:
    """Return images side by side, each below its label.

    Args:
        images: Brightness in [0, 1], (M, height, width).
        labels: A text for each.
        per_line: How many stand side by side; None for as many as fit on a page.
    """
    width = max(2 * images.shape[2], *map(len, labels))
    per_line = per_line or max(1, (PAGE_WIDTH + len(GAP)) // (width + len(GAP)))
    shades = np.rint(images * (len(SHADES) - 1)).astype(int).tolist()
    columns = [
        [text.ljust(width) for text in (label, *("".join(SHADES[i] * 2 for i in row) for row in image))]
        for label, image in zip(labels, shades, strict=True)
    ]
    blocks = (zip(*columns[start : start + per_line], strict=True) for start in range(0, len(columns), per_line))
    return "\n\n".join("\n".join(GAP.join(line).rstrip() for line in block) for block in blocks)
