"""Where a decoder looks in its source while it writes, beside the alignment that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.examples import WHOSE, as_grid, at_end, of_first_seed, outline, where
from pipeline.figures.glyphs import are_letters, as_label
from pipeline.figures.stages import chosen_told, interval, ranked, spread
from pipeline.figures.style import canvas, label_panels, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables

MAX_ARMS = 3
MAX_SOURCE, MAX_OUTPUT = 58, 24
"""Tokens that have room on the axes: side by side in one row of panels, and from top to bottom in one panel."""

_LETTERS = 88
"""Letters that have room side by side in one row of panels."""


def applies(tables: GridTables) -> bool:
    """Return whether attention to tokens was traced."""
    return not _traced(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: a weight for each arm, example, output and source position, as far as there is room.

    Columns `arm`, `seed`, `step`, `example`, `output_position`, `source_position`, `weight`, `aligned`, and the tokens
    `output` and `source`.
    """
    rows = _traced(tables).filter(pl.col("arm").is_in(_shown(tables)))
    rows = rows.filter(pl.col("example").is_in(_chosen_examples(rows)))
    return rows.filter(pl.col("source_position") <= MAX_SOURCE, pl.col("output_position") <= MAX_OUTPUT)


def title(tables: GridTables) -> str:
    """Return for which share of output tokens the largest weight lies inside the known alignment, after training."""
    traced = _traced(tables)
    arms = [arm for arm in tables.arms if arm in traced["arm"]]
    inside = _inside(tables)
    unit = "characters" if are_letters(traced["output"].drop_nulls()) else "tokens"
    if inside.is_empty():
        return f"Where {few([the(arm) for arm in arms])} look in the source; no alignment is known"
    shares = {row["arm"]: f"{100 * row['share']:.0f} %" for row in inside.iter_rows(named=True)}
    told = [f"{share} ({name_of(arm)})" for arm, share in shares.items()]
    if len(told) == 1:
        name = the(inside["arm"][0])
        return f"{name[0].upper()}{name[1:]} looks inside the known alignment for {shares[inside['arm'][0]]} of {unit}"
    said = few(told) if len(told) <= MAX_ARMS else f"{told[-1]} to {told[0]}"
    return f"The largest weight lies inside the known alignment for {said} of {unit}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, of which seed, what the alignment error is over seeds, and what is left out."""
    traced, errors = _traced(tables), at_end(tables, "alignment_error")
    known = [arm for arm in tables.arms if arm in traced["arm"]]
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in errors.iter_rows(named=True))
    share = f" Share of aligned output tokens whose largest weight lies outside, mean over {seeds_of(errors)} with "
    without = [name_of(arm) for arm in tables.arms if arm not in known]
    return (
        f"Weight on each source token (left to right) while the true output is written (top to bottom), on "
        f"{where(tables)}: {WHOSE}.{_chosen_told(traced, table(tables))}"
        f"{f'{share}{INTERVAL}: {told}.' if told else ''}"
        f"{f' Without attention, so without a panel: {few(without)}.' if without else ''}"
        f"{chosen_told(_shown(tables), known, 'alignment error')} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}"
        f"{left_out(errors)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a row of panels for each arm, a column for each example, with one colour bar."""
    drawn, arms = table(tables), _shown(tables)
    examples = sorted(drawn["example"].unique())
    widths = [_length(drawn, example, "source_position") for example in examples]
    height = max(0.9, 0.12 * max(_length(drawn, example, "output_position") for example in examples))
    total = 0.9 + (height + 0.35) * len(arms)
    figure, axes = canvas(title(tables), len(arms), len(examples), total, width_ratios=widths)
    for row, arm in zip(axes, arms, strict=True):
        for ax, example in zip(row, examples, strict=True):
            _panel(ax, drawn.filter(arm=arm, example=example), _LETTERS // sum(widths))
        row[0].set_title(name_of(arm))
        row[0].set_ylabel("output token")
    for ax in axes[-1]:
        ax.set_xlabel("source token")
    figure.align_xlabels(axes[-1])
    bar = figure.colorbar(axes[0, 0].images[0], ax=axes, aspect=30, pad=0.015)
    bar.outline.set_visible(False)
    bar.set_label("weight")
    label_panels(list(axes[:, 0]))
    return figure


def _panel(ax: Axes, rows: pl.DataFrame, room: int) -> None:
    """Draw one map; where a source token has more letters than have `room`, words stand upright."""
    weights, aligned = (as_grid(rows, "output_position", "source_position", name) for name in ("weight", "aligned"))
    U, S = weights.shape
    ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, extent=(0, S, U, 0), aspect="auto", interpolation="nearest")
    outline(ax, aligned)
    style: dict[str, Any] = {"parse_math": False, "fontsize": 6.5}
    ax.set_xticks(np.arange(S) + 0.5, _labels(rows, "source"), **style)
    ax.set_yticks(np.arange(U) + 0.5, _labels(rows, "output"), **style)
    words = [label for label in ax.get_xticklabels() if len(label.get_text()) > 1]
    for label in words:
        label.set_rotation(90 if max(len(word.get_text()) for word in words) > room else 0)
    ax.tick_params(length=0, pad=2)
    ax.grid(visible=False)


def _labels(rows: pl.DataFrame, side: str) -> list[str]:
    tokens = rows.unique(f"{side}_position").sort(f"{side}_position")[side]
    return [as_label(token or "") for token in tokens]


def _traced(tables: GridTables) -> pl.DataFrame:
    """Return the weights of the replicas that are shown, with the tokens `output` and `source` beside them."""
    weights, tokens = (of_first_seed(tables, frame) for frame in (tables.attention, tables.tokens))
    sides = {"output": "target", "source": "source"}
    written = tokens.filter(sequence="source").select("arm", "seed", "example").unique()
    weights = weights.join(written, on=written.columns)
    for side, sequence in sides.items():
        position, token = pl.col("position").alias(f"{side}_position"), pl.col("token").alias(side)
        texts = tokens.filter(sequence=sequence).select(*written.columns, position, token)
        weights = weights.join(texts, on=[*written.columns, f"{side}_position"], how="left")
    keys = ["arm", "seed", "step", "example", "output_position", "source_position"]
    rows = weights.select(*keys, "weight", pl.col("aligned").fill_null(value=False), *sides)
    return rows.sort(ranked(tables.arms), "example", "output_position", "source_position")


def _inside(tables: GridTables) -> pl.DataFrame:
    """Return the mean `share` of aligned output tokens whose largest weight is inside, by arm, largest first."""
    errors = at_end(tables, "alignment_error").drop_nulls("mean")
    return errors.select("arm", share=1 - pl.col("mean")).sort("share", descending=True, maintain_order=True)


def _shown(tables: GridTables) -> list[str]:
    shares, traced = dict(_inside(tables).iter_rows()), _traced(tables)
    return spread({arm: shares.get(arm) for arm in tables.arms if arm in traced["arm"]}, MAX_ARMS)


def _chosen_examples(rows: pl.DataFrame) -> list[int]:
    """Return the examples whose known alignment is least and most in the order of the source; one, if both are long."""
    output, source = (pl.col(f"{side}_position").filter("aligned") for side in ("output", "source"))
    order = rows.group_by("example").agg(order=pl.corr(output, source).round(6).fill_nan(None))
    examples = order.sort("order", "example", nulls_last=True)["example"]
    both = sorted({examples[0], examples[-1]})
    has_room = sum(_length(rows, example, "source_position") for example in both) <= MAX_SOURCE
    return both if has_room else [examples[0]]


def _chosen_told(traced: pl.DataFrame, drawn: pl.DataFrame) -> str:
    """Return which examples are shown of those traced, what the border is, and whether they are cut."""
    known, num_traced, num_drawn = traced["aligned"].any(), traced["example"].n_unique(), drawn["example"].n_unique()
    which, come = ("least", "first") if num_drawn == 1 else ("least and most", "first and last")
    rule = (
        f"whose known alignment is {which} in the order of the source"
        if known
        else f"that {'comes' if num_drawn == 1 else 'come'} {come}"
    )
    shown = "that one is shown" if num_drawn == 1 else "those are shown"
    some = f" Of {num_traced} test sequences {shown} {rule}." if num_drawn < num_traced else ""
    border = " Inside the border: the known alignment." if known else ""
    whole = traced.join(drawn.select("arm", "example").unique(), on=["arm", "example"])
    cut = f" Cut after {MAX_SOURCE} source and {MAX_OUTPUT} output tokens." if whole.height > drawn.height else ""
    return f"{some}{border}{cut}"


def _length(rows: pl.DataFrame, example: int, position: str) -> int:
    return int(rows.filter(example=example)[position].n_unique())
