"""Figures of single examples: captions with where the captioner looked, reconstructed frames, and sampled text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipeline.figures.findings import ranked, where_true
from pipeline.figures.frame import NOT_SHOWN, Pictures, View, listed
from pipeline.figures.pictures import WHOSE, are_letters, as_grid, legible, of_first_seed, outline
from pipeline.figures.style import WIDTH, canvas, label_panels
from pipeline.quantities import Grid
from pipeline.quantities.attention import alignment_share
from pipeline.quantities.decoding import RUN, distinct_runs, prompted
from pipeline.quantities.outcomes import test_error, test_loss, test_loss_over_baseline
from pipeline.quantities.selection import pick_evenly
from pipeline.quantities.words import INTERVAL, capitalised, join_first, name_of, seeds_of, with_article

MAX_WORDS, MAX_FRAMES = 5, 8
"""Words of a caption, and frames of a sequence, that have a panel."""

VEIL, OPACITY = "#5b636b", 0.75
"""What lies over cells without weight."""

LETTERS, MAX_LINES = 82, 3
"""Letters of a line; lines of a text."""

FONTS = ["DejaVu Sans Mono", "DejaVu Sans"]
"""The second has what the first lacks."""

_LINE = 0.135
"""Height of a line in inches."""


def _captions(grid: Grid) -> pl.DataFrame:
    """Return the weights of three images, of one arm: the one with the fewest wrong captions.

    Beside them stand the words `written` (free-running) and `true` at the output position; null where a caption ended.
    """
    rows = of_first_seed(grid, "attention").join(inputs_of(grid).select("example").unique(), on="example")
    written = of_first_seed(grid, "tokens").filter(sequence="free_running")
    rows = rows.join(written.select("arm", "example").unique(), on=["arm", "example"], how="semi")
    rows = of_best_arm(grid, rows, 3, MAX_WORDS)
    tokens, keys = of_first_seed(grid, "tokens"), ["arm", "seed", "example", "output_position"]
    for column, sequence in {"written": "free_running", "true": "target"}.items():
        words = tokens.filter(sequence=sequence).rename({"position": "output_position", "token": column})
        rows = rows.join(words.select(*keys, column), on=keys, how="left")
    rows = rows.select(*keys[:2], "step", *keys[2:], "source_position", "weight", "aligned", "written", "true")
    return rows.sort("example", "output_position", "source_position")


def of_best_arm(grid: Grid, rows: pl.DataFrame, num_examples: int, num_words: int) -> pl.DataFrame:
    """Return the rows of the first words of the first examples, of one arm: the one with the fewest errors."""
    ranking = test_error.means(grid).filter(pl.col("arm").is_in(rows["arm"].unique().to_list()))
    best = ranking.sort("mean", nulls_last=True, maintain_order=True)["arm"].head(1)
    rows = rows.filter(pl.col("arm").is_in(best.to_list()), pl.col("output_position") <= num_words)
    return rows.filter(pl.col("example").is_in(rows["example"].unique().sort().head(num_examples).to_list()))


def inputs_of(grid: Grid) -> pl.DataFrame:
    """Return the pixels of the images, the same for all replicas, as one of them left them."""
    pixels = grid["images"].filter(image="input").sort(grid.rank(), "seed")
    return pixels.unique(["example", "row", "column"], keep="first", maintain_order=True)


def looks_finding(view: View, answers: str, looks: str, neither: str) -> str:
    """How many answers are right, and how much of the attention lies where it is to.

    Args:
        view: Of one arm, with the means of its test errors.
        answers: What is said of a percentage of right answers.
        looks: What is said of a percentage of attention.
        neither: What is said where neither is known.
    """
    (arm,) = view.arms
    errors = view.means.filter(arm=arm).drop_nulls("mean")
    shares = alignment_share.means(view.grid, stage="end").filter(arm=arm).drop_nulls("mean")
    parts = [answers.format(100 * (1 - error)) for error in errors["mean"]]
    parts += [looks.format(100 * share) for share in shares["mean"]]
    return f"{capitalised(with_article(arm))} {' and '.join(parts) or neither}"


def looks_values(view: View, border: str, answers: str, looks: str, num_words: int) -> str:
    """What is inside the border, whether words are cut, and the shares of wrong answers and of attention, so named."""
    errors, shares = view.means.drop_nulls("mean"), alignment_share.means(view.grid, stage="end")
    longest = max(of_first_seed(view.grid, "attention")["output_position"])
    return where_true(
        {
            f"Inside the border: {border}.": view.rows["aligned"].any(),
            f"Cut after {num_words} words.": longest > num_words,
            f"Share of wrong {answers} over {seeds_of(errors)} with {INTERVAL}: {listed(view, errors)}.": errors.height,
            f"Share of {looks}: {listed(view, shares)}.": shares.height,
        }
    )


def _draw_captions(view: View) -> Figure:
    """Draw a row for each image: the image, then the image under a veil for each word."""
    written, true = (pl.col(side).fill_null("–").replace("", "–") for side in ("written", "true"))
    title = pl.when(written == true).then(written).otherwise(pl.format("{} ≠ {}", written, true))
    rows = view.rows.with_columns(title=title.map_elements(legible, return_dtype=pl.String))
    return captioned_images(view, rows, dict.fromkeys(rows["example"], "image"))


def captioned_images(view: View, rows: pl.DataFrame, heads: Mapping[int, str]) -> Figure:
    """Draw a row for each image: the image, then the image under a veil for each word.

    Args:
        view: Of the figure.
        rows: Weights, with the columns `example`, `output_position`, `source_position`, `aligned` and `title`.
        heads: What stands above each image, by example.
    """
    examples, inputs = rows["example"].unique(maintain_order=True).to_list(), inputs_of(view.grid)
    images = {example: as_grid(inputs.filter(example=example), "row", "column", "brightness") for example in examples}
    num_columns = 1 + max(rows["output_position"])
    width = WIDTH / num_columns - 0.1
    height = 0.35 + max(width * image.shape[0] / image.shape[1] for image in images.values())
    figure, axes = canvas(view.title, len(examples), num_columns, 0.5 + height * len(examples))
    for row, example in zip(axes, examples, strict=True):
        words = rows.filter(example=example).partition_by("output_position", maintain_order=True)
        for ax in row:
            ax.set_visible(False)
        for ax, word in zip(row, [None, *words], strict=False):
            _draw_word(ax, images[example], word)
        row[0].set_title(heads[example], fontsize=7.5, fontweight="normal", parse_math=False)
    return figure


def _draw_word(ax: Axes, image: np.ndarray[Any, Any], word: pl.DataFrame | None) -> None:
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
    ax.set_title(word["title"][0], fontsize=7.5, parse_math=False)


def cells_of(num_cells: int, aspect: float) -> tuple[int, int]:
    """Return the rows and columns of a grid of `num_cells` over an image that is `aspect` times as high as wide.

    The cells are as square as their number allows.
    """
    divisors = (rows for rows in range(1, num_cells + 1) if num_cells % rows == 0)
    rows = min(divisors, key=lambda rows: abs(math.log(rows * rows / num_cells / aspect)))
    return rows, num_cells // rows


captions = Pictures(
    name="captions",
    rows=_captions,
    means=lambda view: test_error.means(view.grid),
    picture=_draw_captions,
    title=lambda view: looks_finding(
        view,
        "writes {:.0f} % of captions exactly right",
        "has {:.0f} % of its attention inside the right place",
        "looks at images while it writes",
    ),
    about=lambda view: (
        f"The first test images of {{where}} and the words of {with_article(view.arms[0])} ({WHOSE}), free-running; "
        "where one is wrong, the true one follows ≠. The clearer a cell, the greater its weight while the decoder is "
        "teacher-forced, relative to the panel's greatest."
    ),
    values=lambda view: looks_values(
        view, "where the object of the true word is", "captions", "attention inside the known place", MAX_WORDS
    ),
    not_ok=NOT_SHOWN,
)


def _frames(grid: Grid) -> pl.DataFrame:
    """Return the pixels of two examples of each arm, of frames evenly spaced."""
    pixels = _all_frames(grid)
    examples, frames = pixels["example"].unique().sort().head(2), pixels["frame"].unique().sort()
    chosen = pick_evenly({frame: float(frame) for frame in frames}, MAX_FRAMES)
    rows = pixels.filter(pl.col("example").is_in(examples.to_list()), pl.col("frame").is_in(chosen))
    keys = ["example", "image", "frame", "row", "column"]
    return rows.sort(grid.rank(), *keys).select("arm", "seed", *keys, "brightness")


def _all_frames(grid: Grid) -> pl.DataFrame:
    """Return the pixels of arms that reconstruct."""
    pixels = of_first_seed(grid, "images")
    return pixels.filter((pl.col("image") == "reconstruction").any().over("arm"))


def _reconstructions_finding(view: View) -> str:
    """The error of reconstruction as a share of the baseline's, of the best arm and the worst."""
    known = ranked(view.means)
    if known.is_empty():
        return f"Reconstructions of {join_first([with_article(arm) for arm in view.shown])}; no baseline is known"
    best, worst = ((with_article(known["arm"][end]), f"{100 * known['mean'][end]:.3g} %") for end in (0, -1))
    finding = f"Reconstructions by {best[0]} leave {best[1]} of the baseline's error"
    return finding if known.height == 1 else f"{finding}, by {worst[0]} {worst[1]}"


