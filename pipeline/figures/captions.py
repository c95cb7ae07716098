"""Images with the words that a captioner writes, and where it looks for each of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipeline.figures.examples import WHOSE, as_grid, at_end, of_first_seed, of_runs, outline, where
from pipeline.figures.glyphs import legible
from pipeline.figures.stages import interval, ranked
from pipeline.figures.style import WIDTH, canvas, styled
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables

MAX_EXAMPLES, MAX_WORDS = 3, 5
VEIL, OPACITY = "#5b636b", 0.75
"""What lies over cells without weight."""


def applies(tables: GridTables) -> bool:
    """Return whether attention to images was traced."""
    return not table(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the weights that are drawn, of one arm: the one with the fewest wrong captions.

    Columns `arm`, `seed`, `step`, `example`, `output_position`, `source_position`, `weight`, `aligned`, and the words
    `written` (free-running) and `true` at the output position; null where a caption has ended.
    """
    rows = of_first_seed(tables, tables.attention).join(_inputs(tables).select("example").unique(), on="example")
    ranking = _errors(tables).filter(pl.col("arm").is_in(rows["arm"].unique().to_list()))
    best = ranking.sort("mean", nulls_last=True, maintain_order=True)["arm"].head(1)
    rows = rows.filter(pl.col("arm").is_in(best.to_list()))
    tokens, keys = of_first_seed(tables, tables.tokens), ["arm", "seed", "example", "output_position"]
    for column, sequence in {"written": "free_running", "true": "target"}.items():
        words = tokens.filter(sequence=sequence).rename({"position": "output_position", "token": column})
        rows = rows.join(words.select(*keys, column), on=keys, how="left")
    shown = rows["example"].unique().sort().head(MAX_EXAMPLES)
    rows = rows.filter(pl.col("example").is_in(shown.to_list()), pl.col("output_position") <= MAX_WORDS)
    rows = rows.select(*keys[:2], "step", *keys[2:], "source_position", "weight", "aligned", "written", "true")
    return rows.sort("example", "output_position", "source_position")


def title(tables: GridTables) -> str:
    """Return how many captions are right, and how much of the attention lies where the words' objects are."""
    arm = table(tables)["arm"][0]
    errors = _errors(tables).filter(arm=arm).drop_nulls("mean")
    shares = at_end(tables, "alignment_share").filter(arm=arm).drop_nulls("mean")
    parts = [f"writes {100 * (1 - error):.0f} % of captions exactly right" for error in errors["mean"]]
    parts += [f"has {100 * share:.0f} % of its attention inside the right place" for share in shares["mean"]]
    name = the(arm)
    return f"{name[0].upper()}{name[1:]} {' and '.join(parts) or 'looks at images while it writes'}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, of which seed, and how other arms do."""
    drawn, shares = table(tables), at_end(tables, "alignment_share")
    errors = _errors(tables).drop_nulls("mean")
    ranking = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in errors.iter_rows(named=True))
    inside = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in shares.iter_rows(named=True))
    told = f" Share of wrong captions over {seeds_of(errors)} with {INTERVAL}: {ranking}." if ranking else ""
    told += f" Share of attention inside the known place: {inside}." if inside else ""
    border = " Inside the border: where the object of the true word is." if drawn["aligned"].any() else ""
    return (
        f"The first test images of {where(tables)} and the words of {the(drawn['arm'][0])} ({WHOSE}), fed its own "
        f"words; where one is wrong, the true one follows ≠. The clearer a cell, the greater its weight while the true "
        f"words are fed, relative to the panel's greatest.{border}{_cut_told(tables)}{told} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}{left_out(errors)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a row for each image: the image, then the image under a veil for each word."""
    drawn = table(tables)
    examples, inputs = drawn["example"].unique(maintain_order=True).to_list(), _inputs(tables)
    images = {example: as_grid(inputs.filter(example=example), "row", "column", "brightness") for example in examples}
    num_columns = 1 + max(drawn["output_position"])
    width = WIDTH / num_columns - 0.1
    height = 0.35 + max(width * image.shape[0] / image.shape[1] for image in images.values())
    figure, axes = canvas(title(tables), len(examples), num_columns, 0.5 + height * len(examples))
    for row, example in zip(axes, examples, strict=True):
        words = drawn.filter(example=example).partition_by("output_position", maintain_order=True)
        for ax in row:
            ax.set_visible(False)
        for ax, word in zip(row, [None, *words], strict=False):
            _panel(ax, images[example], word)
        row[0].set_title("image", fontweight="normal")
    return figure


def _panel(ax: Axes, image: np.ndarray[Any, Any], word: pl.DataFrame | None) -> None:
    """Draw an image, and for a word the veil over it that is clear where the weight is."""
    H, W = image.shape
    ax.set_visible(True)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.imshow(image, cmap="Greys", extent=(0, W, H, 0), interpolation="nearest")
    if word is None:
        return
    rows, columns = cells_of(word.height, H / W)
    weights = word["weight"].to_numpy().reshape(rows, columns)
    veil = np.empty((rows, columns, 4))
    veil[..., :3], veil[..., 3] = to_rgb(VEIL), OPACITY * (1 - weights / weights.max())
    ax.imshow(veil, extent=(0, W, H, 0), interpolation="nearest")
    inside = word["aligned"].fill_null(value=False).to_numpy().reshape(rows, columns)
    outline(ax, inside, width=W / columns, height=H / rows)
    written, true = (legible(word[side][0] or "–") for side in ("written", "true"))
    ax.set_title(written if written == true else f"{written} ≠ {true}", fontsize=7.5, parse_math=False)


def cells_of(num_cells: int, aspect: float) -> tuple[int, int]:
    """Return the rows and columns of a grid of `num_cells` over an image that is `aspect` times as high as wide.

    The cells are as square as their number allows.
    """
    divisors = (rows for rows in range(1, num_cells + 1) if num_cells % rows == 0)
    rows = min(divisors, key=lambda rows: abs(math.log(rows * rows / num_cells / aspect)))
    return rows, num_cells // rows


def _inputs(tables: GridTables) -> pl.DataFrame:
    """Return the pixels of the images, the same for all replicas, as one of them left them."""
    pixels = tables.at_longest(tables.images).filter(image="input").sort(ranked(tables.arms), "seed")
    return pixels.unique(["example", "row", "column"], keep="first", maintain_order=True)


def _errors(tables: GridTables) -> pl.DataFrame:
    """Return the mean share of wrong captions on test images, by arm, over seeds that did not diverge."""
    return of_runs(tables, pl.col("test_error"), bounds=(0.0, 1.0))


def _cut_told(tables: GridTables) -> str:
    longest = max(of_first_seed(tables, tables.attention)["output_position"])
    return f" Cut after {MAX_WORDS} words." if longest > MAX_WORDS else ""
