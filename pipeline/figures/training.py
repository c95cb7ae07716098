"""Figures of training itself: losses by step, and losses at lengths that were never trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from pipeline.figures.findings import NOTHING_FINISHED, by_sign, ranked
from pipeline.figures.frame import NOT_SHOWN, Axis, Lines, Panel, Points, View, listed
from pipeline.figures.style import DOTTED, FAINT, INK, Look
from pipeline.quantities import Grid
from pipeline.quantities.dynamics import smoothness_correlation, smoothness_points
from pipeline.quantities.outcomes import baseline_of, has_criterion, median_criterion_step
from pipeline.quantities.selection import pick_evenly
from pipeline.quantities.training import median_validation_loss, test_loss_by_tested_length, validation_losses
from pipeline.quantities.words import count, interval, join, join_first, number, with_article

_MAX_LENGTHS = 6
_MAX_WITH_SEEDS = 4
"""Of more arms than these only medians are drawn."""


def _curves(grid: Grid) -> pl.DataFrame:
    """Return the validation losses at no more than six lengths, from the shortest to the longest."""
    lengths = pick_evenly({length: float(length) for length in grid.lengths}, _MAX_LENGTHS)
    return validation_losses(grid).filter(pl.col("length").is_in(lengths))


def _add_seeds(view: View, ax: Axes, panel: Panel) -> None:
    """Draw the seeds of few arms as thin lines, and a cross where one diverged."""
    for (arm, _), replica in (
        view.of_shown(view.rows).filter(length=panel["length"]).group_by("arm", "seed", maintain_order=True)
    ):
        steps, losses, colour = replica["step"].to_numpy(), replica["value"].to_numpy(), view.looks[str(arm)].colour
        if len(view.arms) <= _MAX_WITH_SEEDS:
            ax.plot(steps, losses, color=colour, linewidth=0.6, alpha=0.45)
        if replica["status"][0] == "diverged":
            ax.plot(steps[-1:], losses[-1:], color=colour, marker="x", markersize=5)
    for column, style in {"baseline_loss": (INK, (0, (4, 2))), "training.stop_below": (FAINT, ":")}.items():
        for height in _levels(view.grid, column):
            ax.axhline(height, color=style[0], linestyle=style[1], linewidth=0.9)


def _levels(grid: Grid, column: str) -> list[float]:
    """Return the baselines, or the criteria that are a validation loss, and so a line in this figure."""
    runs = grid.runs
    if column not in runs.columns:
        return []
    if column == "training.stop_below" and "training.stop_on" in runs.columns:
        runs = runs.filter(pl.col("training.stop_on") == "validation_loss")
    return runs[column].drop_nulls().unique().sort().to_list()


def _learning_finding(view: View) -> str:
    """Which arm reaches the criterion first at the longest length; without one, whose final loss is lowest."""
    if has_criterion(view.grid.runs):
        return _first_to_reach(view)
    last = view.means.filter(length=view.T).filter(pl.col("step") == pl.col("step").max().over("arm"))
    diverged = view.grid.at("longest").runs.group_by("arm").agg(share=(pl.col("status") == "diverged").mean())
    lost = view.grid.present(diverged.filter(pl.col("share") >= 0.5))
    final = ranked(last.filter(~pl.col("arm").is_in(lost)))
    if final.is_empty():
        return "Inconclusive: no arm has a finite median validation loss"
    losses = [f"{with_article(row['arm'])} {number(row['mean'])}" for row in final.iter_rows(named=True)]
    ends = join(losses) if len(losses) <= _MAX_WITH_SEEDS else f"from {losses[0]} to {losses[-1]}"
    tail = f"; most seeds of {join_first(list(map(with_article, lost)))} diverge" if lost else ""
    return f"Median validation loss after training: {ends}{tail}"


def _first_to_reach(view: View) -> str:
    """The median step of the criterion by arm, a seed that did not reach it counting as never."""
    runs = view.grid.at("longest").runs
    steps = runs.group_by("arm", maintain_order=True).agg(step=median_criterion_step()).drop_nulls("step")
    reached = steps.filter(pl.col("step").is_finite()).sort("step", maintain_order=True)
    if reached.is_empty():
        return f"At T = {view.T} the median seed of no arm reaches the criterion"
    parts = [f"{with_article(arm)} after {step:.0f}" for arm, step in reached.iter_rows()]
    ends = join(parts) if len(parts) <= _MAX_WITH_SEEDS else f"from {parts[0]} to {parts[-1]}"
    finding = f"Steps until the median seed reaches the criterion at T = {view.T}: {ends}"
    never = [with_article(arm) for arm in steps.filter(pl.col("step").is_infinite())["arm"]]
    most = max(runs["num_steps"].drop_nulls(), default=0)
    return f"{finding}; {join_first(never)} not within {count(most, 'step')}" if never else finding


def _about_learning(view: View) -> str:
    thin = "thin lines are seeds, thick ones" if len(view.arms) <= _MAX_WITH_SEEDS else "lines are"
    sentences = [f"Validation loss on {{dataset}}: {thin} medians over {{seeds}}, no interval."]
    if has_criterion(view.grid.runs):
        sentences.append("A replica that reached the criterion keeps its last loss in the median.")
    dashed = "dashed, the analytic baseline" if _levels(view.grid, "baseline_loss") else ""
    dotted = "dotted, the criterion" if _levels(view.grid, "training.stop_below") else ""
    if dashed or dotted:
        sentences.append(f"Horizontal lines: {'; '.join(filter(None, (dashed, dotted)))}.")
    num_shown = view.rows["length"].n_unique()
    if num_shown < len(view.grid.lengths):
        sentences.append(f"{num_shown} of {len(view.grid.lengths)} lengths are shown.")
    return " ".join(sentences)


learning_curves = Lines(
    name="learning_curves",
    rows=_curves,
    means=lambda view: median_validation_loss(view.grid).filter(pl.col("length").is_in(view.rows["length"].unique())),
    lengths="all",
    x=Axis(label="training step", column="step"),
    y=Axis(label="validation loss", scale="log", band=False),
    across=("length", "T = {}"),
    add=_add_seeds,
    height=2.2,
    title=_learning_finding,
    about=_about_learning,
    not_ok="a diverged one ends in a cross and counts as infinite from there on",
)


_MAX_TRAINED = 4
"""Lengths of training, the longest, that have a panel."""


def _baseline(view: View, panel: Panel) -> dict[float, str]:
    baseline = baseline_of(view.grid.at(panel["length"]))
    return {} if baseline is None else {math.log10(baseline): " "}


def _unseen_finding(view: View) -> str:
    """Which arms beat the baseline of their trained length with their whole interval at the farthest unseen one.

    Of the networks trained at the longest length: at the longest unseen length, or at the shortest where all are
    shorter than the trained one.
    """
    unseen = view.means.filter(pl.col("tested_length") != pl.col("length")).drop_nulls("mean")
    if unseen.is_empty():
        return NOTHING_FINISHED
    trained = int(unseen["length"].to_numpy().max())
    unseen = unseen.filter(length=trained)
    tested = unseen["tested_length"].to_numpy()
    far = int(tested.max() if tested.max() > trained else tested.min())
    baseline = baseline_of(view.grid.at(trained))
    at_end = unseen.filter(tested_length=far).drop_nulls("high")
    if baseline is None or at_end.is_empty():
        return f"Test loss of networks trained at T = {trained}, tested at T = {far}"
    able = [with_article(arm) for arm in at_end.filter(pl.col("high") < math.log10(baseline))["arm"]]
    beat = f"{join_first(able) if able else 'no network'}{' still' if far > trained else ''} beat"
    return f"Trained at T = {trained}, {beat}{'s' if len(able) < 2 else ''} that length's baseline at T = {far}"


unseen_lengths = Lines(
    name="unseen_lengths",
    rows=lambda grid: test_loss_by_tested_length.of(grid).filter(pl.col("length").is_in(grid.lengths[-_MAX_TRAINED:])),
    quantity=test_loss_by_tested_length,
    applies=lambda grid: bool(
        test_loss_by_tested_length.of(grid).select((pl.col("length") != pl.col("tested_length")).any()).item()
    ),
    needs="tests at lengths that were not trained on (`dataset.unseen_lengths`)",
    lengths="all",
    x=Axis(label="tested at T", column="tested_length", scale="lengths"),
    y=Axis(label="test loss", scale="log10", lines=_baseline),
    across=("length", "trained at T = {}"),
    width=4,
    marked=True,
    hollow=pl.col("length") == pl.col("tested_length"),
    title=_unseen_finding,
    about="Test loss on {dataset} at the length of training (hollow) and at lengths never seen, weights of the best "
    "validation step: geometric means over {seeds} with {interval} of log10. Dashed: the analytic baseline of the "
    "panel's trained length.",
    not_ok=NOT_SHOWN,
)


_PROPORTIONAL = Look(INK, DOTTED, "")


def _smoothness_finding(view: View) -> str:
    """In which arms smoothness and gradient norm rise together, where the whole interval says so."""
    found = smoothness_correlation.means(view.grid, kind="pearson").drop_nulls("mean")
    if found.is_empty():
        return "Inconclusive: too few measurements of smoothness for a correlation"
    words = {
        "above": "rises with the gradient norm in {arms}",
        "below": "falls with it in {arms}",
        "unsure": "no correlation is established in {arms}",
    }
    is_few = found.height <= 3
    sides = by_sign(
        found,
        words,
        name=lambda row: with_article(row["arm"]) + (f" (r = {interval(row)})" if is_few else ""),
    )
    return f"Along training {'' if sides.startswith('no correlation') else 'local smoothness '}{sides}"


def _smoothness_values(view: View) -> str:
    num_left_out = smoothness_points(view.grid).height - view.rows.height
    points = f" {count(num_left_out, 'point')} of zero or not finite left out." if num_left_out else ""
    return f"Spearman: {listed(view, smoothness_correlation.means(view.grid, kind='spearman')) or 'n/a'}.{points}"


def _add_proportion(view: View, ax: Axes, panel: Panel) -> None:
    """Draw proportionality through the medians, and the correlation."""
    rows = view.rows.filter(arm=panel["arm"])
    x, y = (rows[name].to_numpy() for name in ("log10_norm", "log10_smoothness"))
    if len(x):
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, ends + np.median(y) - np.median(x), **_PROPORTIONAL.line, linewidth=1.0)
    mean = smoothness_correlation.by_arm(view.grid, kind="pearson").get(panel["arm"])
    ax.annotate(f"r = {number(mean, 2)}", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=7.5)


def _near_most(rows: pl.DataFrame) -> Sequence[tuple[float, float]]:
    """Return limits that hold all points, but for the few that lie decades away from nine in ten."""
    sides = []
    for name in ("log10_norm", "log10_smoothness"):
        values = rows[name].to_numpy()
        low, high = np.quantile(values, [0.05, 0.95])
        room = max(1.0, high - low)
        sides.append((max(values.min(), low - room) - 0.06 * room, min(values.max(), high + room) + 0.06 * room))
    return sides


smoothness = Points(
    name="smoothness",
    rows=lambda grid: smoothness_points(grid).filter(
        pl.all_horizontal(pl.col("log10_norm", "log10_smoothness").is_finite())
    ),
    x=Axis(label="gradient norm", column="log10_norm", scale="decades"),
    y=Axis(label="local smoothness", column="log10_smoothness", scale="decades"),
    across=("arm", None),
    height=2.3,
    limits=_near_most,
    add=_add_proportion,
    more=lambda view: {"proportional to the gradient norm": _PROPORTIONAL},
    means=lambda view: smoothness_correlation.means(view.grid, kind="pearson"),
    title=_smoothness_finding,
    about="‖∇f(x + αd) - ∇f(x)‖ / (α‖d‖) against ‖∇f(x)‖ on the probe batch, a point per seed and measured step, "
    "at T = {T} on {dataset}; dotted: proportionality through the medians; were the loss smooth in "
    "the classical sense, the points would have a ceiling that the norm does not move (Zhang et al., 2020). "
    "Correlations of the logarithms seed by seed, mean over {seeds} with {interval}.",
    values=_smoothness_values,
    not_ok="their points until they stopped are shown",
    most=6,
    rank=(lambda view: smoothness_correlation.by_arm(view.grid, kind="pearson"), "correlation"),
)