def _reconstructions_values(view: View) -> str:
    known, num_shown = view.means.drop_nulls("mean"), view.rows["frame"].n_unique()
    num_frames = _all_frames(view.grid)["frame"].n_unique()
    share = f"Test loss as a share of the baseline's, geometric mean over {seeds_of(known)} with {INTERVAL}"
    return where_true(
        {
            f"{num_shown} of {num_frames} frames are shown, evenly spaced.": num_shown < num_frames,
            f"{share}: {listed(view, known)}.": known.height,
        }
    )


def _draw_reconstructions(view: View) -> Figure:
    """Draw for each example the frames of the input, and below them those of each arm."""
    examples, frames = (view.rows[column].unique().sort().to_list() for column in ("example", "frame"))
    kinds = [(view.shown[0], "input", "input"), *((arm, "reconstruction", name_of(arm)) for arm in view.shown)]
    strips = [(example, *kind) for example in examples for kind in kinds]
    side = (WIDTH - 0.8) / len(frames) * (view.rows["row"].n_unique() / view.rows["column"].n_unique())
    figure, axes = canvas(view.title, len(strips), len(frames), 0.6 + side * len(strips))
    inputs = view.of_shown(view.rows).filter(image="input")["brightness"].to_numpy()
    style: dict[str, Any] = {"cmap": "Greys", "vmin": inputs.min(), "vmax": inputs.max(), "interpolation": "nearest"}
    for row, (example, arm, image, label) in zip(axes, strips, strict=True):
        strip = view.rows.filter(arm=arm, example=example, image=image)
        for ax, frame in zip(row, frames, strict=True):
            ax.imshow(as_grid(strip.filter(frame=frame), "row", "column", "brightness"), **style)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
        row[0].set_ylabel(textwrap.fill(label, 14), rotation=0, ha="right", va="center", fontsize=7.5)
    for ax, frame in zip(axes[0], frames, strict=True):
        ax.set_title(f"frame {frame}", fontweight="normal", fontsize=7.5)
    return figure


