"""How much of the gradient at the last source token reaches the encoder k tokens earlier."""

from __future__ import annotations

from typing import Any

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.decoders import attending, with_arm
from pipeline.figures.gradient_by_lag import relative_to_last
from pipeline.figures.lags import contrast, panels
from pipeline.figures.stages import STAGES, layer_told, top_forward
from pipeline.figures.style import styled
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of
from pipeline.quantities import GridTables, decay_rates, mean_interval

INITIALLY, _ = STAGES
_SERIES = ["stage", "arm"]


def applies(tables: GridTables) -> bool:
    """Return whether the gradient into an encoder was traced."""
    return not tables.traces.filter(part="encoder", quantity="h").is_empty()


def relative_norms(tables: GridTables) -> pl.DataFrame:
    """Return log10 ‖∂L/∂h_{S-k}‖ of the encoder relative to lag k = 0, by stage, arm, lag and seed.

    At the longest length, of the encoder's last layer, forward in time; see `relative_to_last`.
    """
    traces = tables.at_longest(tables.traces).filter(quantity="h")
    return relative_to_last(top_forward(traces, "encoder"), tables.arms)


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: mean over seeds of the relative log10 norm with its interval, by stage, arm and lag."""
    return mean_interval(relative_norms(tables), "log10_norm", [*_SERIES, "lag"])


def rates(tables: GridTables) -> pl.DataFrame:
    """Return the mean slope over seeds, in decades per timestep of lag, with its interval, by stage and arm."""
    return mean_interval(_slopes(tables), "slope", _SERIES)


def title(tables: GridTables) -> str:
    """Return the factor per timestep of lag after training, with and without attention, if it is established.

    If it is not, but was at initialisation, those are told. The factor of several arms is the geometric mean of theirs.
    Of arms that are alike in this, the smallest and the largest are told.
    """
    every = _slopes(tables)
    slopes = every.filter(stage="end")
    known = mean_interval(slopes, "slope", ["arm"]).drop_nulls("mean").sort("mean", maintain_order=True)
    if known.is_empty():
        return "No replica finished training: only the initial gradient is known"
    lead = "the gradient into the encoder changes per timestep of lag by"
    kinds, before = (contrast(part, "slope", attending(tables)) for part in (slopes, every.filter(stage=INITIALLY)))
    if kinds.height == 2 and kinds["apart"].all():
        return f"After training {lead} {_contrasted(kinds)}"
    if kinds.height == 2 and before["apart"].all():
        return f"At initialisation {lead} {_contrasted(before)}; after training no difference is established"
    if kinds.height == 2:
        return "Inconclusive: no difference in the encoder's gradient with and without attention is established"
    ends = [known.row(0, named=True), known.row(-1, named=True)][: known.height]
    told = [f"{_factor(row)} {with_arm(row['arm'], tables)}" for row in ends]
    return f"After training {lead} {', by '.join(told)}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, how straight the lines are, and what is left out."""
    drawn, traces = table(tables), tables.at_longest(tables.traces)
    straight = mean_interval(_slopes(tables).filter(stage="end"), "r_squared", ["arm"]).drop_nulls("mean")
    told = "; ".join(f"{name_of(arm)} {r_squared:.2f}" for arm, r_squared in straight["arm", "mean"].iter_rows())
    fits = f" After training a line explains of the variance over lags (R², mean over seeds): {told}." if told else ""
    treatment = "diverged and failed replicas are in the first panel only, if at all"
    return (
        f"Frobenius norm over the probe batch of ∂L/∂h of the encoder k timesteps before the last token of the source, "
        f"relative to lag 0, on {tables.dataset}; exact float64 backward pass through the decoder, and attention where "
        f"there is any. Sources end together at lag 0; a shorter one has nothing at the longest lags. Lines are means "
        f"of log10 over {seeds_of(drawn)}, bands the {INTERVAL}; factors per timestep are least-squares fits of the "
        f"log10 norm, seed by seed.{fits}{layer_told(traces.filter(quantity='h'), 'encoder')} "
        f"{outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw two panels on one log axis, each arm with its factors per timestep at initialisation and at the end."""
    drawn, slopes, labels = table(tables), rates(tables), {}
    for arm in [arm for arm in tables.arms if arm in drawn["arm"]]:
        own = dict(slopes.filter(arm=arm).select("stage", "mean").iter_rows())
        labels[arm] = f"{name_of(arm)}  {' → '.join(_times(own.get(stage)) for stage in STAGES)}"
    return panels(title(tables), drawn, tables.arms, labels, last="the last token", reference="lag 0")


def _slopes(tables: GridTables) -> pl.DataFrame:
    return decay_rates(relative_norms(tables), _SERIES)


def _contrasted(kinds: pl.DataFrame) -> str:
    with_it, without = kinds.iter_rows(named=True)
    return f"{_factor(without)} without attention, by {_factor(with_it)} with it"


def _factor(row: dict[str, Any]) -> str:
    """Return «×0.850 [0.830, 0.870]» of a slope in decades."""
    if row["low"] is None:
        return _times(row["mean"])
    return f"{_times(row['mean'])} [{10 ** row['low']:.3f}, {10 ** row['high']:.3f}]"


def _times(slope: float | None) -> str:
    return "no fit" if slope is None else f"×{10**slope:.3f}"
