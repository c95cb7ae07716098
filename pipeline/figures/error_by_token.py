"""The share of wrong tags by kind of token: those that need nothing, the left context, or the right one."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import interval, ranked
from pipeline.figures.style import canvas, dots, label_panels, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, paired_difference
from pipeline.results import FINISHED

_FORM = r"^test_error\[(?<group>[^=\]]+)\]$"


def applies(tables: GridTables) -> bool:
    """Return whether errors were told by kind of token."""
    return not _points(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean error over seeds that did not diverge, with its interval, by kind of token (`group`) and arm."""
    return mean_interval(_points(tables), "error", ["group", "arm"], bounds=(0.0, 1.0))


def title(tables: GridTables) -> str:
    """Return for which kind of token the best arm differs most from the worst, seed by seed."""
    means = table(tables).drop_nulls("mean")
    if means.is_empty():
        return "Inconclusive: no replica finished training"
    if means["arm"].n_unique() == 1:
        worst = means.sort("mean", descending=True, maintain_order=True).row(0, named=True)
        return f"Most errors of {the(worst['arm'])} are on {worst['group']} tokens"
    gaps = means.group_by("group", maintain_order=True).agg(gap=pl.col("mean").max() - pl.col("mean").min())
    group = gaps.sort("gap", descending=True, maintain_order=True)["group"][0]
    ends = means.filter(pl.col("group") == group).sort("mean", maintain_order=True)
    best, worst = ends.row(0, named=True), ends.row(-1, named=True)
    difference = paired_difference(_points(tables).filter(group=group), "error", "arm", best["arm"], worst["arm"])
    if difference["high"][0] is None or difference["high"][0] >= 0:
        return "Inconclusive: for no kind of token is a difference between arms established"
    shares = f"{100 * best['mean']:.1f} % against {100 * worst['mean']:.1f} %"
    name = the(best["arm"])
    return f"{name[0].upper()}{name[1:]} is ahead on {group} tokens: {shares} of {the(worst['arm'])} are wrong"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    told = "; ".join(
        f"{row['group']}, {name_of(row['arm'])} {interval(row)}"
        for row in drawn.drop_nulls("mean").iter_rows(named=True)
    )
    return (
        f"Share of wrong answers on the test sequences of {tables.dataset} (T = {tables.lengths[-1]}), by the kind of "
        f"the token that they answer, at each replica's best validation step: points are seeds, markers means over "
        f"{seeds_of(drawn)} with {INTERVAL}. {told}. "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each kind of token, a row for each arm."""
    drawn = table(tables)
    groups, arms = list(drawn["group"].unique(maintain_order=True)), [a for a in tables.arms if a in drawn["arm"]]
    figure, axes = canvas(title(tables), 1, len(groups), 1.3 + 0.4 * len(arms), sharex=True, sharey=True)
    for ax, group in zip(axes[0], groups, strict=True):
        _panel(ax, drawn.filter(group=group), _points(tables).filter(group=group), arms)
        ax.set_title(f"{group} tokens")
        ax.set_xlabel("test error in %")
    axes[0, 0].set_yticks(range(len(arms)), [name_of(arm) for arm in arms])
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    axes[0, 0].set_xlim(-3, 103)
    label_panels(axes[0])
    return figure


def _panel(ax: Axes, means: pl.DataFrame, seeds: pl.DataFrame, arms: list[str]) -> None:
    looks = looks_of(arms)
    for row in means.drop_nulls("mean").iter_rows(named=True):
        errors = seeds.filter(arm=row["arm"])["error"].to_list()
        dots(ax, arms.index(row["arm"]), errors, row, looks[row["arm"]], below=0.2)


def _points(tables: GridTables) -> pl.DataFrame:
    rows = tables.at_longest(tables.curves).filter(
        pl.col("metric").str.contains(_FORM), pl.col("status").is_in(FINISHED)
    )
    groups = rows.with_columns(group=pl.col("metric").str.extract(_FORM, 1), error=pl.col("value"))
    return groups.sort("group", ranked(tables.arms), "seed").select("group", "arm", "seed", "error")
