"""Gradients of two kinds of arms against lag: the panels before and after training, and the contrast of the kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.stages import STAGES
from pipeline.figures.style import INK, banded, canvas, decades, handle_of, label_panels, legend_below, looks_of
from pipeline.quantities import mean_interval, paired_difference

MAX_SHADED = 4
"""So many arms have full bands around their lines."""


def contrast(frame: pl.DataFrame, value: str, first: Sequence[str]) -> pl.DataFrame:
    """Return the mean over seeds of two kinds of arms, a seed's value being its mean over the arms of the kind.

    Args:
        frame: Columns `arm`, `seed` and `value`; a row whose value is not finite is left out.
        value: The column to compare.
        first: The arms of the one kind; all others are of the other.

    Returns:
        A row for each kind that has values: `kind` («first», «other»), `mean`, `low`, `high`, …, and `apart`, whether
        the difference of the two, paired by seed, has an interval without zero.
    """
    kind = pl.when(pl.col("arm").is_in(first)).then(pl.lit("first")).otherwise(pl.lit("other"))
    finite = frame.filter(pl.col(value).is_finite()).with_columns(kind=kind)
    by_seed = finite.group_by("kind", "seed", maintain_order=True).agg(pl.col(value).mean())
    difference = paired_difference(by_seed, value, "kind", "first", "other")
    apart = (difference["low"] > 0) | (difference["high"] < 0)
    established = bool(apart.fill_null(value=False).any())
    return mean_interval(by_seed, value, ["kind"]).with_columns(apart=pl.lit(established)).sort("kind")


def panels(
    heading: str, drawn: pl.DataFrame, arms: Sequence[str], labels: Mapping[str, str], *, last: str, reference: str
) -> Figure:
    """Draw gradient norms against lag in two panels on one log axis: at initialisation and at the end of training.

    Args:
        heading: The figure's title.
        drawn: Columns `stage`, `arm`, `lag`, and `mean`, `low`, `high` of log10 norm.
        arms: Of the grid, in order.
        labels: Of the arms that are in the legend.
        last: What the lag is counted from.
        reference: What the norm is relative to.
    """
    looks = looks_of(arms)
    figure, axes = canvas(heading, 1, 2, 3.3, sharey=True)
    for ax, (stage, name) in zip(axes[0], STAGES.items(), strict=True):
        mine = drawn.filter(stage=stage)
        for arm, look in looks.items():
            banded(ax, "lag", mine.filter(arm=arm), look, shade=0.18 if len(arms) <= MAX_SHADED else 0.08)
        if mine.is_empty():
            ax.text(0.5, 0.5, "no replica finished", transform=ax.transAxes, ha="center")
        ax.axhline(0, color=INK, linewidth=0.6)
        ax.set_title(name)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.set_xlabel(f"lag k (timesteps before {last})")
    axes[0, 0].set_ylabel(f"gradient relative to {reference}")
    decades(axes[0, 0])
    legend_below(figure, [handle_of(looks[arm]) for arm in labels], list(labels.values()))
    label_panels(axes[0])
    return figure
