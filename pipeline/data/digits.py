"""Handwritten digits read pixel by pixel: 64 timesteps of one brightness, then say which digit it was.

Scikit-learn's 1797 images of 8 x 8 pixels, row by row, brightness 0..16 scaled to [0, 1]; the permuted variant
reads the pixels of every image in the same random order, so that neighbours in the image lie far apart in time.
The baseline is chance, ln 10 nats: the ten digits are about equally frequent.

Source: Le, Jaitly & Hinton 2015 (with MNIST, 784 timesteps); images of Alpaydin & Kaynak 1998.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, assemble
from pipeline.data.generator import check_length, require_seed_and_lengths, stream
from pipeline.errors import DatasetError

SIDE = 8
NUM_PIXELS = SIDE * SIDE
NUM_DRAWN = 6
SHADES = " .:-=+*#%@"
SPLIT_STREAM, PERMUTATION_STREAM = 0, 1


@dataclass(frozen=True)
class Shares:
    """Which part of each digit's images goes where; they sum to 1."""

    train: float
    validation: float
    test: float

    def __post_init__(self) -> None:
        for split in SPLITS:
            require(0 < getattr(self, split) < 1, split, "a share between 0 and 1", getattr(self, split))
        total = self.train + self.validation + self.test
        require(math.isclose(total, 1, abs_tol=1e-9), "test", "train, validation and test to sum to 1", total)


@dataclass(frozen=True)
class Digits:
    """Digits, `permuted` or in reading order, split by `shares`. Their number does not depend on the scale."""

    generator: Literal["digits"]
    seed: int
    permuted: bool
    shares: Shares

    lengths = (NUM_PIXELS,)
    natural_length = NUM_PIXELS
    possible_lengths = f"an image has {NUM_PIXELS} pixels: write null (or {NUM_PIXELS})"

    def __post_init__(self) -> None:
        require_seed_and_lengths(self.seed, self.lengths)

    def allows(self, length: int) -> bool:
        """Return whether `length` is the number of pixels."""
        return length == NUM_PIXELS

    def generate(self, length: int, sizes: Sizes) -> Dataset:
        """Return the digits; `sizes` are of generated sequences and change nothing here."""
        check_length(self.generator, self, length)
        pixels, labels = load_images()
        inputs = pixels[:, self.order(), None]
        splits = {
            split: Split(inputs[chosen], labels[chosen])
            for split, chosen in split_indices(labels, self.shares, self.seed).items()
        }
        task = Task(length, "real", 1, "class", "last", 10, math.log(10), baseline_name="chance")
        return assemble(self.generator, task, splits)

    def order(self) -> np.ndarray:
        """Return which pixel is read at each timestep, (64,): the same for every image."""
        if not self.permuted:
            return np.arange(NUM_PIXELS)
        return stream(self.seed, NUM_PIXELS, PERMUTATION_STREAM).permutation(NUM_PIXELS)

    def draw(self, dataset: Dataset) -> str:
        """Return images side by side, eight timesteps a line, in the order in which they are read."""
        train = dataset.splits["train"]
        shades = np.rint(train.inputs[:NUM_DRAWN, :, 0] * (len(SHADES) - 1)).astype(int)
        images = shades.reshape(-1, SIDE, SIDE)
        lines = ("   ".join("".join(SHADES[i] * 2 for i in image[y]) for image in images) for y in range(SIDE))
        targets = "   ".join(f"target {target}".ljust(2 * SIDE) for target in train.targets[:NUM_DRAWN])
        return "\n".join(line.rstrip() for line in (targets, *lines))

    def source(self) -> dict[str, Any]:
        """Return which images they are: scikit-learn's version and the sha256 of pixels and labels."""
        import sklearn

        pixels, labels = load_images()
        sha256 = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        return {"scikit_learn_version": sklearn.__version__, "num_images": len(labels), "sha256": sha256}


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """Return all images, (N, 64) float32 in [0, 1], and their digits, (N,) uint8.

    Raises:
        DatasetError: If scikit-learn, which brings the images, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        message = "dataset 'digits': the images come with scikit-learn, which is not installed"
        raise DatasetError(f"{message}; pip install scikit-learn") from None
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels.astype(np.uint8)


def split_indices(labels: np.ndarray, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Return which images belong to each split, every digit divided by the same shares.

    Args:
        labels: Digit of each image, (N,).
        shares: Part of each split.
        seed: Seed of the draw; plain and permuted digits with the same seed are split alike.

    Returns:
        Shuffled indices by split; together they are 0..N-1, each once.
    """
    rng = stream(seed, NUM_PIXELS, SPLIT_STREAM)
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == digit))
        cuts = np.rint(np.array([shares.train, shares.train + shares.validation]) * len(members)).astype(int)
        for split, part in zip(SPLITS, np.split(members, cuts), strict=True):
            parts[split].append(part)
    return {split: rng.permutation(np.concatenate(parts[split])) for split in SPLITS}
