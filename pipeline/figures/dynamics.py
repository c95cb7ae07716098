"""The network as a dynamical system: what k timesteps do to a perturbation, and which directions grow or die out."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes

from pipeline.figures.findings import Row, best_and_next, by_sign, ranked
from pipeline.figures.frame import STAGE_TITLES, Axis, Dots, Lines, Panel, View, draw_dotted, listed
from pipeline.figures.style import DOTTED, FAINT, Look
from pipeline.quantities import Grid
from pipeline.quantities import dynamics as quantities
from pipeline.quantities.dynamics import jacobian_bound, jacobian_singular_values, lyapunov_exponents
from pipeline.quantities.outcomes import shared_number
from pipeline.quantities.words import count, number, with_article

REACH = 5.0
"""Exponents so many nats below the largest are cut off: what shrinks by e⁵ per timestep is gone after a few."""


def _ends(means: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with a mean; of more than four the lowest and the highest."""
    known = ranked(means)
    return known if known.height <= 4 else pl.concat([known.head(1), known.tail(1)])


def _at_longest_lag(means: pl.DataFrame) -> pl.DataFrame:
    end = means.filter(stage="end")
    return end.filter(pl.col("lag") == pl.col("lag").max().over("arm")).drop_nulls("mean")


def _jacobian_finding(view: View) -> str:
    """Where the largest singular value shrinks with lag after training, and where it grows."""
    last = _at_longest_lag(view.means.filter(which="largest")).sort(view.grid.rank())
    if last.is_empty():
        return "Inconclusive: no finite Jacobian at the end of training"
    words = {"below": "shrinks in {arms}", "above": "grows in {arms}"}
    words |= {"unsure": "is not shown to shrink or grow in {arms}"}
    lag = int(last["lag"].to_numpy().max())
    verdicts = by_sign(last, words, most=3 if last.height <= 4 else 2)
    return f"Over {count(lag, 'timestep')} after training the largest singular value {verdicts}"


def _bounds(view: View) -> pl.DataFrame:
    return jacobian_bound.means(view.grid, ["stage", "arm", "lag"])


def _jacobian_values(view: View) -> str:
    bound = "Dotted: k log10 σ_max(W_hh), which the largest cannot exceed. " if not _bounds(view).is_empty() else ""
    conditions = jacobian_singular_values.means(view.grid, ["stage", "arm", "lag"], which="condition")
    worst = _ends(_at_longest_lag(conditions))
    condition = f"log10 of the condition number at the longest lag, after training: {listed(view, worst)}. "
    zeros = view.rows.filter(pl.col("value") == float("-inf")).height
    zero = f"{count(zeros, 'singular value')} of exactly zero {'has' if zeros == 1 else 'have'} no logarithm."
    return f"{bound}{condition if worst.height else ''}{zero if zeros else ''}".strip()


def _draw_bounds(view: View, ax: Axes, panel: Panel) -> None:
    if panel["which"] == "largest":
        draw_dotted(view, ax, _bounds(view).filter(stage=panel["stage"]), "lag")


jacobian_spectrum = Lines(
    name="jacobian_spectrum",
    rows=lambda grid: jacobian_singular_values.of(grid).filter(pl.col("which") != "condition"),
    quantity=jacobian_singular_values,
    x=Axis(label="lag k (timesteps)", column="lag", scale="counts"),
    y={
        which: Axis(label="singular value", scale="decades", max_decades=1000, lines={0.0: ""})
        for which in ("largest", "median", "smallest")
    },
    across=("stage", STAGE_TITLES),
    down=("which", {"largest": "largest", "median": "median", "smallest": "smallest"}),
    add=_draw_bounds,
    more=lambda view: {"bound k log σ_max(W_hh)": Look(FAINT, DOTTED, "")} if not _bounds(view).is_empty() else {},
    height=1.75,
    title=_jacobian_finding,
    about="Singular values of the Jacobian ∂s_T/∂s_(T-k) of the whole state over k timesteps, on the probe batch, at "
    "T = {T} on {dataset}: means of log10 over {seeds} with {interval}.",
    values=_jacobian_values,
    top_layer="jacobians",
)


def _exponents(grid: Grid) -> pl.DataFrame:
    """Return the spectrum from all timesteps, `at` each index, and the largest exponent `at` each timestep used."""
    rows = lyapunov_exponents.of(grid)
    whole = rows.filter(pl.col("timestep") == pl.col("timestep").max().over("arm", "seed", "stage"))
    largest = rows.filter(index=1)
    return pl.concat(
        [
            whole.with_columns(panel=pl.lit("spectrum"), at="index"),
            largest.with_columns(panel=pl.lit("convergence"), at="timestep"),
        ]
    )


def _largest(view: View) -> pl.DataFrame:
    return view.means.filter(panel="spectrum", stage="end", at=1).drop_nulls("mean").sort(view.grid.rank())


