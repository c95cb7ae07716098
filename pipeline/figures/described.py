"""A figure of texts that speak of images: where each word of a text looked, and what the network answered."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.examples import captioned_images, inputs_of, looks_finding, looks_values, of_best_arm
from pipeline.figures.frame import NOT_SHOWN, Pictures, View
from pipeline.figures.pictures import WHOSE, legible, of_first_seed
from pipeline.quantities import Grid
from pipeline.quantities.outcomes import test_error
from pipeline.quantities.words import with_article

MAX_EXAMPLES, MAX_WORDS = 4, 8
"""Images, and words of a text, that have a panel."""


def _looks(grid: Grid) -> pl.DataFrame:
    """Return the weights of a few images, of one arm: the one with the fewest wrong answers.

    Beside them stand the `word`, and the `answer` to the text and the `true` one.
    """
    tokens, keys = of_first_seed(grid, "tokens"), ["arm", "seed", "example"]
    rows = of_first_seed(grid, "attention").join(inputs_of(grid).select("example").unique(), on="example")
    words = tokens.filter(sequence="words").rename({"position": "output_position", "token": "word"})
    rows = rows.join(words.select(*keys, "output_position", "word"), on=[*keys, "output_position"])
    for column, sequence in {"answer": "answer", "true": "class"}.items():
        said = tokens.filter(sequence=sequence).rename({"token": column})
        rows = rows.join(said.select(*keys, column), on=keys, how="left")
    rows = of_best_arm(grid, rows, MAX_EXAMPLES, MAX_WORDS)
    rows = rows.select(*keys[:2], "step", "example", "output_position", "source_position", "weight", "aligned", *_TEXTS)
    return rows.sort("example", "output_position", "source_position")


_TEXTS = ("word", "answer", "true")


def _values(view: View) -> str:
    chance = view.rows.filter(pl.col("aligned").any().over("example", "output_position"))["aligned"].mean()
    even = f"of an even map in these examples {100 * float(chance or 0):.0f} %"  # type: ignore[arg-type]
    looks = f"the last word's attention inside the border ({even})"
    return looks_values(view, "what the text describes", "answers", looks, MAX_WORDS)


def _draw(view: View) -> Figure:
    """Draw a row for each image: the image below the answer, then the image under a veil for each word."""
    rows = view.rows.with_columns(title=pl.col("word").map_elements(legible, return_dtype=pl.String))
    heads = {
        example: answer if answer == true else f"{answer} ≠ {true}"
        for example, answer, true in view.rows.select("example", "answer", "true").unique().iter_rows()
    }
    return captioned_images(view, rows, {example: legible(head) for example, head in heads.items()})


descriptions = Pictures(
    name="descriptions",
    rows=_looks,
    means=lambda view: test_error.means(view.grid),
    picture=_draw,
    title=lambda view: looks_finding(
        view,
        "gets {:.0f} % of texts right",
        "has {:.0f} % of its last look on what they describe",
        "looks at images while it reads",
    ),
    about=lambda view: (
        f"The first test images of {{where}}, below the answers of {with_article(view.arms[0])} ({WHOSE}), and the "
        "words that it read of each; where an answer is wrong, the true one follows ≠. The clearer a cell, the greater "
        "its weight after the word, relative to the panel's greatest."
    ),
    values=_values,
    not_ok=NOT_SHOWN,
)
