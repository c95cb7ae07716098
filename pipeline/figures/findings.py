"""What a title may claim: rules that state a difference only where its interval over seeds allows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.quantities import Grid, Quantity
from pipeline.quantities.attention import attending
from pipeline.quantities.words import join_first, with_article

STEADY = -math.log10(0.99)
"""A slope in decades per timestep below which, with its whole interval, a gradient keeps its size to 1 %."""

NOTHING_FINISHED = "Inconclusive: no replica finished training"

Row = dict[str, Any]
Text = Callable[[float], str]


def best_and_next(quantity: Quantity, rows: pl.DataFrame, noun: str, text: Text, *, lead: str) -> str:
    """Return the arm with the lowest mean and the next one, and whether it is ahead in a comparison paired by seed.

    Args:
        quantity: What the rows are of.
        rows: One per arm and seed.
        noun: What is compared, as «test error».
        text: A mean as text, with its unit; of logarithms the geometric mean.
        lead: How a finding begins: «Fewest test errors».
    """
    known = ranked(quantity.natural(quantity.summary(rows)))
    if known.is_empty():
        return NOTHING_FINISHED
    best, *others = (f"{with_article(row['arm'])} ({text(row['mean'])})" for row in known.iter_rows(named=True))
    if not others:
        return f"Only {best} has a {noun}"
    ahead = quantity.difference(rows, known["arm"][0], known["arm"][1]).row(0, named=True)
    if ahead["num_seeds"] <= 1:
        return f"One pair of seeds, no interval: {best} against {others[0]} in {noun}"
    if ahead["high"] is not None and ahead["high"] < 0:
        return f"{lead}: {best}, ahead of {others[0]} in a comparison paired by seed"
    return f"Inconclusive: no difference in {noun} is established between {best} and {others[0]}"


def extremes(quantity: Quantity, rows: pl.DataFrame) -> tuple[Row, Row, bool] | None:
    """Return the arms with the lowest and highest mean, and whether their difference, paired by seed, is established.

    None where no arm has a mean; the same arm twice, and no difference, where only one has.

    Args:
        quantity: What the rows are of.
        rows: One per arm and seed.
    """
    known = ranked(quantity.summary(rows))
    if known.is_empty():
        return None
    low, high = known.row(0, named=True), known.row(-1, named=True)
    if known.height == 1:
        return low, high, False
    end = quantity.difference(rows, low["arm"], high["arm"])["high"][0]
    return low, high, end is not None and end < 0


def by_sign(
    means: pl.DataFrame,
    words: Mapping[str, str],
    *,
    name: Callable[[Row], str] = lambda row: with_article(row["arm"]),
    bounds: tuple[float, float] = (0.0, 0.0),
    most: int = 3,
) -> str:
    """Return arms grouped by which side their whole interval lies on: «shrinks in the LSTM; grows in the GRU».

    Args:
        means: A summary by arm, in the order in which arms are named.
        words: What to say of arms `below` and `above` the bounds, `within` them, and `unsure`, where an interval
            reaches over one; `{arms}` is filled in. A side without words counts as unsure.
        name: How an arm is named.
        bounds: The lower and the upper bound.
        most: So many arms of a side are named, the others counted.
    """
    sides: dict[str, list[str]] = {side: [] for side in words}
    for row in means.drop_nulls("mean").iter_rows(named=True):
        sides[_side(row, bounds, words)].append(name(row))
    return "; ".join(words[side].format(arms=join_first(arms, most)) for side, arms in sides.items() if arms)


def _side(row: Row, bounds: tuple[float, float], words: Mapping[str, str]) -> str:
    low, high = row["low"], row["high"]
    if low is None or high is None:
        return "unsure"
    found = "below" if high < bounds[0] else "above" if low > bounds[1] else "unsure"
    if low > bounds[0] and high < bounds[1]:
        found = "within"
    return found if found in words else "unsure"


def ranked(means: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have a mean, the lowest first."""
    return means.drop_nulls("mean").sort("mean", maintain_order=True)


def contrast(quantity: Quantity, rows: pl.DataFrame, first: Sequence[str]) -> pl.DataFrame:
    """Return the means of two kinds of arms over seeds, a seed's value being its mean over the arms of the kind.

    Args:
        quantity: What the rows are of.
        rows: One per arm and seed; a value that is not finite is left out.
        first: The arms of the one kind; all others are of the other.

    Returns:
        A row per kind that has values: `kind` («first», «other»), `mean`, `low`, `high`, ..., and `apart`, whether the
        difference of the two, paired by seed, has an interval without zero.
    """
    kind = pl.when(pl.col("arm").is_in(first)).then(pl.lit("first")).otherwise(pl.lit("other"))
    finite = rows.filter(pl.col("value").is_finite()).with_columns(kind=kind)
    by_seed = finite.group_by("kind", "seed", maintain_order=True).agg(pl.col("value").mean())
    difference = quantity.difference(by_seed, "first", "other", "kind")
    apart = ((difference["low"] > 0) | (difference["high"] < 0)).fill_null(value=False).any()
    return quantity.summary(by_seed, ["kind"]).with_columns(apart=pl.lit(apart)).sort("kind")


def with_arm(arm: str, grid: Grid) -> str:
    """Return «with dot»; «without attention» of the one arm that has none, beside others that have."""
    others = attending(grid)
    is_alone = len(others) == len(grid.arms) - 1 > 0 and arm not in others
    return "without attention" if is_alone else f"with {with_article(arm)}"


def where_true(sentences: Mapping[str, object]) -> str:
    """Return the sentences whose condition holds, one after the other."""
    return " ".join(sentence for sentence, holds in sentences.items() if holds)
