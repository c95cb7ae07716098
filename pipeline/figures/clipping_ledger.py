"""What clipping did: the gradient norm before and after it, how often it acted, and whether it turned the gradient."""

from __future__ import annotations

import textwrap

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.figures.stages import chosen_told, interval, spread
from pipeline.figures.style import FAINT, INK, canvas, label_panels, looks_of, styled
from pipeline.figures.words import INTERVAL, count, left_out, listed, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval

MAX_BINS = 75
"""Steps are gathered into at most as many bins; a bin of a seed is the median of its steps."""

MAX_COLUMNS = 4
"""Arms that are drawn, side by side."""

_NORMS = ("grad_norm", "clipped_grad_norm")
_TURNED = 1e-6
"""How far below 1 a mean cosine must lie to count as a turn; that of a shortened gradient is 1 but for rounding."""


def applies(tables: GridTables) -> bool:
    """Return whether the gradient norm of updates was recorded."""
    return "grad_norm" in tables.curves["metric"]


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn, by arm and bin of steps, at the longest length.

    Columns `arm`, `step` (middle of the bin), `metric` (`grad_norm`, `clipped_grad_norm`: median over seeds in
    `middle`, quartiles in `low` and `high`; `clipped`: mean share of clipped steps and its interval; `cosine`, where it
    was recorded: mean over the bin's steps of the cosine of the raw and the applied gradient), `num_seeds` and
    `num_nonfinite` (updates whose norm is NaN or infinite, in no median).
    """
    updates = _updates(tables)
    last = int(updates["step"].to_numpy().max())
    num_bins = min(MAX_BINS, last)
    binned = updates.with_columns(bin=(pl.col("step") - 1) * num_bins // last)
    binned = binned.with_columns(step=(pl.col("bin") + 0.5) * (last / num_bins) + 0.5)
    norms = [_spread(binned, metric) for metric in _NORMS]
    shares = binned.group_by("arm", "step", "seed").agg(clipped=pl.col("clipped").mean())
    share = mean_interval(shares, "clipped", ["arm", "step"]).rename({"mean": "middle"}).drop("num_missing")
    columns = ["arm", "metric", "step", "middle", "low", "high", "num_seeds", "num_nonfinite"]
    turns = mean_interval(
        binned.group_by("arm", "step", "seed").agg(pl.col("cosine").mean()),
        "cosine",
        ["arm", "step"],
        bounds=(-1.0, 1.0),
    )
    turns = turns.rename({"mean": "middle"}).drop_nulls("middle").with_columns(metric=pl.lit("cosine"))
    parts = [*norms, share.with_columns(metric=pl.lit("clipped")), turns]
    return pl.concat([part.select(columns) for part in parts]).sort("arm", "metric", "step")


def shares(tables: GridTables) -> pl.DataFrame:
    """Return the mean share of clipped steps over seeds, with its interval, by arm at the longest length."""
    by_seed = _updates(tables).group_by("arm", "seed", maintain_order=True).agg(clipped=pl.col("clipped").mean())
    return mean_interval(by_seed, "clipped", ["arm"], bounds=(0.0, 1.0))


def cosines(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds of the mean cosine of raw and applied gradient over clipped steps, by arm.

    A seed none of whose steps was clipped has none (`num_missing`).
    """
    touched = (pl.col("clipped") > 0) & pl.col("cosine").is_finite()
    by_seed = _updates(tables).group_by("arm", "seed", maintain_order=True).agg(pl.col("cosine").filter(touched).mean())
    return mean_interval(by_seed, "cosine", ["arm"], bounds=(-1.0, 1.0))


def title(tables: GridTables) -> str:
    """Return where clipping turns the gradient; where it nowhere does, which share of steps was clipped."""
    found = shares(tables).drop_nulls("mean").sort("mean", descending=True, maintain_order=True)
    if found["mean"].sum() == 0:
        return "No step was clipped"
    turned = _turned(tables)
    if not turned.is_empty():
        worst = turned.row(0, named=True)
        kept = cosines(tables).drop_nulls("mean").height - turned.height
        others = f"; {count(kept, 'arm')} only shortened it" if kept else ""
        more = f", {count(turned.height - 1, 'other arm')} less" if turned.height > 1 else ""
        return (
            f"Clipping turns the gradient of {the(worst['arm'])}: mean cosine of clipped steps {interval(worst)}"
            f"{more}{others}"
        )
    parts = [f"{100 * row['mean']:.0f} % of {the(row['arm'])}'s" for row in found.iter_rows(named=True)]
    if len(parts) > 3:
        return f"Clipping shortens from {parts[-1]} to {parts[0]} steps"
    return f"Clipping shortens {listed(parts)} steps"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    rule = tables.runs["clipping.name"].unique().sort().to_list() if "clipping.name" in tables.runs.columns else []
    longest = tables.at_longest(tables.runs)
    return (
        f"Norm of the gradient over all parameters of a replica before (solid) and after clipping (dashed), at "
        f"T = {tables.lengths[-1]} on {tables.dataset}, rule {' or '.join(rule) or 'unknown'}; steps are gathered into "
        f"{count(drawn['step'].n_unique(), 'bin')}, lines are medians and bands quartiles over {seeds_of(drawn)}, a "
        f"seed counting until it stops. Below: share of steps that were shortened, mean with {INTERVAL}"
        f"{_cosine_told(tables)}. Dotted: the threshold.{chosen_told(_shown(tables), _recorded(tables), _by(tables))} "
        f"{outcomes(longest, 'they count until they stopped')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw two panels for each arm: norms on a log axis, and below them the share of steps clipped."""
    drawn, arms, looks = table(tables), _shown(tables), looks_of(tables.arms)
    metrics = ["clipped", "cosine"] if _is_turned(tables) else ["clipped"]
    figure, axes = canvas(
        title(tables),
        *(1 + len(metrics), len(arms)),
        3.0 + 1.1 * len(metrics),
        sharex=True,
        sharey="row",
        gridspec_kw={"height_ratios": [2.2, *[1] * len(metrics)]},
    )
    means = dict(shares(tables).select("arm", "mean").iter_rows())
    for column, arm in zip(axes.T, arms, strict=True):
        rows, colour = drawn.filter(pl.col("arm") == arm), looks[arm].colour
        _norms(column[0], rows, colour)
        for ax, metric in zip(column[1:], metrics, strict=True):
            _share(ax, rows.filter(pl.col("metric") == metric), colour)
        for threshold in _thresholds(tables, arm):
            column[0].axhline(threshold, color=INK, linestyle=":", linewidth=1.0)
        column[0].set_title(_wrapped(name_of(arm), len(arms)))
        column[1].set_title(f"mean {100 * means[arm]:.0f} %", loc="right", fontweight="normal")
        column[-1].set_xlabel("training step")
        column[-1].xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("gradient norm")
    axes[1, 0].set_ylabel("share clipped")
    axes[1, 0].set_ylim(0, 1)
    if len(metrics) == 2:
        axes[2, 0].set_ylabel("cosine")
        axes[2, 0].set_ylim(top=1.02)
    handles = [
        Line2D([], [], color=INK, label="before clipping"),
        Line2D([], [], color=FAINT, linestyle="--", label="after clipping"),
        Line2D([], [], color=INK, linestyle=":", linewidth=1.0, label="threshold"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    label_panels(axes[0])
    return figure


def _updates(tables: GridTables) -> pl.DataFrame:
    """Return a row for each update: its norms beside one another, and whether it was clipped."""
    curves = tables.at_longest(tables.curves).filter(pl.col("metric").is_in([*_NORMS, "clip_cosine"]))
    wide = curves.pivot(on="metric", index=["arm", "seed", "step"], values="value", maintain_order=True)
    shortened = pl.col("clipped_grad_norm") < pl.col("grad_norm")
    cosine = pl.col("clip_cosine") if "clip_cosine" in wide.columns else pl.lit(None, pl.Float64)
    return wide.with_columns(clipped=shortened.cast(pl.Float64), cosine=cosine)


def _turned(tables: GridTables) -> pl.DataFrame:
    """Return the rows of `cosines` whose mean lies below 1 with its whole interval, the smallest first."""
    below = pl.coalesce("high", "mean") < 1 - _TURNED
    return cosines(tables).filter(below).sort("mean", maintain_order=True)


def _is_turned(tables: GridTables) -> bool:
    return not _turned(tables).is_empty()


def _cosine_told(tables: GridTables) -> str:
    if _is_turned(tables):
        found = cosines(tables).drop_nulls("mean").iter_rows(named=True)
        told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in found)
        return (
            f", and the cosine of the raw and the applied gradient (1 where it is only shortened), whose mean over "
            f"clipped steps is {told}"
        )
    return ""


def _by(tables: GridTables) -> str:
    return "mean cosine of clipped steps" if _is_turned(tables) else "share of clipped steps"


def _recorded(tables: GridTables) -> list[str]:
    known = shares(tables)["arm"].to_list()
    return [arm for arm in tables.arms if arm in known]


def _shown(tables: GridTables) -> list[str]:
    means = dict((cosines if _is_turned(tables) else shares)(tables).select("arm", "mean").iter_rows())
    recorded = _recorded(tables)
    known = [arm for arm in recorded if means.get(arm) is not None]
    few = known if len(recorded) > MAX_COLUMNS <= len(known) else recorded
    return spread({arm: means.get(arm) for arm in few}, MAX_COLUMNS)


def _wrapped(name: str, num_columns: int) -> str:
    """Return the title of one of so many columns, in lines that fit."""
    return textwrap.fill(name, max(14, 72 // num_columns - 3), break_long_words=False)


def _spread(binned: pl.DataFrame, metric: str) -> pl.DataFrame:
    finite = pl.col(metric).is_finite()
    by_seed = binned.group_by("arm", "step", "seed").agg(
        value=pl.col(metric).filter(finite).median(), num_nonfinite=finite.not_().sum()
    )
    value = pl.col("value")
    return by_seed.group_by("arm", "step").agg(
        metric=pl.lit(metric),
        middle=value.median(),
        low=value.quantile(0.25, "linear"),
        high=value.quantile(0.75, "linear"),
        num_seeds=value.count().cast(pl.Int64),
        num_nonfinite=pl.col("num_nonfinite").sum().cast(pl.Int64),
    )


def _norms(ax: Axes, rows: pl.DataFrame, colour: str) -> None:
    for metric in _NORMS:
        line = rows.filter(pl.col("metric") == metric)
        before = metric == "grad_norm"
        steps, shade = line["step"].to_numpy(), colour if before else FAINT
        ax.plot(steps, line["middle"].to_numpy(), color=shade, linestyle="-" if before else "--")
        if before:
            low, high = line["low"].to_numpy(), line["high"].to_numpy()
            ax.fill_between(steps, low, high, color=shade, alpha=0.2, linewidth=0)


def _share(ax: Axes, rows: pl.DataFrame, colour: str) -> None:
    steps = rows["step"].to_numpy()
    ax.plot(steps, rows["middle"].to_numpy(), color=colour)
    low, high = (rows[side].fill_null(float("nan")).to_numpy() for side in ("low", "high"))
    ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def _thresholds(tables: GridTables, arm: str) -> list[float]:
    if "clipping.threshold" not in tables.runs.columns:
        return []
    mine = tables.at_longest(tables.runs).filter(pl.col("arm") == arm)
    return [float(value) for value in mine["clipping.threshold"].drop_nulls().unique().sort()]
