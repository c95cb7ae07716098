"""What datasets made of scikit-learn's digits share: images that belong to one split only, and images as text.

Shapes: M images of 8 x 8 pixels, N sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.config.params import Sizes
from pipeline.data.dataset import SPLITS, Split
from pipeline.data.digits import SHADES, SIDE, Shares, load_images, split_indices
from pipeline.data.drawing import PAGE_WIDTH
from pipeline.data.generator import num_sequences, stream

GAP = "   "


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
    sample: Callable[[np.random.Generator, int, np.ndarray, np.ndarray], Split],
) -> dict[str, Split]:
    """Return every split, each drawn by `sample(rng, num_sequences, images, digits)` from its own stream and images."""
    parts = images_by_split(shares, seed)
    return {
        split: sample(stream(seed, length, position), num_sequences(sizes, split), *parts[split])
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
