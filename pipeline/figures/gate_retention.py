"""Does the keeping gate explain the gradient? Its product over k timesteps beside the gradient k timesteps back."""

from __future__ import annotations

import math

import polars as pl
from matplotlib.figure import Figure

from pipeline.figures.gate_distribution import KEEPING
from pipeline.figures.gradient_by_lag import relative_norms
from pipeline.figures.stages import (
    MAX_PANELS,
    STAGES,
    chosen_told,
    interval,
    layer_told,
    ranked,
    recurrent,
    spread,
    staged,
    top_forward,
)
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
from pipeline.figures.words import INTERVAL, few, left_out, name_of, outcomes, seeds_of, the
from pipeline.quantities import GridTables, decay_rates, mean_interval

MAX_BOTH = 3
"""Of more arms than these only the end of training is drawn."""

MAX_DECADES = 16
"""Products that fall further than this and the gradient are cut off."""

SOURCES = {
    "gradient": ("gradient, measured", Look(INK, "solid", "")),
    "retention": ("product of the keeping gate", Look(INK, (0, (5, 1.5)), "")),
    "power": ("f^k of its mean f", Look(INK, (0, (1, 1.5)), "")),
}
_SOUND = -math.log10(0.99)
"""Decades per timestep: a gradient's slope within so much of the product's, with its whole interval, follows it."""


def applies(tables: GridTables) -> bool:
    """Return whether the products of keeping gates and gradients of the same arm are known."""
    return not _retention(tables).is_empty() and not recurrent(tables.traces).is_empty()


def table(tables: GridTables) -> pl.DataFrame:
    """Return mean over seeds of log10 by stage, arm, source and lag, at the longest length.

    Sources: `gradient` relative to lag 0 (of c where the cell has it, else of h), `retention` (product of the keeping
    gate over the last k timesteps), `power` (k log10 of the gate's mean).
    """
    return mean_interval(_values(tables), "log10", ["stage", "arm", "source", "lag"])


def slopes(tables: GridTables) -> pl.DataFrame:
    """Return gradient's slope less that of the gate's product, decades per timestep, over seeds by stage and arm."""
    fits = decay_rates(_values(tables).rename({"log10": "log10_norm"}), ["stage", "arm", "source"])
    wide = fits.pivot(on="source", index=["stage", "arm", "seed"], values="slope", maintain_order=True)
    wide = wide.with_columns(difference=pl.col("gradient") - pl.col("retention"))
    return mean_interval(wide, "difference", ["stage", "arm"])


def title(tables: GridTables) -> str:
    """Return whether after training the gradient falls as the keeping gate's product does, slower, or faster."""
    end = slopes(tables).filter(pl.col("stage") == "end").drop_nulls("mean").sort(ranked(tables.arms))
    if end.is_empty():
        return "Inconclusive: gate and gradient are not both known at the end of training"
    low, high = pl.col("low"), pl.col("high")
    verdict = (
        pl.when((low > -_SOUND) & (high < _SOUND))
        .then(pl.lit("as fast as"))
        .when(low > 0)
        .then(pl.lit("slower than"))
        .when(high < 0)
        .then(pl.lit("faster than"))
    )
    end = end.with_columns(verdict=verdict)
    parts = [
        f"{told} the keeping gate's product in {few([the(arm) for arm in end.filter(verdict=told)['arm']])}"
        for told in ("as fast as", "slower than", "faster than")
        if told in end["verdict"]
    ]
    unsure = [the(arm) for arm in end.filter(pl.col("verdict").is_null())["arm"]]
    said = f"After training the gradient falls {', '.join(parts)}" if parts else ""
    if not unsure:
        return said
    open_end = f"no difference to the keeping gate's product is established in {few(unsure)}"
    return f"{said}; {open_end}" if said else f"After training {open_end}"


def caption(tables: GridTables) -> str:
    """Return what is drawn, over how many seeds, and how much the slopes differ."""
    drawn = table(tables)
    arms = _shown(tables)
    end = slopes(tables).filter(pl.col("stage") == "end", pl.col("arm").is_in(arms)).drop_nulls("mean")
    told = "; ".join(f"{name_of(row['arm'])} {interval(row)}" for row in end.iter_rows(named=True))
    slope = f" Slope of the gradient less that of the product, decades per timestep: {told}." if told else ""
    return (
        f"Mean product of the keeping gate (f of the LSTM, z of the GRU) over the last k timesteps, f^k "
        f"with the gate's mean f, and the norm of ∂L/∂c (∂L/∂h of the GRU) k timesteps back relative to lag 0, at "
        f"T = {tables.lengths[-1]} on {tables.dataset}: means over {seeds_of(drawn)}, band the {INTERVAL} of the "
        f"gradient.{slope} «As fast» means within 1 % per timestep. "
        f"Products more than {MAX_DECADES} decades below lag 0 are cut off; where the loss is "
        f"at every timestep, gradient enters at every lag."
        f"{chosen_told(arms, _known(tables), _BY)}{layer_told(tables.at_longest(tables.gates))} "
        f"{outcomes(tables.at_longest(tables.runs), 'diverged and failed ones have no end of training')}"
        f"{left_out(drawn)}"
    )


