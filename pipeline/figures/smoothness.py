"""Why clipping speeds training up: local smoothness of the loss against the norm of its gradient, along training."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.stages import chosen_told, interval, ranked, spread
from pipeline.figures.style import INK, Look, canvas, decades, handle_of, label_panels, legend_below, looks_of, styled
from pipeline.figures.words import INTERVAL, count, few, name_of, number, outcomes, the
from pipeline.quantities import GridTables, mean_interval

_METRICS = ("local_smoothness", "probe_grad_norm")
_FINITE = pl.col("log10_norm").is_finite() & pl.col("log10_smoothness").is_finite()
MIN_POINTS = 3
"""A seed with fewer measurements has no correlation."""


def applies(tables: GridTables) -> bool:
    """Return whether smoothness and gradient norm were measured at the same steps."""
    return not table(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return a point for each arm, seed and measured step, at the longest length.

    Columns `arm`, `seed`, `step`, `log10_norm` (of the probe batch's gradient), `log10_smoothness`.
    """
    curves = tables.at_longest(tables.curves).filter(pl.col("metric").is_in(_METRICS))
    sides = [curves.filter(metric=metric).select("arm", "seed", "step", "value") for metric in _METRICS]
    both = sides[0].join(sides[1], on=["arm", "seed", "step"], suffix="_norm").drop_nulls()
    both = both.select(
        "arm", "seed", "step", log10_norm=pl.col("value_norm").log10(), log10_smoothness=pl.col("value").log10()
    )
    return both.sort(ranked(tables.arms), "seed", "step")


def correlations(tables: GridTables) -> pl.DataFrame:
    """Return the log-log correlation seed by seed: its mean with interval, by arm and `kind` (pearson, spearman)."""
    finite = table(tables).filter(_FINITE)
    pair, enough = ("log10_norm", "log10_smoothness"), pl.len() >= MIN_POINTS
    by_seed = finite.group_by("arm", "seed", maintain_order=True).agg(
        pl.when(enough).then(pl.corr(*pair)).alias("pearson"),
        pl.when(enough).then(pl.corr(*pair, method="spearman")).alias("spearman"),
    )
    long = by_seed.unpivot(on=["pearson", "spearman"], index=["arm", "seed"], variable_name="kind")
    return mean_interval(long, "value", ["arm", "kind"], bounds=(-1.0, 1.0))


