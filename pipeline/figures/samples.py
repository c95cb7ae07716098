"""Text that a language model writes after a prompt, by how each token is chosen."""

from __future__ import annotations

import textwrap
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.examples import WHOSE, of_first_seed, of_runs, where
from pipeline.figures.glyphs import are_letters, legible
from pipeline.figures.stages import chosen_told, interval, ranked, spread
from pipeline.figures.style import canvas, label_panels, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval
from pipeline.results import FINISHED

MAX_ARMS = 3
"""Blocks of text, too: of fewer arms there are more prompts."""

LETTERS, MAX_LINES = 82, 3
"""Letters of a line; lines of a text."""

RUN = 4
"""Tokens of a run: the more of a text's runs are distinct, the less it repeats itself."""

FONTS = ["DejaVu Sans Mono", "DejaVu Sans"]
"""The second has what the first lacks."""

_LINE = 0.135
"""Height of a line in inches."""

_TEXT = ["arm", "seed", "example", "sequence"]


def applies(tables: GridTables) -> bool:
    """Return whether a prompt was continued."""
    return not table(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the texts of each arm's first examples, whole: `arm`, `seed`, `example`, `sequence`, `text`.

    A text is its tokens put together, words with gaps, with the signs of `legible` for what the font lacks.
    """
    arms = _shown(tables)
    rows = _written(of_first_seed(tables, tables.tokens)).filter(pl.col("arm").is_in(arms))
    first = rows.filter(pl.col("example").rank("dense").over("arm") <= MAX_ARMS // max(1, len(arms)))
    gap = "" if are_letters(first["token"]) else " "
    texts = first.sort("position").group_by(_TEXT).agg(text=pl.col("token").str.join(gap))
    legibly = pl.col("text").map_elements(legible, return_dtype=pl.String)
    prompt_first = pl.col("sequence") != "prompt"
    texts = texts.with_columns(legibly).sort(ranked(tables.arms), "example", prompt_first, "sequence")
    return texts.select(*_TEXT, "text")


def variety(tables: GridTables) -> pl.DataFrame:
    """Return which share of a text's runs of tokens are distinct: mean over seeds, with its interval, by arm, sequence.

    Of texts of all examples; a text shorter than a run has none.
    """
    sound = tables.at_longest(tables.tokens).filter(pl.col("status").is_in(FINISHED))
    last = sound.filter(pl.col("step") == pl.col("step").max().over("arm", "seed"))
    texts = _written(last).filter(pl.col("sequence") != "prompt").sort(ranked(tables.arms), *_TEXT[1:], "position")
    run = pl.concat_str([pl.col("token").shift(-k).over(_TEXT) for k in range(RUN)], separator="\0")
    runs = texts.with_columns(run=run).drop_nulls("run").group_by(_TEXT, maintain_order=True)
    shares = runs.agg(share=pl.col("run").n_unique() / pl.len())
    by_seed = shares.group_by("arm", "seed", "sequence", maintain_order=True).agg(pl.col("share").mean())
    return mean_interval(by_seed, "share", ["arm", "sequence"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return which text of the arm with the lowest test loss repeats itself most, and which least."""
    shown = _shown(tables)
    losses = of_runs(tables, pl.col("test_loss")).filter(pl.col("arm").is_in(shown)).sort("mean", nulls_last=True)
    found = variety(tables).filter(arm=losses["arm"][0]).drop_nulls("mean").sort("mean", maintain_order=True)
    if found.is_empty():
        return f"What {few([the(arm) for arm in shown])} write after a prompt"
    unit = "characters" if are_letters(_written(tables.tokens)["token"]) else "tokens"
    least, most = found.row(0, named=True), found.row(-1, named=True)
    name, share = the(losses["arm"][0]), f"{100 * least['mean']:.0f} % of runs of {RUN} {unit} are distinct"
    if found.height == 1:
        return f"In the {least['sequence']} text of {name} {share}"
    said = f"{name[0].upper()}{name[1:]} repeats itself most in its {least['sequence']} text: {share}"
    return f"{said}, against {100 * most['mean']:.0f} % in {most['sequence']}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, of which seed, how good the models are, and what is cut."""
    drawn, losses = table(tables), of_runs(tables, pl.col("test_loss")).drop_nulls("mean")
    told = "; ".join(f"{name_of(row['arm'])} {interval(row, 3)}" for row in losses.iter_rows(named=True))
    loss = f" Test loss in nats per token, mean over {seeds_of(losses)} with {INTERVAL}: {told}."
    long = drawn.filter(pl.col("text").str.len_chars() > LETTERS * MAX_LINES)
    cut = f" Texts are cut after {LETTERS * MAX_LINES} letters." if long.height else ""
    known = [arm for arm in tables.arms if arm in _written(of_first_seed(tables, tables.tokens))["arm"]]
    return (
        f"The beginning of test sequences of {where(tables)}, and what follows it by each way of choosing tokens: "
        f"{WHOSE}. ⏎ is a line break.{cut} Distinct runs are counted within a text; means over texts and "
        f"{seeds_of(variety(tables))}."
        f"{loss if told else ''}{chosen_told(_shown(tables), known, 'test loss')} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}{left_out(losses)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a block of texts for each arm and example, the prompt first."""
    groups = table(tables).partition_by("arm", "example", maintain_order=True)
    blocks = [[(row["sequence"], _lines(row["text"])) for row in group.to_dicts()] for group in groups]
    heights = [sum(len(lines) + 0.6 for _, lines in block) for block in blocks]
    total = 0.4 + 0.3 * len(blocks) + _LINE * sum(heights)
    figure, axes = canvas(title(tables), len(blocks), 1, total, height_ratios=heights)
    for ax, group, block, height in zip(axes[:, 0], groups, blocks, heights, strict=True):
        _block(ax, block, height)
        ax.set_title(name_of(group["arm"][0]))
    label_panels(list(axes[:, 0]))
    return figure


def _block(ax: Axes, block: list[tuple[str, list[str]]], height: float) -> None:
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


def _written(tokens: pl.DataFrame) -> pl.DataFrame:
    """Return the tokens of prompts and of what follows them."""
    prompted = tokens.filter(sequence="prompt").select("arm", "seed", "step", "example").unique()
    return tokens.join(prompted, on=prompted.columns, maintain_order="left")


def _shown(tables: GridTables) -> list[str]:
    written = _written(of_first_seed(tables, tables.tokens))
    losses = dict(of_runs(tables, pl.col("test_loss")).select("arm", "mean").iter_rows())
    return spread({arm: losses.get(arm) for arm in tables.arms if arm in written["arm"]}, MAX_ARMS)
