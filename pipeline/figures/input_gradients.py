"""How much gradient each token of the input gets, in networks with and without recurrence."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.lags import contrast, panels
from pipeline.figures.stages import interval, ranked, staged
from pipeline.figures.style import styled
from pipeline.figures.words import INTERVAL, left_out, name_of, outcomes, seeds_of
from pipeline.quantities import GridTables, mean_interval


def applies(tables: GridTables) -> bool:
    """Return whether input gradients of arms with recurrence and of arms without it were traced."""
    recurs = recurring(tables)
    return 0 < len(recurs) < tables.traces.filter(part="input")["arm"].n_unique()


def recurring(tables: GridTables) -> list[str]:
    """Return the arms that have states: gradients were traced of more than their input."""
    known = tables.traces.filter(pl.col("part") != "input")["arm"].unique()
    return [arm for arm in tables.arms if arm in known]


def relative_norms(tables: GridTables) -> pl.DataFrame:
    """Return log10 ‖∂L/∂x_{T-k}‖ relative to the largest over lags, by stage, arm, lag k and seed.

    At the longest length. Where no norm is finite, nothing is relative to it: such values are NaN.
    """
    traces = tables.at_longest(tables.traces).filter(part="input", quantity="x")
    both = staged(traces.with_columns(lag=pl.col("timestep").max().over("arm") - pl.col("timestep")))
    norm = pl.col("log10_norm")
    largest = norm.filter(norm.is_finite()).max().over("stage", "arm", "seed")
    both = both.with_columns(log10_norm=(norm - largest).fill_null(float("nan")))
    return both.sort(pl.col("stage") == "end", ranked(tables.arms), "lag", "seed").select(
        "stage", "arm", "lag", "seed", "log10_norm"
    )


def table(tables: GridTables) -> pl.DataFrame:
    """Return what is drawn: mean over seeds of the relative log10 norm with its interval, by stage, arm and lag."""
    return mean_interval(relative_norms(tables), "log10_norm", ["stage", "arm", "lag"])


def title(tables: GridTables) -> str:
    """Return how far the gradient of the farther half of the input lies below the largest, with and without recurrence.

    After training, as the mean over lags, arms and seeds of log10, if the difference is established over seeds.
    """
    end = relative_norms(tables).filter(stage="end").filter(2 * pl.col("lag") > pl.col("lag").max())
    finite = pl.col("log10_norm").filter(pl.col("log10_norm").is_finite())
    lost = end.group_by("arm", "seed", maintain_order=True).agg(lost=-finite.mean()).drop_nulls("lost")
    kinds = contrast(lost, "lost", recurring(tables))
    if kinds.height < 2:
        return "Inconclusive: no replica of both kinds finished training"
    if not kinds["apart"].all():
        return "Inconclusive: no difference between input gradients with and without recurrence is established"
    recurrent, other = map(interval, kinds.iter_rows(named=True))
    return (
        f"After training the farther half of the input gets a gradient {recurrent} decades below the largest "
        f"with recurrence, {other} without"
    )


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, which arms are recurrent, and what is left out."""
    drawn = table(tables)
    names = "; ".join(name_of(arm) for arm in recurring(tables))
    treatment = "diverged and failed replicas are in the first panel only, if at all"
    return (
        f"Frobenius norm over the probe batch of ∂L/∂x k timesteps before the last one, relative to each replica's "
        f"largest, at T = {tables.lengths[-1]} on {tables.dataset}; exact float64 backward pass. Lines are means of "
        f"log10 over {seeds_of(drawn)}, bands the {INTERVAL}. With recurrence: {names}. "
        f"{outcomes(tables.at_longest(tables.runs), treatment)}{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw two panels on one log axis: at initialisation and at the end of training."""
    drawn, recurs = table(tables), recurring(tables)
    arms = [arm for arm in tables.arms if arm in drawn["arm"]]
    labels = {arm: name_of(arm) + ("" if arm in recurs else " (no recurrence)") for arm in arms}
    return panels(title(tables), drawn, tables.arms, labels, last="the last one", reference="the largest")