def title(tables: GridTables) -> str:
    """Return in which arms smoothness and gradient norm rise together, where the whole interval says so."""
    found = correlations(tables).filter(kind="pearson").drop_nulls("mean").sort(ranked(tables.arms))
    if found.is_empty():
        return "Inconclusive: too few measurements of smoothness for a correlation"
    told = {row["arm"]: f"{the(row['arm'])} (r = {interval(row)})" for row in found.iter_rows(named=True)}
    names = told if found.height <= 3 else {arm: the(arm) for arm in told}
    rises, falls = found.filter(pl.col("low") > 0)["arm"], found.filter(pl.col("high") < 0)["arm"]
    unsure = [arm for arm in told if arm not in rises and arm not in falls]
    parts = [
        f"{verdict} {few([names[arm] for arm in arms])}"
        for verdict, arms in (("rises with the gradient norm in", rises), ("falls with it in", falls))
        if len(arms)
    ]
    if unsure:
        parts.append(f"no correlation is established in {few([names[arm] for arm in unsure])}")
    said = "; ".join(parts)
    return f"Along training local smoothness {said}" if len(unsure) < found.height else f"Along training {said}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and the rank correlations."""
    points = table(tables)
    lost = points.filter(_FINITE.not_()).height
    left = f" {count(lost, 'point')} that are zero or not finite left out." if lost else ""
    ranks = correlations(tables).filter(pl.col("kind") == "spearman", pl.col("arm").is_in(_shown(tables)))
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in ranks.drop_nulls("mean").iter_rows(named=True))
    return (
        f"‖∇f(x + αd) - ∇f(x)‖ / (α‖d‖) against ‖∇f(x)‖ on the probe batch, a point for each of "
        f"{count(points['seed'].n_unique(), 'seed')} and measured step, at T = {tables.lengths[-1]} on "
        f"{tables.dataset}; dotted: proportionality through the medians; were the loss smooth in the classical sense, "
        f"the points would have a ceiling that the norm does not move (Zhang et al., 2020). Correlations of the "
        f"logarithms seed by seed, mean with {INTERVAL}; Spearman: {told or 'n/a'}."
        f"{chosen_told(_shown(tables), _known(tables), 'correlation')} "
        f"{outcomes(tables.at_longest(tables.runs), 'their points until they stopped are shown')}{left}"
        f"{_beyond_told(points.filter(_FINITE, pl.col('arm').is_in(_shown(tables))))}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each arm on common log-log axes."""
    points, arms, looks = table(tables).filter(_FINITE), _shown(tables), looks_of(tables.arms)
    num_columns = min(len(arms), 2 if len(arms) == 4 else 3)
    num_rows = -(-len(arms) // num_columns)
    height = 0.7 + (3.0 if num_columns < 3 and num_rows == 1 else 2.1) * num_rows
    figure, axes = canvas(title(tables), num_rows, num_columns, height, sharex=True, sharey=True)
    means = dict(correlations(tables).filter(kind="pearson").select("arm", "mean").iter_rows())
    for ax, arm in zip(axes.flat, arms, strict=False):
        _panel(ax, points.filter(pl.col("arm") == arm), looks[arm])
        ax.set_title(name_of(arm))
        ax.annotate(f"r = {number(means.get(arm), 2)}", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=7.5)
    for ax in axes.flat[len(arms) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("gradient norm")
    for ax in axes[:, 0]:
        ax.set_ylabel("local smoothness")
    left, right, bottom, top = _frame(points.filter(pl.col("arm").is_in(arms)))
    axes[0, 0].set(xlim=(left, right), ylim=(bottom, top))
    decades(axes[0, 0])
    decades(axes[0, 0], "x")
    legend_below(figure, [handle_of(Look(INK, (0, (1, 1.5)), ""))], ["proportional to the gradient norm"])
    label_panels(list(axes.flat[: len(arms)]))
    return figure


def _panel(ax: Axes, rows: pl.DataFrame, look: Look) -> None:
    x, y = (rows[name].to_numpy() for name in ("log10_norm", "log10_smoothness"))
    ax.scatter(x, y, s=13, color=look.colour, marker=look.marker, alpha=0.55, linewidth=0)
    if len(x):
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, ends + np.median(y) - np.median(x), color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)))


def _frame(points: pl.DataFrame) -> tuple[float, float, float, float]:
    """Return the limits of both axes: all points, but for the few that lie decades away from nine in ten."""
    sides: list[float] = []
    for name in ("log10_norm", "log10_smoothness"):
        values = points[name].to_numpy()
        low, high = np.quantile(values, [0.05, 0.95]) if len(values) else (-1.0, 0.0)
        room = max(1.0, high - low)
        margin = 0.06 * room
        sides += [
            max(values.min(initial=low), low - room) - margin,
            min(values.max(initial=high), high + room) + margin,
        ]
    return sides[0], sides[1], sides[2], sides[3]


def _beyond_told(points: pl.DataFrame) -> str:
    left, right, bottom, top = _frame(points)
    inside = pl.col("log10_norm").is_between(left, right) & pl.col("log10_smoothness").is_between(bottom, top)
    beyond = points.filter(inside.not_()).height
    return f" {count(beyond, 'point')} far from the others, beyond the frame." if beyond else ""


def _known(tables: GridTables) -> list[str]:
    known = table(tables)["arm"].unique()
    return [arm for arm in tables.arms if arm in known]


def _shown(tables: GridTables) -> list[str]:
    values = dict(correlations(tables).filter(kind="pearson").select("arm", "mean").iter_rows())
    return spread({arm: values.get(arm) for arm in _known(tables)})
