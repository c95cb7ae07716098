"""Arrays as small pictures without axes: a picture per traced step, of which W&B makes a film."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.image import imsave

from pipeline.figures.style import FAINT

PIXELS = 480
"""The longer side of a picture, unless the array is larger."""


def map_png(values: np.ndarray, low: float, high: float, *, wide: bool = False) -> bytes:
    """Return a picture of a matrix, dark at `low`, bright at `high`, as PNG; what is not a number is grey.

    Args:
        values: (rows, columns); -inf is as dark as `low`.
        low: Where colours begin.
        high: Where they end.
        wide: Whether a cell may be wider than high, for a few rows over many timesteps; else cells are squares.
    """
    shades = np.clip((values - low) / (high - low), 0.0, 1.0)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=FAINT)(np.ma.masked_invalid(shades), bytes=True)
    across = max(1, PIXELS // values.shape[1])
    down = (
        max(1, min(PIXELS // 3 // values.shape[0], PIXELS // 12))
        if wide
        else min(across, max(1, PIXELS // len(values)))
    )
    pixels = colours.repeat(down, axis=0).repeat(across if wide else down, axis=1)
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png")
    return buffer.getvalue()
