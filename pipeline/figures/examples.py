"""Examples of what networks do: of which replica they are shown, and how as a grid of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from pipeline.figures.stages import staged
from pipeline.quantities import GridTables, mean_interval
from pipeline.results import FINISHED

WHOSE = "each arm's first seed that did not diverge, weights of its best validation step"
"""What `of_first_seed` keeps."""

BORDER = "#d1580b"


def of_first_seed(tables: GridTables, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of each arm's first seed that did not diverge, at its last step, at the longest length."""
    sound = tables.at_longest(frame).filter(pl.col("status").is_in(FINISHED))
    first = sound.filter(pl.col("seed") == pl.col("seed").min().over("arm"))
    return first.filter(pl.col("step") == pl.col("step").max().over("arm"))


def at_end(tables: GridTables, metric: str) -> pl.DataFrame:
    """Return the mean over seeds of a share in `curves` at the end of training, with its interval, by arm."""
    rows = staged(tables.at_longest(tables.curves).filter(metric=metric)).filter(stage="end")
    return mean_interval(rows, "value", ["arm"], bounds=(0.0, 1.0))


def of_runs(tables: GridTables, value: pl.Expr, *, bounds: tuple[float, float] | None = None) -> pl.DataFrame:
    """Return the mean of `value`, of columns of `runs`, over seeds that did not diverge, with its interval, by arm."""
    sound = tables.at_longest(tables.runs).filter(pl.col("status").is_in(FINISHED))
    return mean_interval(sound.with_columns(value=value), "value", ["arm"], bounds=bounds)


def where(tables: GridTables) -> str:
    """Return the dataset, and the length that is shown where there are several."""
    return f"{tables.dataset} at T = {tables.lengths[-1]}" if len(tables.lengths) > 1 else tables.dataset


def as_grid(rows: pl.DataFrame, row: str, column: str, value: str) -> np.ndarray[Any, Any]:
    """Return column `value` as an array, by the columns `row` and `column`; `rows` has every pair of them once."""
    return rows.sort(row, column)[value].to_numpy().reshape(rows[row].n_unique(), rows[column].n_unique())


def outline(ax: Axes, inside: np.ndarray[Any, Any], *, width: float = 1.0, height: float = 1.0) -> None:
    """Draw the border around the cells of a grid that are `inside`.

    Args:
        ax: Where to; cell (i, j) goes from (j·width, i·height) to ((j+1)·width, (i+1)·height).
        inside: Boolean, (rows, columns).
        width: Of a cell.
        height: Of a cell.
    """
    padded = np.pad(inside, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # a cell differs from the one above
    down = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])  # a cell differs from the one to the left
    edges = [[(j, i), (j + 1, i)] for i, j in across] + [[(j, i), (j, i + 1)] for i, j in down]
    scaled = np.array(edges, dtype=float).reshape(-1, 2, 2) * (width, height)
    ax.add_collection(LineCollection(list(scaled), colors=BORDER, linewidths=1.1, capstyle="projecting"))
