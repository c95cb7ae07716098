"""How the gradient differs between layers and directions: its norm at every timestep, before and after training."""

from __future__ import annotations

from typing import Any

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.stages import MAX_PANELS, STAGES, chosen_told, interval, ranked, recurrent, spread, staged
from pipeline.figures.style import Look, banded, canvas, decades, handle_of, label_panels, legend_below, styled
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval

MAX_BOTH = 3
"""Of more arms than these only the end of training is drawn."""

_LAYERS = (Look("#12416e", "solid", "o"), Look("#d1580b", "solid", "s"), Look("#58bab0", "solid", "^"))
_DEEPER = (Look("#93308a", "solid", "D"), Look("#c79a2b", "solid", "v"), Look("#6f6f6f", "solid", "P"))
_DASHES = {"forward": "solid", "backward": (0, (4, 1.5))}
_PLACE = ["layer", "direction"]


def applies(tables: GridTables) -> bool:
    """Return whether an arm has traces of more than one layer or direction."""
    return bool(_known(tables))


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean over seeds of log10 ‖∂L/∂h_t‖ by stage, arm, layer, direction and timestep.

    At the longest length, of arms with several layers or directions.
    """
    means = mean_interval(_rows(tables), "log10_norm", ["stage", "arm", *_PLACE, "timestep"])
    later = pl.col("stage") == "end"
    return means.sort(later, ranked(tables.arms), "layer", pl.col("direction") == "backward", "timestep")


def gaps(tables: GridTables) -> pl.DataFrame:
    """Return how many decades the first layer's gradient lies below the last one's, by stage and arm.

    A seed's number is the difference of the means over timesteps of log10 norm, forward in time; timesteps at which
    either is not finite are left out. Arms with one layer have no row.
    """
    forward = _rows(tables).filter(pl.col("direction") == "forward")
    ends = [
        forward.filter(pl.col("layer") == bound.over("arm")) for bound in (pl.col("layer").min(), pl.col("layer").max())
    ]
    keys = ["stage", "arm", "seed", "timestep"]
    pairs = ends[0].join(ends[1], on=keys, suffix="_top").filter(pl.col("layer") < pl.col("layer_top"))
    pairs = pairs.with_columns(gap=pl.col("log10_norm_top") - pl.col("log10_norm")).filter(pl.col("gap").is_finite())
    by_seed = pairs.group_by("stage", "arm", "seed", maintain_order=True).agg(pl.col("gap").mean())
    return mean_interval(by_seed, "gap", ["stage", "arm"]).sort(pl.col("stage") == "end", ranked(tables.arms))


def title(tables: GridTables) -> str:
    """Return whether after training less gradient reaches the first layer than the last, by arm."""
    end = gaps(tables).filter(pl.col("stage") == "end").drop_nulls("mean")
    if end.is_empty():
        return _title_of_directions(tables)
    told = {row["arm"]: f"{the(row['arm'])} ({interval(_distance(row))} decades)" for row in end.iter_rows(named=True)}
    names = told if end.height <= 3 else {arm: the(arm) for arm in told}
    less, more = end.filter(pl.col("low") > 0)["arm"], end.filter(pl.col("high") < 0)["arm"]
    unsure = [names[arm] for arm in told if arm not in less and arm not in more]
    parts = [
        f"{verdict} in {few([names[arm] for arm in arms])}"
        for verdict, arms in (("smaller", less), ("larger", more))
        if len(arms)
    ]
    if not parts:
        return f"After training no difference between first and last layer's gradient is established in {few(unsure)}"
    rest = f"; no difference is established in {few(unsure)}" if unsure else ""
    return f"After training the first layer's gradient is {', '.join(parts)} than the last layer's{rest}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and which arms."""
    drawn = table(tables)
    ends = gaps(tables).filter(pl.col("stage") == "end", pl.col("arm").is_in(_shown(tables))).drop_nulls("mean")
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in ends.iter_rows(named=True))
    gap = f" Last layer's log10 norm less the first one's, mean over timesteps, after training: {told}." if told else ""
    return (
        f"Frobenius norm over the probe batch of ∂L/∂h_t of every layer and direction, at T = {tables.lengths[-1]} on "
        f"{tables.dataset}: mean over {seeds_of(drawn)} of log10, bands the {INTERVAL}; layers are counted from the "
        f"input, dashed is backward in time.{gap}{chosen_told(_shown(tables), _known(tables), _BY)} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones have no end of training')}"
        f"{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each arm; of few arms, at initialisation and at the end, of more at the end alone."""
    drawn, arms = table(tables), _shown(tables)
    both = len(arms) <= MAX_BOTH
    panels = [(stage, arm) for stage in STAGES for arm in arms if both or stage == "end"]
    num_columns = len(arms) if both else 3
    num_rows = -(-len(panels) // num_columns)
    if len(arms) == 1:
        num_rows, num_columns = 1, len(panels)
    figure, axes = canvas(title(tables), num_rows, num_columns, 0.7 + 2.1 * num_rows, sharex=True, sharey=True)
    for ax, (stage, arm) in zip(axes.flat, panels, strict=False):
        mine = drawn.filter(stage=stage, arm=arm)
        for place in mine.select(_PLACE).unique(maintain_order=True).iter_rows():
            banded(ax, "timestep", mine.filter(layer=place[0], direction=place[1]), _look(*place), shade=0.15)
        said = {"initialisation": "start", "end": "end"}[stage]
        ax.set_title(f"{name_of(arm)}, {said}" if both else name_of(arm), fontsize=8)
        ax.set_xlabel("timestep t")
        ax.set_ylabel("gradient norm")
        ax.label_outer()
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    decades(axes[0, 0])
    places = drawn.filter(pl.col("arm").is_in(arms)).select(_PLACE).unique().sort("layer", "direction").rows()
    legend_below(figure, [handle_of(_look(*place)) for place in places], [_told(*place) for place in places])
    label_panels(list(axes.flat[: len(panels)]))
    return figure


_BY = "how much less gradient the first layer gets"


def _title_of_directions(tables: GridTables) -> str:
    """Return, where no arm has two layers, which direction's state gets more gradient at its own reading end."""
    if "end" not in table(tables)["stage"]:
        return "No replica finished training: only the initial gradient is known"
    rows = _rows(tables).filter(pl.col("stage") == "end", pl.col("log10_norm").is_finite())
    by_seed = rows.group_by("arm", "seed", "direction", maintain_order=True).agg(pl.col("log10_norm").mean())
    wide = by_seed.pivot(on="direction", index=["arm", "seed"], values="log10_norm", maintain_order=True)
    if not {"forward", "backward"} <= {*wide.columns}:
        return "Inconclusive: the gradient of one direction is not finite"
    wide = wide.with_columns(difference=pl.col("forward") - pl.col("backward"))
    parts: list[str] = []
    for row in mean_interval(wide, "difference", ["arm"]).iter_rows(named=True):
        parts.append(f"{the(row['arm'])} {_side(row)}")
    return f"Mean gradient of the forward less the backward states after training: {few(parts)}"


def _distance(row: dict[str, Any]) -> dict[str, Any]:
    """Return a difference whose interval lies below zero with its sign changed: the verdict says which way it goes."""
    if row["high"] is None or row["high"] >= 0:
        return row
    return {"mean": -row["mean"], "low": -row["high"], "high": -row["low"]}


def _side(row: dict[str, Any]) -> str:
    clear = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    return f"{interval(row)} decades" if clear else f"{interval(row)} decades, inconclusive"


def _rows(tables: GridTables) -> pl.DataFrame:
    rows = recurrent(tables.at_longest(tables.traces)).filter(quantity="h")
    return staged(rows.filter(pl.struct(_PLACE).n_unique().over("arm") > 1))


def _known(tables: GridTables) -> list[str]:
    known = _rows(tables)["arm"].unique()
    return [arm for arm in tables.arms if arm in known]


def _shown(tables: GridTables) -> list[str]:
    values = dict(gaps(tables).filter(stage="end").select("arm", "mean").iter_rows())
    return spread({arm: values.get(arm) for arm in _known(tables)}, MAX_PANELS)


def _look(layer: int, direction: str) -> Look:
    looks = (*_LAYERS, *_DEEPER)
    look = looks[layer % len(looks)]
    return Look(look.colour, _DASHES.get(direction, ":"), look.marker)


def _told(layer: int, direction: str) -> str:
    return f"layer {layer + 1}, {direction}"
