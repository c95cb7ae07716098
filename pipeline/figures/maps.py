"""Arrays as small pictures without axes: a picture per traced step, of which W&B makes a film."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.image import imsave

from pipeline.figures.style import FAINT

PIXELS = 480
"""The longer side of a picture, unless the array is larger."""


def map_size(shape: tuple[int, ...], *, wide: bool = False) -> tuple[int, int]:
    """Return height and width in pixels of the picture of a matrix of this shape."""
    down, across = _cell(shape, wide=wide)
    return down * shape[0], across * shape[1]


def _cell(shape: tuple[int, ...], *, wide: bool) -> tuple[int, int]:
    across = max(1, PIXELS // shape[1])
    if wide:
        return max(1, min(PIXELS // 3 // shape[0], PIXELS // 12)), across
    side = min(across, max(1, PIXELS // shape[0]))
    return side, side


def map_png(
    values: np.ndarray, low: float, high: float, *, wide: bool = False, size: tuple[int, int] | None = None
) -> bytes:
    """Return a picture of a matrix, dark at `low`, bright at `high`, as PNG; what is not a number is grey.

    Args:
        values: (rows, columns); -inf is as dark as `low`.
        low: Where colours begin.
        high: Where they end.
        wide: Whether a cell may be wider than high, for a few rows over many timesteps; else cells are squares.
        size: Height and width of the whole, at least `map_size`: what lies to the right and below is clear. Pictures
            that are shown together in W&B are of one size.
    """
    shades = np.clip((values - low) / (high - low), 0.0, 1.0)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=FAINT)(np.ma.masked_invalid(shades), bytes=True)
    down, across = _cell(values.shape, wide=wide)
    pixels = colours.repeat(down, axis=0).repeat(across, axis=1)
    height, width = size or pixels.shape[:2]
    pixels = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)))
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png")
    return buffer.getvalue()
