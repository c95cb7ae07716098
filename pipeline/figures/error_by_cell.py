"""The share of wrong classes on test data, by cell."""

from __future__ import annotations

import itertools

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.stages import compares_cells
from pipeline.figures.style import canvas, dots, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, name_of, number, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, paired_difference
from pipeline.results import FINISHED


def applies(tables: GridTables) -> bool:
    """Return whether the grid's dataset has classes and its arms are cells; of others `outcome_by_arm` tells."""
    return compares_cells(tables) and bool(tables.runs["test_error"].is_not_null().any())


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean test error over seeds that did not diverge, by arm, with its interval, at the longest length."""
    return mean_interval(_sound(tables), "test_error", ["arm"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return whether the arm with the fewest errors makes fewer than the next one, seed by seed."""
    means = table(tables).drop_nulls("mean").sort("mean", maintain_order=True)
    if means.is_empty():
        return "Inconclusive: no replica finished training"
    best = f"{the(means['arm'][0])} ({_percent(means['mean'][0])} %)"
    if means.height == 1:
        return f"Test error of {best}"
    difference = paired_difference(_sound(tables), "test_error", "arm", means["arm"][0], means["arm"][1])
    next_one = f"{the(means['arm'][1])} ({_percent(means['mean'][1])} %)"
    if difference["high"][0] is None:
        return f"One pair of seeds, no interval: {best} against {next_one} wrong on test data"
    if difference["high"][0] < 0:
        return f"Fewest test errors: {best}, ahead of {next_one} in a comparison paired by seed"
    return f"Inconclusive: no difference in test error is established between {best} and {next_one}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn, sound = table(tables), _sound(tables)
    pairs = []
    for first, second in itertools.combinations(sound["arm"].unique(maintain_order=True), 2):
        row = paired_difference(sound, "test_error", "arm", first, second).row(0, named=True)
        if row["low"] is not None:
            interval = f"{_percent(row['mean'])} [{_percent(row['low'])}, {_percent(row['high'])}]"
            pairs.append(f"{name_of(first)} less {name_of(second)} {interval}")
    paired = f" Differences paired by seed, in percentage points: {'; '.join(pairs)}." if pairs else ""
    return (
        f"Share of wrong classes among the test sequences of {tables.dataset} (T = {tables.lengths[-1]}), at each "
        f"replica's best validation step: points are seeds, markers means over {seeds_of(drawn)} with {INTERVAL}."
        f"{paired} {outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}"
        f"{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a row for each arm: its seeds, and their mean with the interval."""
    drawn, sound = table(tables), _sound(tables)
    figure, axes = canvas(title(tables), 1, 1, 0.9 + 0.5 * drawn.height)
    ax, looks = axes[0, 0], looks_of(tables.arms)
    for place, row in enumerate(drawn.iter_rows(named=True)):
        seeds = sound.filter(pl.col("arm") == row["arm"])["test_error"].drop_nulls().to_list()
        dots(ax, place, seeds, row, looks[row["arm"]], below=0.16)
    ax.set_yticks(range(drawn.height), [name_of(arm) for arm in drawn["arm"]])
    ax.set_ylim(drawn.height - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("test error in %")
    return figure


def _sound(tables: GridTables) -> pl.DataFrame:
    return tables.at_longest(tables.runs).filter(pl.col("status").is_in(FINISHED))


def _percent(share: float) -> str:
    return number(100 * share)
