"""How wrong the gradient of truncated backpropagation is: error, direction and Aicher's bound against its length K."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.stages import STAGES, ranked, staged
from pipeline.figures.style import (
    FAINT,
    INK,
    Look,
    banded,
    canvas,
    decades,
    handle_of,
    label_panels,
    legend_below,
    looks_of,
    styled,
)
from pipeline.figures.words import INTERVAL, count, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval

SOUND = 0.1
"""A relative error below which a truncated gradient passes for the full one."""

_PANELS = {"log10_error": "relative error", "cosine": "cosine", "log10_phi": "φ_K"}
_ROWS = {"cosine": "Cosine with the full gradient", "log10_phi": "Norm of the gradient K timesteps back"}
"""Titles of the rows below the first, whose panels say the stage."""
_THEORY = {"log10_error": "log10_bound", "log10_phi": "log10_fit"}
_KEYS = ["stage", "arm", "quantity", "backward_length"]


def applies(tables: GridTables) -> bool:
    """Return whether truncated gradients were compared with the full one."""
    return not _measured(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds with its interval, by stage, arm, quantity and backward length K.

    Quantities: `log10_error` (of ‖ĝ_K - g‖/‖g‖; an error of exactly zero is in no mean), `cosine`, `log10_phi`,
    `log10_bound` (Aicher's δ(K); null where it says nothing), `log10_fit` (a line of slope log10 β through the middle
    of log10 φ_K).
    """
    quantities = [*_PANELS, *_THEORY.values()]
    long = _measured(tables).unpivot(on=quantities, index=["stage", "arm", "backward_length", "seed"])
    means = mean_interval(long.rename({"variable": "quantity"}), "value", _KEYS)
    return means.sort(pl.col("stage") == "end", ranked(tables.arms), "quantity", "backward_length")


def needed(tables: GridTables) -> pl.DataFrame:
    """Return by stage and arm the smallest K from which on no seed's relative error is above a tenth.

    Columns `stage`, `arm`, `backward_length` (null where even the longest does not do), `longest`, `num_seeds`.
    """
    rows = _measured(tables).with_columns(wrong=(pl.col("relative_error") < SOUND).fill_null(value=False).not_())
    worst = rows.group_by("stage", "arm", "backward_length").agg(pl.col("wrong").any(), num_seeds=pl.len())
    worst = worst.sort("backward_length", descending=True).with_columns(
        late=pl.col("wrong").cum_sum().over("stage", "arm") == 0
    )
    length = pl.col("backward_length")
    found = worst.group_by("stage", "arm").agg(
        backward_length=length.filter("late").min(), longest=length.max(), num_seeds=pl.col("num_seeds").max()
    )
    return found.sort(pl.col("stage") == "end", ranked(tables.arms))


