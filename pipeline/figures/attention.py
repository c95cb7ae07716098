"""Figures of attention: where a decoder looks while it writes, and how attention sharpens in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.findings import NOTHING_FINISHED, by_sign, ranked, where_true
from pipeline.figures.frame import NOT_SHOWN, Axis, Lines, Pictures, View, listed
from pipeline.figures.pictures import WHOSE, are_letters, as_grid, as_label, of_first_seed, outline
from pipeline.figures.style import canvas, label_panels
from pipeline.quantities import Grid
from pipeline.quantities.attention import (
    alignment_error,
    alignment_error_over_training,
    attention_entropy,
    attention_entropy_over_training,
)
from pipeline.quantities.words import INTERVAL, capitalised, join_first, name_of, number, seeds_of, with_article

MAX_SOURCE, MAX_OUTPUT = 58, 24
"""Tokens that have room on the axes: side by side in one row of panels, and from top to bottom in one panel."""

_LETTERS = 88
"""Letters that have room side by side in one row of panels."""


def _traced(grid: Grid) -> pl.DataFrame:
    """Return the weights of the replicas that are shown, with the tokens `output` and `source` beside them."""
    weights, tokens = of_first_seed(grid, "attention"), of_first_seed(grid, "tokens")
    sides = {"output": "target", "source": "source"}
    written = tokens.filter(sequence="source").select("arm", "seed", "example").unique()
    weights = weights.join(written, on=written.columns)
    for side, sequence in sides.items():
        position, token = pl.col("position").alias(f"{side}_position"), pl.col("token").alias(side)
        texts = tokens.filter(sequence=sequence).select(*written.columns, position, token)
        weights = weights.join(texts, on=[*written.columns, f"{side}_position"], how="left")
    keys = ["arm", "seed", "step", "example", "output_position", "source_position"]
    rows = weights.select(*keys, "weight", pl.col("aligned").fill_null(value=False), *sides)
    return rows.sort(grid.rank(), "example", "output_position", "source_position")


def drawn_weights(view: View) -> pl.DataFrame:
    """Return the weights that are drawn: of some arms and examples, as far as there is room."""
    rows = view.of_shown(view.rows)
    rows = rows.filter(pl.col("example").is_in(_chosen_examples(rows)))
    return rows.filter(pl.col("source_position") <= MAX_SOURCE, pl.col("output_position") <= MAX_OUTPUT)


def _chosen_examples(rows: pl.DataFrame) -> list[int]:
    """Return the examples whose known alignment is least and most in the order of the source; one, if both are long."""
    output, source = (pl.col(f"{side}_position").filter("aligned") for side in ("output", "source"))
    order = rows.group_by("example").agg(order=pl.corr(output, source).round(6).fill_nan(None))
    examples = order.sort("order", "example", nulls_last=True)["example"]
    both = sorted({examples[0], examples[-1]})
    has_room = sum(_length(rows, example, "source_position") for example in both) <= MAX_SOURCE
    return both if has_room else [examples[0]]


def _length(rows: pl.DataFrame, example: int, position: str) -> int:
    return int(rows.filter(example=example)[position].n_unique())


def _maps_finding(view: View) -> str:
    """For which share of output tokens the largest weight lies inside the known alignment, after training."""
    errors = ranked(view.means)
    unit = "characters" if are_letters(view.rows["output"].drop_nulls()) else "tokens"
    shares = [f"{100 * (1 - error):.0f} %" for error in errors["mean"]]
    if not shares:
        return f"Where {join_first([with_article(arm) for arm in view.arms])} look in the source; no alignment is known"
    if len(shares) == 1:
        name = capitalised(with_article(errors["arm"][0]))
        return f"{name} looks inside the known alignment for {shares[0]} of {unit}"
    ends = [f"{share} ({name_of(arm)})" for share, arm in zip(shares, errors["arm"], strict=True)]
    some = join_first(ends) if len(ends) <= 3 else f"{ends[-1]} to {ends[0]}"
    return f"The largest weight lies inside the known alignment for {some} of {unit}"


def _maps_values(view: View) -> str:
    """Which examples are shown of those traced, what the border is, whether they are cut, and who has no panel."""
    drawn, known = drawn_weights(view), view.rows["aligned"].any()
    num_traced, num_drawn = view.rows["example"].n_unique(), drawn["example"].n_unique()
    one = num_drawn == 1
    which, come = ("least", "comes first") if one else ("least and most", "come first and last")
    rule = f"whose known alignment is {which} in the order of the source" if known else f"that {come}"
    shown = "that one is shown" if one else "those are shown"
    whole = view.rows.join(drawn.select("arm", "example").unique(), on=["arm", "example"])
    attends = set(view.arms)
    without = [name_of(arm) for arm in view.grid.arms if arm not in attends]
    share = "Share of aligned output tokens whose largest weight lies outside, mean over"
    return where_true(
        {
            f"Of {num_traced} test sequences {shown} {rule}.": num_drawn < num_traced,
            "Inside the border: the known alignment.": known,
            f"Cut after {MAX_SOURCE} source and {MAX_OUTPUT} output tokens.": whole.height > drawn.height,
            f"{share} {seeds_of(view.means)} with {INTERVAL}: {listed(view, view.means)}.": view.means.height,
            f"Without attention, so without a panel: {join_first(without) if without else ''}.": without,
        }
    )


def _draw_maps(view: View) -> Figure:
    """Draw a row of panels for each arm, a column for each example, with one colour bar."""
    drawn, arms = drawn_weights(view), view.shown
    examples = sorted(drawn["example"].unique())
    widths = [_length(drawn, example, "source_position") for example in examples]
    height = max(0.9, 0.12 * max(_length(drawn, example, "output_position") for example in examples))
    total = 0.9 + (height + 0.35) * len(arms)
    figure, axes = canvas(view.title, len(arms), len(examples), total, width_ratios=widths)
    for row, arm in zip(axes, arms, strict=True):
        for ax, example in zip(row, examples, strict=True):
            _draw_map(ax, drawn.filter(arm=arm, example=example), _LETTERS // sum(widths))
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


def _draw_map(ax: Axes, rows: pl.DataFrame, room: int) -> None:
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


attention_maps = Pictures(
    name="attention_maps",
    rows=_traced,
    means=lambda view: alignment_error.means(view.grid, stage="end"),
    picture=_draw_maps,
    shows=drawn_weights,
    most=3,
    rank=(
        lambda view: {arm: 1 - mean for arm, mean in view.means.drop_nulls("mean").select("arm", "mean").iter_rows()},
        "alignment error",
    ),
    title=_maps_finding,
    about="Weight on each source token (left to right) while the true output is written (top to bottom), on {where}: "
    f"{WHOSE}.",
    values=_maps_values,
    not_ok=NOT_SHOWN,
)


def _training_finding(view: View) -> str:
    """In which arms training sharpens attention, seed by seed, and where the alignment error ends."""
    rows = attention_entropy.of(view.grid)
    differences = [
        attention_entropy.difference(rows.filter(arm=arm), "end", "initialisation", "stage").with_columns(
            arm=pl.lit(arm)
        )
        for arm in view.one_by_one
    ]
    changes = pl.concat(differences).drop_nulls("mean")
    if changes.is_empty():
        return NOTHING_FINISHED
    if changes["num_seeds"].max() == 1:
        arm, change = with_article(changes["arm"][0]), number(changes["mean"][0], 2)
        return f"One seed, no interval: the entropy of {arm}'s weights changes by {change} nats"
    words = {"below": "sharpens the attention of {arms}", "above": "widens the attention of {arms}"}
    words |= {"unsure": "does not measurably change the attention of {arms}"}
    finding = f"{view.of_few}Training {by_sign(changes, words).replace('; ', '; it ')}"
    errors = ranked(alignment_error.means(view.grid, stage="end"))
    ends = [f"{100 * row['mean']:.1f} % ({name_of(row['arm'])})" for row in errors.iter_rows(named=True)]
    if not ends:
        return finding
    some = f"{ends[0]} to {ends[-1]}" if len(ends) > 1 else f"{100 * errors['mean'][0]:.1f} %"
    return f"{finding}; the alignment error ends at {some}"


def _training_values(view: View) -> str:
    errors = alignment_error.means(view.grid, stage="end")
    share = "Alignment error: the share of output tokens with a known alignment whose largest weight lies outside it"
    return f"{share}; at the end {listed(view, errors)}." if errors.height else ""


attention_over_training = Lines(
    name="attention_over_training",
    rows={"attention_entropy_nats": attention_entropy_over_training, "alignment_error": alignment_error_over_training},
    x=Axis(label="training step", column="step", scale="steps"),
    y={
        "attention_entropy_nats": Axis(label="entropy in nats", limits=(0, None)),
        "alignment_error": Axis(label="alignment error in %", scale="percent", limits=(0, None)),
    },
    across=("quantity", {"attention_entropy_nats": "Entropy of the weights", "alignment_error": "Alignment error"}),
    title=_training_finding,
    about="Attention over training (logarithmic axis) on the probe batch of {where}, what a decoder writes being "
    "teacher-forced: mean over {seeds} with {interval}; a replica that stopped keeps its last measurement.",
    values=_training_values,
)