reconstructions = Pictures(
    name="reconstructions",
    rows=_frames,
    means=lambda view: test_loss_over_baseline.natural(test_loss_over_baseline.means(view.grid)),
    picture=_draw_reconstructions,
    most=3,
    rank=(lambda view: test_loss_over_baseline.by_arm(view.grid), "test loss"),
    title=_reconstructions_finding,
    about=f"The first test sequences of {{where}}, and what the decoder makes of the encoder's code: {WHOSE}. All on "
    "one scale of brightness, that of the input.",
    values=_reconstructions_values,
    not_ok=NOT_SHOWN,
)


_TEXT = ["arm", "seed", "example", "sequence"]


def drawn_texts(view: View) -> pl.DataFrame:
    """Return the texts of each arm's first examples, whole: `arm`, `seed`, `example`, `sequence`, `text`.

    A text is its tokens put together, words with gaps, with the signs of `legible` for what the font lacks.
    """
    rows = view.of_shown(view.rows)
    first = rows.filter(pl.col("example").rank("dense").over("arm") <= samples.most // max(1, len(view.shown)))
    gap = "" if are_letters(first["token"]) else " "
    texts = first.sort("position").group_by(_TEXT).agg(text=pl.col("token").str.join(gap))
    legibly = pl.col("text").map_elements(legible, return_dtype=pl.String)
    prompt_first = pl.col("sequence") != "prompt"
    return (
        texts.with_columns(legibly).sort(view.grid.rank(), "example", prompt_first, "sequence").select(*_TEXT, "text")
    )


def _samples_finding(view: View) -> str:
    """Which text of the arm with the lowest test loss repeats itself most, and which least."""
    losses = view.of_shown(view.means).sort("mean", nulls_last=True, maintain_order=True)
    variety = distinct_runs.means(view.grid, ["arm", "sequence"])
    found = ranked(variety.filter(arm=losses["arm"][0]))
    if found.is_empty():
        return f"What {join_first([with_article(arm) for arm in view.shown])} write after a prompt"
    unit = "characters" if are_letters(view.rows["token"]) else "tokens"
    least, most = found.row(0, named=True), found.row(-1, named=True)
    name, share = with_article(losses["arm"][0]), f"{100 * least['mean']:.0f} % of runs of {RUN} {unit} are distinct"
    if found.height == 1:
        return f"In the {least['sequence']} text of {name} {share}"
    finding = f"In the texts of {name} {least['sequence']} repeats most: {share}"
    return f"{finding}, against {100 * most['mean']:.0f} % in {most['sequence']}"


def _samples_values(view: View) -> str:
    losses, limit = view.means.drop_nulls("mean"), LETTERS * MAX_LINES
    seeds = seeds_of(distinct_runs.means(view.grid, ["arm", "sequence"]))
    mean = f"geometric mean over {seeds_of(losses)} with {INTERVAL}"
    loss = f"Test loss in nats per token, {mean}: {listed(view, losses, digits=3)}."
    return where_true(
        {
            f"Texts are cut after {limit} letters.": (drawn_texts(view)["text"].str.len_chars() > limit).any(),
            f"Distinct runs are counted within a text; means over texts and {seeds}.": True,
            loss: losses.height,
        }
    )


def _draw_samples(view: View) -> Figure:
    """Draw a block of texts for each arm and example, the prompt first."""
    groups = drawn_texts(view).partition_by("arm", "example", maintain_order=True)
    blocks = [[(row["sequence"], _lines(row["text"])) for row in group.to_dicts()] for group in groups]
    heights = [sum(len(lines) + 0.6 for _, lines in block) for block in blocks]
    total = 0.4 + 0.3 * len(blocks) + _LINE * sum(heights)
    figure, axes = canvas(view.title, len(blocks), 1, total, height_ratios=heights)
    for ax, group, block, height in zip(axes[:, 0], groups, blocks, heights, strict=True):
        _draw_block(ax, block, height)
        ax.set_title(name_of(group["arm"][0]))
    label_panels(list(axes[:, 0]))
    return figure


def _draw_block(ax: Axes, block: list[tuple[str, list[str]]], height: float) -> None:
    """Draw texts below one another, with the name of each at its left; the axes are as many lines high."""
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(height, 0))
    line = 0.0
    style: dict[str, Any] = {"fontsize": 7, "va": "top", "parse_math": False, "in_layout": False}
    for sequence, lines in block:
        ax.text(0, line, textwrap.shorten(sequence, 25, placeholder="…"), **style)
        ax.text(0.225, line, "\n".join(lines), family=FONTS, **style)
        line += len(lines) + 0.6


def _lines(text: str) -> list[str]:
    """Return a text in lines of equal length, the last of them ending in «…» where the text is cut."""
    lines = [text[start : start + LETTERS] for start in range(0, len(text), LETTERS)] or [""]
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1][:-1]}…"]


samples = Pictures(
    name="samples",
    rows=lambda grid: prompted(of_first_seed(grid, "tokens")),
    means=lambda view: test_loss.natural(test_loss.means(view.grid)),
    picture=_draw_samples,
    most=3,
    rank=(lambda view: test_loss.by_arm(view.grid), "test loss"),
    title=_samples_finding,
    about=f"The beginning of test sequences of {{where}}, and what follows it by each way of choosing tokens: {WHOSE}. "
    "⏎ is a line break.",
    values=_samples_values,
    not_ok=NOT_SHOWN,
)
