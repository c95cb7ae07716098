"""Exposure bias: how much worse a decoder is where it is given its own tokens than where it is given the true ones."""

from __future__ import annotations

import textwrap
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.decoders import MODES, errors_by
from pipeline.figures.stages import chosen_told, interval, ranked, spread
from pipeline.figures.style import (
    FAINT,
    INK,
    Look,
    banded,
    canvas,
    dots,
    handle_of,
    label_panels,
    legend_below,
    looks_of,
    styled,
)
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval, paired_difference
from pipeline.results import FINISHED

MAX_ARMS = 4
"""Of more arms than these the lines of some are drawn; the gap of every one."""

MAX_SHADED = 2
"""So many arms have bands around their lines."""

_DASHES = {"free_running": "solid", "teacher_forced": (0, (3, 1.6))}


def applies(tables: GridTables) -> bool:
    """Return whether a decoder was tested both ways."""
    return not gaps(tables).is_empty() and not errors_by(tables, "output_position").is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return the mean token error over seeds, with its interval, by arm, `mode` and output position `at`."""
    return mean_interval(errors_by(tables, "output_position"), "error", ["arm", "mode", "at"], bounds=(0.0, 1.0))


def gaps(tables: GridTables) -> pl.DataFrame:
    """Return the token error of the free-running decoder less the teacher-forced one, mean over seeds, by arm."""
    return mean_interval(_gaps_by_seed(tables), "gap", ["arm"])


def title(tables: GridTables) -> str:
    """Return the largest and the smallest gap, where the difference between the two is established over seeds."""
    known = gaps(tables).drop_nulls("mean").sort("mean", descending=True, maintain_order=True)
    if known.is_empty():
        return "Inconclusive: no replica finished training"
    most, least = known.row(0, named=True), known.row(-1, named=True)
    lead = "Given its own tokens in place of the true ones a decoder errs more often, by percentage points"
    if known.height == 1:
        if most["low"] is None or most["low"] <= 0:
            return "Inconclusive: no gap between free running and teacher forcing is established"
        return f"{lead}: {_points(most)}"
    apart = paired_difference(_gaps_by_seed(tables), "gap", "arm", most["arm"], least["arm"]).row(0, named=True)
    if apart["low"] is None or apart["low"] <= 0:
        return "Inconclusive: no difference between arms in the gap of free running to teacher forcing is established"
    return f"{lead}: {_points(most)} with {the(most['arm'])}, {_points(least)} with {the(least['arm'])}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn, apart = table(tables), gaps(tables)
    told = "; ".join(f"{name_of(row['arm'])} {_points(row)}" for row in apart.drop_nulls("mean").iter_rows(named=True))
    modes = f"{MODES['teacher_forced']} (dashed) or {MODES['free_running']} (solid)"
    shade = f", bands the {INTERVAL}" if len(_shown(tables)) <= MAX_SHADED else ""
    return (
        f"Above: share of wrong tokens at each output position on the test sequences of {tables.dataset}, the decoder "
        f"being {modes}: means over {seeds_of(drawn)}{shade}. Below: the second less the first over all "
        f"positions, in percentage points, paired by seed: points are seeds, markers means over {seeds_of(apart)} with "
        f"{INTERVAL}. {told}.{chosen_told(_shown(tables), apart['arm'].to_list(), 'the gap')} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones are not shown')}{left_out(apart)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw errors along the output above, the gap of every arm below."""
    drawn, looks = table(tables), looks_of(tables.arms)
    arms = [arm for arm in tables.arms if arm in gaps(tables)["arm"]]
    labels = [textwrap.fill(name_of(arm), 30) for arm in arms]
    shown, below = _shown(tables), 0.55 + sum(0.11 + 0.13 * len(label.splitlines()) for label in labels)
    figure, axes = canvas(title(tables), 2, 1, 2.9 + below, height_ratios=[2.2, below])
    for arm in shown:
        _lines(axes[0, 0], drawn.filter(arm=arm), looks[arm], shade=0.15 if len(shown) <= MAX_SHADED else 0.0)
    axes[0, 0].set_title("Along the output")
    axes[0, 0].set_xlabel("output position")
    axes[0, 0].set_ylabel("wrong tokens (%)")
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes[0, 0].set_ylim(bottom=0)
    _gap_rows(axes[1, 0], tables, arms, looks)
    axes[1, 0].set_yticks(range(len(arms)), labels)
    handles = [handle_of(Look(looks[arm].colour, "solid", looks[arm].marker)) for arm in shown]
    handles += [handle_of(Look(FAINT, _DASHES[mode], "")) for mode in MODES]
    legend_below(figure, handles, [*map(name_of, shown), *MODES.values()])
    label_panels(list(axes[:, 0]))
    return figure


def _lines(ax: Axes, rows: pl.DataFrame, look: Look, shade: float) -> None:
    percent = rows.with_columns(pl.col("mean", "low", "high") * 100)
    for mode, dashes in _DASHES.items():
        face = look.colour if mode == "free_running" else "white"
        line = percent.filter(mode=mode)
        banded(ax, "at", line, Look(look.colour, dashes, look.marker), shade=shade, markerfacecolor=face)


def _gap_rows(ax: Axes, tables: GridTables, arms: list[str], looks: dict[str, Look]) -> None:
    seeds, means = _gaps_by_seed(tables), gaps(tables)
    for place, arm in enumerate(arms):
        own = seeds.filter(arm=arm)["gap"].drop_nulls().to_list()
        dots(ax, place, own, means.filter(arm=arm).row(0, named=True), looks[arm], below=0.26)
    ax.axvline(0, color=INK, linewidth=0.6)
    ax.set_ylim(len(arms) - 0.4, -0.5)
    ax.set_title("Gap, free running less teacher forced")
    ax.set_xlabel("wrong tokens (percentage points)")


def _gaps_by_seed(tables: GridTables) -> pl.DataFrame:
    """Return the gap of every replica that did not diverge: columns `arm`, `seed`, `gap`."""
    rows = tables.at_longest(tables.curves).filter(pl.col("status").is_in(FINISHED))
    metrics = (f"test_token_error[{mode}]" for mode in ("free_running", "teacher_forced"))
    free, forced = (rows.filter(metric=metric).select("arm", "seed", "value") for metric in metrics)
    pairs = free.join(forced, on=["arm", "seed"], suffix="_forced")
    return pairs.sort(ranked(tables.arms), "seed").select("arm", "seed", gap=pl.col("value") - pl.col("value_forced"))


def _shown(tables: GridTables) -> list[str]:
    values = dict(gaps(tables).select("arm", "mean").iter_rows())
    return spread({arm: values[arm] for arm in tables.arms if arm in values}, MAX_ARMS)


def _points(row: dict[str, Any]) -> str:
    """Return «14 [10, 17]», in percentage points."""
    return interval({side: None if row[side] is None else 100 * row[side] for side in ("mean", "low", "high")})
