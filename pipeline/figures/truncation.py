"""What truncated backpropagation gets wrong and what it saves: bias, cost, and a gradient of the wrong sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.findings import NOTHING_FINISHED
from pipeline.figures.frame import STAGE_TITLES, Axis, Lines, Panel, View, draw_dotted
from pipeline.figures.style import DOTTED, FAINT, INK, Look, canvas, label_panels, looks_of, styled
from pipeline.quantities import Grid, Quantity
from pipeline.quantities.outcomes import activation_bytes, has_classes, step_time_s, test_loss, test_perplexity
from pipeline.quantities.truncation import (
    SMALL_ERROR,
    far_gradient_norm,
    needed_backward_length,
    truncated_gradients,
    truncation_cosine,
    truncation_error,
)
from pipeline.quantities.words import capitalised, count, join_first, name_of, number, seeds_of, with_article

LENGTH = "training.truncation.backward_length"
_THEORY = {"error": (truncation_error, "log10_bound"), "norm": (far_gradient_norm, "log10_fit")}
"""By panel the quantity, and the column of `truncated_gradients` with the theory of it."""


def _bias_finding(view: View) -> str:
    """How long truncated backpropagation must be after training for a small error in every seed."""
    end = needed_backward_length(view.grid).filter(stage="end")
    if end.is_empty():
        return "Inconclusive: no truncated gradient is known at the end of training"
    known = end.drop_nulls("backward_length").sort("backward_length", maintain_order=True)
    seeds = "the only seed" if end["num_seeds"].max() == 1 else "every seed"
    goal = f"a gradient wrong by less than {100 * SMALL_ERROR:.0f} % in {seeds}"
    tested = int(end["longest"].to_numpy().max())
    if known.is_empty():
        return f"After training no truncation up to K = {tested} gives {goal}"
    parts = [f"{row['backward_length']} in {with_article(row['arm'])}" for row in known.iter_rows(named=True)]
    some = join_first(parts) if len(parts) <= 3 else f"{parts[0]}, {parts[-1]} and between in {len(parts) - 2} others"
    never = [with_article(arm) for arm in end.filter(pl.col("backward_length").is_null())["arm"]]
    missing = f"; none up to {tested} is long enough in {join_first(never, 2)}" if never else ""
    return f"After training {goal} takes a backward length of at least {some}{missing}"


def _bias_values(view: View) -> str:
    rows = truncated_gradients(view.grid).filter(pl.col("relative_error").is_finite())
    bounded = rows.filter(pl.col("log10_bound").is_not_null())
    kept = bounded.filter(pl.col("relative_error") <= pl.col("relative_bias_bound") * (1 + 1e-6)).height
    without = rows.height - bounded.height
    silent = f", and there is none in {without}" if without else ""
    return f"The bound holds in {kept} of {count(bounded.height, 'measurement')}{silent}." if bounded.height else ""


def _draw_theory(view: View, ax: Axes, panel: Panel) -> None:
    """Draw Aicher's bound of the error, and the fitted decay of φ_K: means over seeds of their logarithms."""
    if panel["quantity"] not in _THEORY:
        return
    quantity, theory = _THEORY[panel["quantity"]]
    rows = truncated_gradients(view.grid).filter(stage=panel["stage"]).rename({theory: "value"})
    draw_dotted(view, ax, quantity.summary(rows, ["arm", "backward_length"]), "backward_length")


truncation_bias = Lines(
    name="truncation_bias",
    rows={"error": truncation_error, "cosine": truncation_cosine, "norm": far_gradient_norm},
    x=Axis(label="backward length K", column="backward_length", scale="lengths"),
    y={
        "error": Axis(label="relative error", scale="decades", max_decades=8, lines={math.log10(SMALL_ERROR): ""}),
        "cosine": Axis(label="cosine with\nthe full gradient", limits=(None, 1.03)),
        "norm": Axis(label="norm φ_K of the gradient\nK timesteps back", scale="decades", max_decades=16),
    },
    across=("stage", STAGE_TITLES),
    down=("quantity", {"error": "", "cosine": "", "norm": ""}),
    add=_draw_theory,
    more=lambda _: {"bound δ(K); fit β^K": Look(FAINT, DOTTED, "")},
    height=1.75,
    title=_bias_finding,
    about="Gradient of the last timestep's loss through K timesteps against the full one, at T = {T} on {dataset}: "
    "means over {seeds} with {interval}. Dotted: Aicher's bound δ(K) of the relative error (Aicher et al., 2019), and "
    f"β^K with β fitted to φ_K = ‖∂L/∂h_(T-K)‖. The thin line is an error of {SMALL_ERROR:g}; errors and φ_K far below "
    "the largest are cut off.",
    values=_bias_values,
)


def _varies_length(grid: Grid) -> bool:
    return LENGTH in grid.runs.columns and grid.runs[LENGTH].n_unique() > 1


