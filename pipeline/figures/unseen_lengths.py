"""What networks do at lengths that they never trained on."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pipeline.figures.stages import FINISHED, ranked
from pipeline.figures.style import INK, canvas, handle_of, label_panels, legend_below, log_ticks, looks_of, styled
from pipeline.figures.words import INTERVAL, left_out, listed, name_of, outcomes, seeds_of, the
from pipeline.statistics import GridTables, mean_interval

_FORM = r"^test_loss\[T=(\d+)\]$"
MAX_PANELS = 4


def applies(tables: GridTables) -> bool:
    """Return whether networks were tested at lengths that they had not seen."""
    return tables.curves["metric"].str.contains(_FORM).any()


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
    """Return which arms beat the baseline with their whole interval at the longest unseen length."""
    drawn, baseline = table(tables), _baseline(tables)
    longest, trained = int(drawn["tested_length"].to_numpy().max()), tables.lengths[-1]
    at_end = drawn.filter(pl.col("tested_length") == longest, pl.col("length") == trained).drop_nulls("high")
    if baseline is None or at_end.is_empty():
        return f"Test loss of networks trained at T = {trained}, up to T = {longest}"
    able = [the(arm) for arm in at_end.filter(pl.col("high") < baseline)["arm"]]
    told = listed(able) if able else "no network"
    return f"Trained at T = {trained}, {told} still beat{'s' if len(able) < 2 else ''} the baseline at T = {longest}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and what is left out."""
    drawn = table(tables)
    return (
        f"Test loss on {tables.dataset} at the length of training (hollow) and at lengths never seen, weights of the "
        f"best validation step: geometric means over {seeds_of(drawn)} with {INTERVAL} of log10. Dashed: the analytic "
        f"baseline. {outcomes(tables.runs, 'diverged and failed ones are not shown')}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each trained length, the longest ones, with a line for each arm."""
    drawn, lengths = table(tables), tables.lengths[-MAX_PANELS:]
    figure, axes = canvas(title(tables), 1, len(lengths), 3.0, sharex=True, sharey=True)
    looks, baseline = looks_of(tables.arms), _baseline(tables)
    tested = sorted(drawn["tested_length"].unique().to_list())
    for ax, length in zip(axes[0], lengths, strict=True):
        for arm, look in looks.items():
            line = drawn.filter(arm=arm, length=length).drop_nulls("loss")
            low, high = (line[side].fill_null(math.nan).to_numpy() for side in ("low", "high"))
            x, y = line["tested_length"].to_numpy(), line["loss"].to_numpy()
            ax.plot(x, y, **look.line)
            ax.errorbar(x, y, [y - low, high - y], fmt=look.marker, color=look.colour, capsize=2.5, markersize=5)
            ax.plot(x[:1], y[:1], look.marker, color=look.colour, markerfacecolor="white", markersize=5, zorder=5)
        if baseline is not None:
            ax.axhline(baseline, color=INK, linestyle=(0, (4, 2)), linewidth=0.9)
        ax.set_title(f"trained at T = {length}")
        ax.set_xlabel("tested at T")
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_yscale("log")
    axes[0, 0].xaxis.set_major_locator(FixedLocator(tested))
    axes[0, 0].xaxis.set_minor_locator(NullLocator())
    axes[0, 0].xaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("test loss")
    log_ticks(axes[0, 0], "y")
    label_panels(axes[0])
    legend_below(figure, [handle_of(look) for look in looks.values()], [name_of(arm) for arm in looks])
    return figure


def _points(tables: GridTables) -> pl.DataFrame:
    sound = pl.col("status").is_in(FINISHED)
    unseen = tables.curves.filter(sound, pl.col("metric").str.contains(_FORM)).select(
        "length", "arm", "seed", tested_length=pl.col("metric").str.extract(_FORM, 1).cast(pl.Int64), loss="value"
    )
    seen = tables.runs.filter(sound).select("length", "arm", "seed", tested_length="length", loss="test_loss")
    both = pl.concat([seen, unseen]).with_columns(log10_loss=pl.col("loss").log10())
    return both.sort("length", ranked(tables.arms), "tested_length", "seed")


def _baseline(tables: GridTables) -> float | None:
    known = tables.runs["baseline_loss"].drop_nulls().unique()
    return float(known[0]) if len(known) == 1 else None