@styled
def draw(tables: GridTables) -> Figure:
    """Draw a panel for each arm; of few arms, at initialisation and at the end, of more at the end alone."""
    drawn, arms, looks = table(tables), _shown(tables), looks_of(tables.arms)
    both = len(arms) <= MAX_BOTH
    panels = [(stage, arm) for stage in STAGES for arm in arms if both or stage == "end"]
    num_columns = len(arms) if both else 3
    num_rows = -(-len(panels) // num_columns)
    figure, axes = canvas(title(tables), num_rows, num_columns, 0.6 + 2.0 * num_rows, sharex=True, sharey=True)
    for ax, (stage, arm) in zip(axes.flat, panels, strict=False):
        for source, (_, look) in SOURCES.items():
            line = drawn.filter(stage=stage, arm=arm, source=source)
            if not line.is_empty():
                colour = FAINT if source == "power" else looks[arm].colour if source == "gradient" else INK
                shade = 0.2 if source == "gradient" else 0.0
                banded(ax, "lag", line, Look(colour, look.dashes, ""), shade=shade)
        said = {"initialisation": "start", "end": "end"}[stage]
        ax.set_title(f"{name_of(arm)}, {said}" if both else name_of(arm), fontsize=8 if len(arms) > 1 else None)
        ax.axhline(0, color=INK, linewidth=0.5)
        ax.label_outer()
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("lag k (timesteps)")
    for ax in axes[:, 0]:
        ax.set_ylabel("relative to lag 0")
    gradient = drawn.filter(source="gradient")["mean"].drop_nulls().to_numpy().min(initial=0.0)
    bottom, top = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(bottom, min(1.1 * gradient, -MAX_DECADES)), top)
    decades(axes[0, 0])
    handles = [handle_of(look, color=FAINT if source == "power" else INK) for source, (_, look) in SOURCES.items()]
    legend_below(figure, handles, [told for told, _ in SOURCES.values()])
    label_panels(list(axes.flat[: len(panels)]))
    return figure


_BY = "the keeping gate's product at the longest lag"


def _retention(tables: GridTables) -> pl.DataFrame:
    rows = staged(top_forward(tables.at_longest(tables.gates))).filter(pl.col("gate").is_in(KEEPING))
    return rows.filter(pl.col("quantity").is_in(["retention", "mean"]))


def _values(tables: GridTables) -> pl.DataFrame:
    """Return every seed's value by stage, arm, source and lag."""
    rows = _retention(tables)
    keys = ["stage", "arm", "seed"]
    columns = [*keys, "source", "lag", "log10"]
    retention = rows.filter(quantity="retention").with_columns(
        source=pl.lit("retention"), lag=pl.col("position").round().cast(pl.Int64), log10=pl.col("value")
    )
    means = rows.filter(quantity="mean").group_by(keys).agg(log10_mean=pl.col("value").mean().log10())
    power = retention.join(means, on=keys).with_columns(
        source=pl.lit("power"), log10=pl.col("lag") * pl.col("log10_mean")
    )
    gradient = relative_norms(tables).join(retention.select(keys).unique(), on=keys)
    state = pl.when((pl.col("quantity") == "c").any().over("arm")).then(pl.lit("c")).otherwise(pl.lit("h"))
    gradient = gradient.filter(pl.col("quantity") == state)
    gradient = gradient.with_columns(source=pl.lit("gradient"), log10=pl.col("log10_norm"))
    both = pl.concat([part.select(columns) for part in (gradient, retention, power)])
    return both.sort(pl.col("stage") == "end", ranked(tables.arms), "source", "lag", "seed")


def _known(tables: GridTables) -> list[str]:
    known = _retention(tables)["arm"].unique()
    return [arm for arm in tables.arms if arm in known]


def _shown(tables: GridTables) -> list[str]:
    end = table(tables).filter(stage="end", source="retention")
    last = end.filter(pl.col("lag") == pl.col("lag").max().over("arm"))
    values = dict(last.select("arm", "mean").iter_rows())
    return spread({arm: values.get(arm) for arm in _known(tables)}, MAX_PANELS)