def _lyapunov_finding(view: View) -> str:
    """The sign of the largest exponent after training, by arm, where its whole interval has one."""
    largest = _largest(view)
    if largest.is_empty():
        return "Inconclusive: no exponent is known at the end of training"

    def name(row: Row) -> str:
        return with_article(row["arm"]) + (f" ({number(row['mean'], 2)})" if largest.height <= 4 else "")

    words = {"below": "negative in {arms}", "above": "positive in {arms}", "unsure": "of undecided sign in {arms}"}
    signs = by_sign(largest, words, name=name, most=3 if largest.height <= 4 else 2)
    return f"After training the largest Lyapunov exponent is {signs}"


def _lyapunov_values(view: View) -> str:
    ends = _ends(_largest(view))
    return f"Largest exponent after training: {listed(view, ends)} nats per timestep." if ends.height else ""


def _draw_standard_errors(view: View, ax: Axes, panel: Panel) -> None:
    """Draw the root mean square over seeds of each estimate's own standard error about the mean exponent."""
    if panel["panel"] != "spectrum":
        return
    keys = ["arm", "at"]
    errors = view.rows.filter(**panel).group_by(keys).agg(error=(pl.col("standard_error") ** 2).mean().sqrt())
    bars = view.means.filter(**panel).join(errors, on=keys, maintain_order="left").drop_nulls(["mean", "error"])
    for arm, mine in view.of_shown(bars).group_by("arm", maintain_order=True):
        x, y, error = (mine[column].to_numpy() for column in ("at", "mean", "error"))
        ax.errorbar(x, y, error, color=view.looks[str(arm[0])].colour, fmt="none", elinewidth=0.7)


lyapunov_spectrum = Lines(
    name="lyapunov_spectrum",
    rows=_exponents,
    quantity=lyapunov_exponents,
    x={
        "spectrum": Axis(label="index of the exponent", column="at", scale="counts"),
        "convergence": Axis(label="timesteps used t", column="at", scale="counts"),
    },
    y={
        "spectrum": Axis(label="nats per timestep", max_decades=REACH, lines={0.0: ""}),
        "convergence": Axis(label="nats per timestep", max_decades=REACH, lines={0.0: ""}),
    },
    across=("stage", STAGE_TITLES),
    down=("panel", {"spectrum": "exponents", "convergence": "largest exponent"}),
    add=_draw_standard_errors,
    height=2.1,
    title=_lyapunov_finding,
    about="Above: Lyapunov exponents by falling size, along sequences of {dataset} (T = {T}): means over {seeds}, "
    "bands the {interval}, bars the standard error of an estimate. Below: the largest exponent as estimated from the "
    "first t timesteps. Zero is the line between contraction and expansion; what lies more than "
    f"{REACH:g} nats below the largest is cut off.",
    values=_lyapunov_values,
    top_layer="lyapunov",
)


def _generates(grid: Grid) -> bool:
    return not grid["curves"].filter(metric="state_space_divergence").is_empty()


ORBITS = "from 40 beginnings of test sequences of {dataset} 500 timesteps on, after 100 that do not count"

state_space_divergence = Dots(
    name="state_space_divergence",
    rows=quantities.state_space_divergence,
    applies=_generates,
    needs="the measure orbit",
    x=Axis(label="divergence (nats)", limits=(0, None)),
    title=lambda view: best_and_next(
        quantities.state_space_divergence,
        view.rows,
        "divergence",
        lambda nats: f"{number(nats)} nats",
        lead="Orbits nearest to the series",
    ),
    about="Kullback-Leibler divergence of where generated orbits go from where the test series does, "
    + ORBITS
    + ", with the weights of the best step: points are seeds, markers means over {seeds} with {interval}.",
)


def _exponent_finding(view: View) -> str:
    known = ranked(view.means)
    if known.is_empty():
        return "Inconclusive: no replica has an orbit"
    series = shared_number(view.grid, "series_exponent")
    if series is not None:
        words = {"unsure": f"is not told apart from the series' own ({number(series)}) in {{arms}}"}
        words |= {"below": "is lower in {arms}", "above": "is higher in {arms}"}
        found = by_sign(known, words, bounds=(series, series), most=3)
        return f"The largest exponent of what is generated {found}"
    words = {"above": "is chaotic in {arms}", "below": "is not chaotic in {arms}"}
    words |= {"unsure": "is not shown to be chaotic in {arms}"}
    return f"What is generated {by_sign(known, words, most=3)}"


def _exponents_known(view: View, panel: Panel) -> dict[float, str]:
    series = shared_number(view.grid, "series_exponent")
    return {0.0: ""} if series is None else {0.0: "", series: "the series' own"}


def _about_exponents(view: View) -> str:
    about = (
        f"Largest Lyapunov exponent of the trained recurrence along orbits that it generates, {ORBITS}, with the "
        "weights of the best step: points are seeds, markers means over {seeds} with {interval}."
    )
    if (series := shared_number(view.grid, "series_exponent")) is not None:
        about += f" Dashed: that of the system which made the series, {number(series)}."
    return about


orbit_exponent = Dots(
    name="orbit_exponent",
    rows=quantities.orbit_exponent,
    applies=_generates,
    needs="the measure orbit",
    x=Axis(label="largest exponent (nats per timestep)", lines=_exponents_known),
    title=_exponent_finding,
    about=_about_exponents,
)
