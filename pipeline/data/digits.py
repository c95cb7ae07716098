"""Handwritten digits: scikit-learn's 1797 images of 8 x 8 pixels, read pixel by pixel or as images.

Images of Alpaydin & Kaynak 1998, brightness 0..16 scaled to [0, 1]. Datasets that are made of them show, in each split,
images of that split only. Shapes: M images, N sequences.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, make_task
from pipeline.data.generator import PAGE_WIDTH, Drawn, Shares, num_sequences, split_indices, stream
from pipeline.errors import DatasetError

SIDE = 8
NUM_PIXELS = SIDE * SIDE
SHADES = " .:-=+*#%@"
GAP = "   "
PERMUTATION_STREAM = 1


@dataclass(frozen=True, kw_only=True)
class Digits(Drawn):
    """Digits pixel by pixel: 64 timesteps of one brightness, then say which digit it was.

    Row by row; the permuted variant reads the pixels of every image in the same random order, so that neighbours in the
    image lie far apart in time. Images are split by `shares`; their number does not depend on the scale. The baseline
    is chance, ln 10 nats: the ten digits are about equally frequent.

    Source: Le, Jaitly & Hinton 2015 (with MNIST, 784 timesteps).
    """

    permuted: bool
    shares: Shares

    natural_length, length_reason = NUM_PIXELS, f"an image has {NUM_PIXELS} pixels"
    num_drawn = 5

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the digits, to be named; `sizes` are of generated sequences and change nothing here."""
        pixels, labels = load_images()
        inputs, parts = pixels[:, self.order(), None], split_indices(labels, self.shares, self.seed)
        task = make_task(length, inputs=("real", 1), targets=("class", "last", 10), baseline=(math.log(10), "chance"))
        return task, {split: Split(inputs[chosen], labels[chosen]) for split, chosen in parts.items()}

    def order(self) -> np.ndarray:
        """Return which pixel is read at each timestep, (64,): the same for every image."""
        if not self.permuted:
            return np.arange(NUM_PIXELS)
        return stream(self.seed, NUM_PIXELS, PERMUTATION_STREAM).permutation(NUM_PIXELS)

    def draw(self, dataset: Dataset) -> str:
        """Return images side by side, eight timesteps a line, in the order in which they are read."""
        train = dataset.splits["train"]
        images = train.inputs[: self.num_drawn].reshape(-1, SIDE, SIDE)
        return draw_images(images, [f"target {target}" for target in train.targets[: self.num_drawn]])

    def source(self) -> dict[str, Any]:
        """Return which images they are."""
        return source_of_images()


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


def source_of_images() -> dict[str, Any]:
    """Return which images they are: scikit-learn's version and the sha256 of pixels and labels."""
    pixels, labels = load_images()
    import sklearn

    sha256 = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    return {"scikit_learn_version": sklearn.__version__, "num_images": len(labels), "sha256": sha256}


def images_by_split(shares: Shares, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images, (M, 8, 8) float32 in [0, 1], and their digits, (M,) uint8, of every split.

    They are those of the dataset of single digits with the same shares and seed.
    """
    pixels, labels = load_images()
    images = pixels.reshape(-1, SIDE, SIDE)
    return {split: (images[chosen], labels[chosen]) for split, chosen in split_indices(labels, shares, seed).items()}


def sample_digit_splits(
    seed: int,
    length: int,
    sizes: Sizes,
    shares: Shares,
    sample: Callable[[np.random.Generator, int, int, np.ndarray, np.ndarray], Split],
) -> dict[str, Split]:
    """Return every split, each drawn from its own stream and images.

    Args:
        seed: The seed of everything that is drawn.
        length: What a study calls `dataset.length`.
        sizes: Sequences in each split.
        shares: How images are divided.
        sample: A function of a stream, the number of sequences, the length, and the images and digits to draw from.
    """
    parts = images_by_split(shares, seed)
    return {
        split: sample(stream(seed, length, position), num_sequences(sizes, split), length, *parts[split])
        for position, split in enumerate(SPLITS)
    }


def draw_images(images: np.ndarray, labels: Sequence[str]) -> str:
    """Return images side by side, each below its label, folded to the width of a page.

    Args:
        images: Brightness in [0, 1], (M, height, width).
        labels: A text for each.
    """
    width = max(2 * images.shape[2], *map(len, labels))
    per_line = max(1, (PAGE_WIDTH + len(GAP)) // (width + len(GAP)))
    shades = np.rint(images * (len(SHADES) - 1)).astype(int).tolist()
    columns = [
        [text.ljust(width) for text in (label, *("".join(SHADES[i] * 2 for i in row) for row in image))]
        for label, image in zip(labels, shades, strict=True)
    ]
    blocks = (zip(*columns[start : start + per_line], strict=True) for start in range(0, len(columns), per_line))
    return "\n\n".join("\n".join(GAP.join(line).rstrip() for line in block) for block in blocks)