def title(tables: GridTables) -> str:
    """Return how long truncated backpropagation must be after training for an error below a tenth in every seed."""
    end = needed(tables).filter(pl.col("stage") == "end")
    if end.is_empty():
        return "Inconclusive: no truncated gradient is known at the end of training"
    known, never = end.drop_nulls("backward_length"), end.filter(pl.col("backward_length").is_null())
    known = known.sort("backward_length", maintain_order=True)
    seeds = "the only seed" if end["num_seeds"].max() == 1 else "every seed"
    goal = f"a gradient wrong by less than {100 * SOUND:.0f} % in {seeds}"
    tested = int(end["longest"].to_numpy().max())
    if known.is_empty():
        return f"After training no truncation up to K = {tested} gives {goal}"
    parts = [f"{row['backward_length']} in {the(row['arm'])}" for row in known.iter_rows(named=True)]
    told = few(parts) if len(parts) <= 3 else f"{parts[0]}, {parts[-1]} and between in {len(parts) - 2} others"
    missing = f"; none up to {tested} does in {few([the(arm) for arm in never['arm']])}" if not never.is_empty() else ""
    return f"After training {goal} takes a backward length of at least {told}{missing}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, how often the bound held, and what is left out."""
    drawn = table(tables).filter(pl.col("quantity").is_in(list(_PANELS)))
    rows = _measured(tables).filter(pl.col("relative_error").is_finite())
    said = rows.filter(pl.col("log10_bound").is_not_null())
    kept = said.filter(pl.col("relative_error") <= pl.col("relative_bias_bound") * (1 + 1e-6)).height
    silent = f", and says nothing in {rows.height - said.height}" if rows.height > said.height else ""
    bound = f" The bound holds in {kept} of {count(said.height, 'measurement')}{silent}." if said.height else ""
    return (
        f"Gradient of the last timestep's loss through K timesteps against the full one, at T = {tables.lengths[-1]} "
        f"on {tables.dataset}: means over {seeds_of(drawn)} with {INTERVAL}. Dotted: Aicher's bound δ(K) of the "
        f"relative error (Aicher et al., 2019), and β^K with β fitted to φ_K = ‖∂L/∂h_(T-K)‖. The thin line is an "
        f"error of {SOUND:g}; errors and φ_K far below the largest are cut off.{bound} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones have no end of training')}"
        f"{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a column for each stage: relative error with its bound, cosine, and φ_K with its fit."""
    drawn, looks = table(tables), looks_of(tables.arms)
    stages = [stage for stage in STAGES if stage in drawn["stage"]]
    figure, axes = canvas(title(tables), 3, len(stages), 5.4, sharex=True, sharey="row")
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    for row, (quantity, told) in zip(axes, _PANELS.items(), strict=True):
        for ax, stage in zip(row, stages, strict=True):
            for arm in arms:
                mine = drawn.filter(stage=stage, arm=arm)
                _lines(ax, mine, quantity, looks[arm], crowded=len(arms) > 4)
            if quantity == "log10_error":
                ax.set_title(STAGES[stage])
        row[0].set_ylabel(told)
        if quantity in _ROWS:
            row[0].set_title(_ROWS[quantity])
    for ax in axes[0]:
        ax.axhline(math.log10(SOUND), color=INK, linewidth=0.6)
    for ax in axes[-1]:
        ax.set_xlabel("backward length K")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    _limits(axes[0, 0], drawn.filter(quantity="log10_error"), num_decades=8)
    _limits(axes[2, 0], drawn.filter(quantity="log10_phi"), num_decades=16)
    axes[1, 0].set_ylim(top=1.03)
    handles = [*(handle_of(looks[arm]) for arm in arms), handle_of(Look(FAINT, (0, (1, 1.5)), ""))]
    legend_below(figure, handles, [*map(name_of, arms), "bound δ(K); fit β^K"])
    label_panels(list(axes.flat))
    return figure


def _lines(ax: Axes, rows: pl.DataFrame, quantity: str, look: Look, *, crowded: bool) -> None:
    line = rows.filter(pl.col("quantity") == quantity)
    if not line.is_empty():
        banded(ax, "backward_length", line, look, shade=0.06 if crowded else 0.18, markersize=3)
    theory = rows.filter(pl.col("quantity") == _THEORY.get(quantity, ""))
    if not theory.is_empty():
        heights = theory["mean"].fill_null(float("nan")).to_numpy()
        ax.plot(theory["backward_length"].to_numpy(), heights, color=look.colour, linestyle=(0, (1, 1.5)), linewidth=1)


def _limits(ax: Axes, rows: pl.DataFrame, num_decades: int) -> None:
    """Show the means of one quantity, of the smallest no more than so many decades, and little of what lies above."""
    means = rows["mean"].drop_nulls().to_numpy()
    low, high = (float(means.min()), float(means.max())) if len(means) else (-1.0, 0.0)
    low = max(low, high - num_decades)
    margin = 0.1 * max(high - low, 0.5)
    ax.set_ylim(low - margin, high + max(margin, 0.4))
    decades(ax)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _measured(tables: GridTables) -> pl.DataFrame:
    """Return a row for each stage, arm, seed and K, with the logarithms."""
    rows = staged(tables.at_longest(tables.truncation)).sort("backward_length")
    bound, K = pl.col("relative_bias_bound"), pl.col("backward_length")
    rows = rows.with_columns(
        log10_error=pl.col("relative_error").log10(),
        log10_bound=pl.when(bound.is_finite() & (bound > 0)).then(bound.log10()),
    )
    finite = pl.col("log10_phi").is_finite()
    keys = ["stage", "arm", "seed"]
    middle = pl.col("log10_phi").filter(finite).mean().over(keys)
    slope = pl.col("decay_factor").log10()
    fit = middle + slope * (K - K.filter(finite).mean().over(keys))
    return rows.with_columns(log10_fit=pl.when(fit.is_finite()).then(fit))
