"""What networks do at lengths that they never trained on."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.figures.stages import ranked
from pipeline.figures.style import (
    INK,
    canvas,
    handle_of,
    label_panels,
    legend_below,
    log_ticks,
    looks_of,
    styled,
    with_room,
)
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, mean_interval
from pipeline.results import FINISHED

_FORM = r"^test_loss\[T=(\d+)\]$"
MAX_PANELS = 4


def applies(tables: GridTables) -> bool:
    """Return whether networks were tested at lengths that they had not seen."""
    return not _unseen(tables).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: geometric mean of the test loss and its interval, by trained length, arm and tested length.

    Columns `length` (trained at), `arm`, `tested_length`, `loss`, `low`, `high`, `num_seeds`, `num_nonfinite`. Replicas
    that diverged are in no mean.
    """
    means = mean_interval(_points(tables), "log10_loss", ["length", "arm", "tested_length"])
    return means.rename({"mean": "loss"}).with_columns(
        (10.0 ** pl.col(name)).alias(name) for name in ("loss", "low", "high")
    )


def title(tables: GridTables) -> str:
    """Return which arms beat the baseline of their trained length with their whole interval at the farthest unseen one.

    Of the networks trained at the longest length: at the longest unseen length, or at the shortest where all are
    shorter than the trained one.
    """
    unseen = table(tables).filter(pl.col("tested_length") != pl.col("length"))
    if unseen.is_empty():
        return "Inconclusive: no replica finished training"
    trained = int(unseen["length"].to_numpy().max())
    tested = unseen.filter(length=trained)["tested_length"].to_numpy()
    far = int(tested.max() if tested.max() > trained else tested.min())
    baseline, at_end = _baseline(tables, trained), unseen.filter(length=trained, tested_length=far).drop_nulls("high")
    if baseline is None or at_end.is_empty():
        return f"Test loss of networks trained at T = {trained}, tested at T = {far}"
    able = [the(arm) for arm in at_end.filter(pl.col("high") < baseline)["arm"]]
    told, still = few(able) if able else "no network", "still " if far > trained else ""
    beats = "beats" if len(able) < 2 else "beat"
    return f"Trained at T = {trained}, {told} {still}{beats} that length's baseline at T = {far}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    known = any(_baseline(tables, length) is not None for length in _panels(tables))
    dashed = " Dashed: the analytic baseline of the panel's trained length." if known else ""
    return (
        f"Test loss on {tables.dataset} at the length of training (hollow) and at lengths never seen, weights of the "
        f"best validation step: geometric means over {seeds_of(drawn)} with {INTERVAL} of log10.{dashed} "
        f"{outcomes(tables.runs, 'diverged and failed ones are not shown')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each trained length, the longest ones, with a line for each arm."""
    drawn, lengths = table(tables), _panels(tables)
    figure, axes = canvas(title(tables), 1, len(lengths), 3.0, sharex=True, sharey=True)
    looks = looks_of(tables.arms)
    tested = sorted(drawn["tested_length"].unique().to_list())
    for ax, length in zip(axes[0], lengths, strict=True):
        for arm, look in looks.items():
            line = drawn.filter(arm=arm, length=length).drop_nulls("loss")
            low, high = (line[side].fill_null(math.nan).to_numpy() for side in ("low", "high"))
            x, y = line["tested_length"].to_numpy(), line["loss"].to_numpy()
            ax.plot(x, y, **look.line)
            ax.errorbar(x, y, [y - low, high - y], fmt=look.marker, color=look.colour, capsize=2.5, markersize=5)
            trained, hollow = x == length, {"markerfacecolor": "white", "markersize": 5, "zorder": 5}
            ax.plot(x[trained], y[trained], look.marker, color=look.colour, **hollow)
        if drawn.filter(length=length).is_empty():
            ax.text(0.5, 0.5, "no replica finished", transform=ax.transAxes, ha="center")
        baseline = _baseline(tables, length)
        if baseline is not None:
            ax.axhline(baseline, color=INK, linestyle=(0, (4, 2)), linewidth=0.9)
        ax.set_title(f"trained at T = {length}")
        ax.set_xlabel("tested at T")
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_yscale("log")
    axes[0, 0].xaxis.set_major_locator(FixedLocator(_ticks(tested, len(lengths))))
    axes[0, 0].xaxis.set_minor_locator(NullLocator())
    axes[0, 0].xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("test loss")
    log_ticks(axes[0, 0], "y")
    label_panels(axes[0])
    legend_below(figure, [handle_of(look) for look in looks.values()], [name_of(arm) for arm in looks])
    return figure


def _ticks(lengths: list[int], num_panels: int) -> list[int]:
    """Return the lengths whose labels have room in one of so many panels: a digit takes 1.3 % of the figure."""
    return with_room(lengths, 0.013 * num_panels * (len(str(lengths[-1])) + 0.6)) if lengths else []


def _panels(tables: GridTables) -> list[int]:
    """Return the trained lengths that are shown: the longest ones."""
    return tables.lengths[-MAX_PANELS:]


def _points(tables: GridTables) -> pl.DataFrame:
    sound = pl.col("status").is_in(FINISHED)
    seen = tables.runs.filter(sound).select("length", "arm", "seed", tested_length="length", loss="test_loss")
    unseen = _unseen(tables).filter(sound).select(seen.columns)
    both = pl.concat([seen, unseen]).with_columns(log10_loss=pl.col("loss").log10())
    return both.sort("length", ranked(tables.arms), "tested_length", "seed")


def _unseen(tables: GridTables) -> pl.DataFrame:
    """Return the tests at lengths other than the trained one, whose test loss the runs have."""
    tested = pl.col("metric").str.extract(_FORM, 1).cast(pl.Int64)
    rows = tables.curves.filter(pl.col("metric").str.contains(_FORM)).with_columns(tested_length=tested, loss="value")
    return rows.filter(pl.col("tested_length") != pl.col("length"))


def _baseline(tables: GridTables, length: int) -> float | None:
    """Return the baseline of the networks trained at a length; None where it is unknown or several."""
    known = tables.runs.filter(length=length)["baseline_loss"].drop_nulls().unique()
    return float(known[0]) if len(known) == 1 else None
