"""Figures of how trainings end: errors by arm and kind of token, losses by length, and who solves what."""

from __future__ import annotations

import itertools

import polars as pl

from pipeline.figures.findings import NOTHING_FINISHED, best_and_next, extremes
from pipeline.figures.frame import Axis, Dots, View, listed
from pipeline.quantities import outcomes as quantities
from pipeline.quantities import paired_difference
from pipeline.quantities.outcomes import compares_cells, has_classes
from pipeline.quantities.training import test_error_by_group
from pipeline.quantities.words import capitalised, interval, name_of, number, with_article


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"


def _paired_percentages(view: View) -> str:
    pairs = []
    for first, second in itertools.combinations(view.arms, 2):
        row = paired_difference(view.rows, "value", "arm", first, second).row(0, named=True)
        if row["low"] is not None:
            pairs.append(f"{name_of(first)} minus {name_of(second)} {interval(row, 3, scale=100)}")
    return f"Differences paired by seed, in percentage points: {'; '.join(pairs)}." if pairs else ""


error_by_cell = Dots(
    name="error_by_cell",
    applies=lambda grid: compares_cells(grid) and has_classes(grid),
    rows=quantities.test_error,
    x=Axis(label="test error in %", scale="percent", limits=(0, None)),
    title=lambda view: best_and_next(view.rows, view.means, "test error", _percent, lead="Fewest test errors"),
    about="Share of wrong classes among the test sequences of {dataset} (T = {T}), at each replica's best validation "
    "step: points are seeds, markers means over {seeds} with {interval}.",
    values=_paired_percentages,
    not_ok="diverged and failed ones are not shown",
)


def _error_by_token_finding(view: View) -> str:
    """For which kind of token the best arm differs most from the worst, seed by seed."""
    means = view.means.drop_nulls("mean")
    if means.is_empty():
        return NOTHING_FINISHED
    gaps = means.group_by("group", maintain_order=True).agg(gap=pl.col("mean").max() - pl.col("mean").min())
    group = gaps.sort("gap", descending=True, maintain_order=True)["group"][0]
    if means["arm"].n_unique() == 1:
        worst = means.sort("mean", descending=True, maintain_order=True).row(0, named=True)
        return f"Most errors of {with_article(worst['arm'])} are on {worst['group']} tokens"
    best, worst, is_apart = extremes(view.rows.filter(group=group), means.filter(group=group)) or (None, None, False)
    if best is None or worst is None or not is_apart:
        return "Inconclusive: for no kind of token is a difference between arms established"
    shares = f"{100 * best['mean']:.1f} % against {100 * worst['mean']:.1f} %"
    name = capitalised(with_article(best["arm"]))
    return f"{name} is ahead on {group} tokens: {shares} of {with_article(worst['arm'])} are wrong"


error_by_token = Dots(
    name="error_by_token",
    rows=test_error_by_group,
    x=Axis(label="test error in %", scale="percent", limits=(-3, 103)),
    across=("group", None),
    title=_error_by_token_finding,
    about="Share of wrong answers on the test sequences of {dataset} (T = {T}), by the kind of the token that they "
    "answer, at each replica's best validation step: points are seeds, markers means over {seeds} with {interval}.",
    values=lambda view: (
        "; ".join(
            f"{group[0]}: {listed(view, rows)}" for group, rows in view.means.group_by("group", maintain_order=True)
        )
        + "."
    ),
    not_ok="diverged and failed ones are not shown",
)