def _costs(grid: Grid) -> pl.DataFrame:
    """Return log10 of loss or perplexity, step time in ms, memory in MiB by backward length; full is at T.

    `arm` is the cell where arms differ in nothing else but the backward length. All seeds of a setting share one clock
    and one size, so those are one measurement.
    """
    if not _varies_length(grid):
        return test_loss.of(grid).clear()
    settings = grid.runs.select(
        "arm", "model.cell", full=pl.col(LENGTH).is_null(), backward_length=pl.col(LENGTH).fill_null(grid.lengths[-1])
    ).unique(maintain_order=True)
    is_alone = not settings.select("model.cell", "full", "backward_length").is_duplicated().any()
    loss = _loss_name(grid)
    quantities = {loss: (_loss(grid), 1.0)}
    quantities |= {"time": (step_time_s, 1e3), "memory": (activation_bytes, 2.0**-20)}
    parts = []
    for which, (quantity, factor) in quantities.items():
        rows = quantity.of(grid).join(settings, on="arm", maintain_order="left").with_columns(which=pl.lit(which))
        rows = rows.with_columns(arm="model.cell" if is_alone else "arm", value=pl.col("value") * factor)
        if which != loss:
            median = pl.col("value").median()
            rows = rows.group_by(_COST, maintain_order=True).agg(pl.col("seed").min(), median)
        parts.append(rows.select(*_COST, "seed", "value"))
    return pl.concat(parts)


_COST = ["which", "arm", "backward_length", "full"]


def _loss(grid: Grid) -> Quantity:
    return test_perplexity if has_classes(grid) else test_loss


def _loss_name(grid: Grid) -> str:
    """Return «perplexity» where the loss is one per token."""
    return "perplexity" if has_classes(grid) else "loss"


def _cost_finding(view: View) -> str:
    """What the shortest truncation that is not shown to be worse than the full one saves in time."""
    if view.rows.filter(which=_loss_name(view.grid)).drop_nulls("value").is_empty():
        return NOTHING_FINISHED
    if len(view.arms) == 1:
        return capitalised(_cheapest(view, view.arms[0]))
    return "; ".join(f"{name_of(arm)}: {_cheapest(view, arm)}" for arm in view.arms[:2])


def _cheapest(view: View, arm: str) -> str:
    loss = _loss_name(view.grid)
    rows = view.rows.filter(arm=arm, which=loss).drop_nulls("value")
    full = rows.filter("full")
    lengths = rows.filter(~pl.col("full"))["backward_length"].unique().sort().to_list()
    if not lengths:
        return "no truncated replica finished: full backpropagation has nothing beside it"
    if full.is_empty():
        means = rows.group_by("backward_length").agg(pl.col("value").mean()).sort("value", "backward_length")
        missing = "did not finish" if view.rows["full"].any() else "was not run"
        best = means["backward_length"][0]
        return f"lowest mean test {loss} at a backward length of {best}; full backpropagation {missing}"
    side = pl.when("full").then(pl.lit("full")).otherwise(pl.col("backward_length").cast(pl.String))
    lows = {
        length: _loss(view.grid).difference(rows.with_columns(side=side), str(length), "full", "side")["low"][0]
        for length in lengths
    }
    if None in lows.values():
        return "no interval over pairs of seeds: the cost of truncation is not established"
    not_worse = [length for length, low in lows.items() if low <= 0]
    if not not_worse:
        still = f"a backward length of {lengths[-1]} is still worse than full backpropagation"
        return f"every truncation costs test {loss}: {still} in a comparison paired by seed"
    best, worse = not_worse[0], [length for length in lengths if length < not_worse[0]]
    of_length = pl.when(~pl.col("full")).then("backward_length")
    times = dict(view.rows.filter(arm=arm, which="time").select(of_length, "value").drop_nulls("value").iter_rows())
    is_timed = best in times and None in times
    share = f" and takes {100 * times[best] / times[None]:.0f} % of its time per step" if is_timed else ""
    shorter = f"; one of {worse[-1]} is worse" if worse else ""
    return f"a backward length of {best} is not shown to be worse than full backpropagation{share}{shorter}"


def _name_full(view: View, ax: Axes, panel: Panel) -> None:
    """Write «full» beside full backpropagation, on the side of its line where nothing is drawn."""
    ax.margins(y=0.15)
    means = view.of_shown(view.means).filter(**panel).drop_nulls("mean").sort("backward_length")
    shown = truncation_cost.axis(truncation_cost.y, panel).shown
    for x, y, arm in means.filter("full").select("backward_length", "mean", "arm").iter_rows():
        before = means.filter(~pl.col("full"), arm=arm)["mean"]
        rises = len(before) > 0 and before[-1] < y
        offset = (-6, 5) if rises else (-6, -9)
        ax.annotate("full", (x, shown(y)), xytext=offset, textcoords="offset points", ha="right", fontsize=7)


