"""From examples to pictures: which replica's are shown, cells as a grid with a border, tokens as text of one font."""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.font_manager import get_font

from pipeline.quantities import Grid
from pipeline.results import FINISHED

WHOSE = "each arm's first seed that did not diverge, weights of its best validation step"
"""What `of_first_seed` keeps."""

BORDER = "#d1580b"

_CONTROLS = {"\n": "⏎", "\t": "⇥"}


def of_first_seed(grid: Grid, table: str) -> pl.DataFrame:
    """Return the rows of each arm's first seed that did not diverge, at its last step."""
    finished = grid[table].filter(pl.col("status").is_in(FINISHED))
    first = finished.filter(pl.col("seed") == pl.col("seed").min().over("arm"))
    return first.filter(pl.col("step") == pl.col("step").max().over("arm"))


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


def legible(text: str) -> str:
    """Return `text` with a sign for every line break, and a name for every letter that the font lacks.

    The name is the last word of Unicode's, «nyeon» of HANGUL SYLLABLE NYEON, or the code point, «U+5E74».
    """
    return "".join(_glyph(letter) for letter in text)


def as_label(token: str) -> str:
    """Return a token as `legible` text in which spaces are seen."""
    return "".join("␣" if letter.isspace() and letter not in _CONTROLS else _glyph(letter) for letter in token)


def are_letters(tokens: pl.Series) -> bool:
    """Return whether tokens are single letters; a few, such as «<eos>», need not be."""
    return bool(tokens.str.len_chars().median() == 1)


def _glyph(letter: str) -> str:
    if letter in _CONTROLS:
        return _CONTROLS[letter]
    if ord(letter) in _known():
        return letter
    name = unicodedata.name(letter, "").rpartition(" ")[2]
    return name.lower() if name.isalpha() else f"U+{ord(letter):04X}"


@functools.cache
def _known() -> frozenset[int]:
    """Return the code points of DejaVu Sans as matplotlib brings it, whatever fonts the machine has."""
    return frozenset(get_font(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")).get_charmap())