def _cost_about(view: View) -> str:
    full = "Full backpropagation stands at the sequence length {T}, hollow and marked «full». "
    seeds = seeds_of(view.means.filter(which=_loss_name(view.grid)).drop_nulls("mean"))
    return (
        f"Against the backward length in timesteps, at T = {{T}} on {{dataset}}: test {_loss_name(view.grid)} at each "
        f"replica's best validation step, geometric means over {seeds} with {{interval}}, faint points are seeds; time "
        "of a step of all replicas together, on the machine that ran it, and what one replica keeps for the backward "
        f"pass, one measurement per setting. {full if view.rows['full'].any() else ''}"
    ).strip()


truncation_cost = Lines(
    name="truncation_cost",
    applies=_varies_length,
    needs="more than one backward length (`training.truncation.backward_length`)",
    rows=_costs,
    means=lambda view: _loss(view.grid).summary(view.rows, _COST),
    x=Axis(label="backward length", column="backward_length", scale="lengths"),
    y={
        "loss": Axis(label="test loss", scale="log10"),
        "perplexity": Axis(label="test perplexity", scale="log10"),
        "time": Axis(label="time of a step in ms", limits=(0, None)),
        "memory": Axis(label="memory kept in MiB", limits=(0, None)),
    },
    across=(
        "which",
        {"loss": "Test loss", "perplexity": "Test perplexity", "time": "Time of a step", "memory": "Memory kept"},
    ),
    add=_name_full,
    marked=True,
    seeds=True,
    hollow=pl.col("full"),
    height=2.3,
    title=_cost_finding,
    about=_cost_about,
)


@dataclass(frozen=True, eq=False)
class InfluenceBalancing:
    """A truncated gradient of the wrong sign, and what training with it leads to; drawn by stages/replicate.py.

    Attributes:
        gradients: Of the self-test's own system: columns `backward_length` and `gradient`.
        paths: Of its training: columns `backward_length`, `step` and `theta`.
    """

    gradients: pl.DataFrame
    paths: pl.DataFrame

    LIMIT = 1.5
    """What grows beyond this abs θ has diverged and is not shown."""

    @property
    def title(self) -> str:
        """From which K on the sign is right, and which K train to the optimum."""
        right = min(self.gradients.filter(pl.col("gradient") < 0)["backward_length"].to_list(), default=None)
        until = f"until K = {right}" if right is not None else "at every K"
        ends = self.paths.group_by("backward_length", maintain_order=True).agg(pl.col("theta").last())
        reach = ends.filter((pl.col("theta") + 1 / 6).abs() < 0.01)["backward_length"].to_list()
        by = f"only with {' and '.join(f'K = {K}' for K in reach)}" if reach else "with no K tried"
        return f"The truncated gradient has the wrong sign {until}; training reaches the optimum {by}"

    @property
    def caption(self) -> str:
        """What is drawn."""
        largest = self.gradients.sort("gradient", descending=True).row(0, named=True)
        peak = f"largest {number(largest['gradient'], 5)} at K = {largest['backward_length']}"
        tried = ", ".join(str(K) for K in self.paths["backward_length"].unique(maintain_order=True))
        return (
            f"Left: the K-step gradient ds/dθ of Tallec and Ollivier's system of 23 linear units, through the shipped "
            f"backward pass; the exact one is -6, {peak}. Right: θ under SGD at rate 1e-4 by TBPTT(1, K) with the "
            f"state carried, K = {tried}, from 0.5; the optimum is -1/6. Lines end where abs θ exceeds {self.LIMIT:g}. "
            f"A deterministic system: there are no seeds and no intervals."
        )

    @styled
    def draw(self) -> Figure:
        """Return the gradient against K, and θ against the step for each K that was trained."""
        figure, axes = canvas(self.title, 1, 2, 3.2)
        left, right = axes[0]
        K, gradient = (self.gradients[column].to_numpy() for column in ("backward_length", "gradient"))
        left.plot(K, gradient, color=INK)
        left.axhline(-6, color=FAINT, linestyle=":", linewidth=1.0)
        left.annotate("exact", (np.max(K), -6), ha="right", va="bottom", fontsize=7.5)
        left.axhline(0, color=INK, linewidth=0.6)
        left.set(xlabel="backward length K", ylabel="K-step gradient ds/dθ")
        lengths = self.paths["backward_length"].unique(maintain_order=True).to_list()
        for length, look in zip(lengths, looks_of([str(length) for length in lengths]).values(), strict=True):
            path = self.paths.filter(pl.col("theta").abs() <= self.LIMIT, backward_length=length)
            right.plot(path["step"].to_numpy(), path["theta"].to_numpy(), **look.line, label=f"K = {length}")
        right.axhline(-1 / 6, color=FAINT, linestyle=":", linewidth=1.0)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "top", "fontsize": 7.5}
        right.annotate("optimum -1/6", (1, -1 / 6), **place)
        right.set(xlabel="training step", ylabel="θ", ylim=(-self.LIMIT / 2, self.LIMIT))
        right.legend(loc="upper right")
        left.set_title("The K-step gradient")
        right.set_title("Training by TBPTT(1, K)")
        label_panels(axes[0])
        return figure
