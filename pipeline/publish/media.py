"""What W&B shows of a traced step besides numbers, as plain data: charts, maps and histograms, from a trial's tables.

A run logs them in the row of their step, so that W&B's own slider walks through training.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.quantities.selection import evenly, thin_evenly

MAX_STEPS = 8
"""Traced steps that are shown, the first and the last among them; a film of more shows no more."""

MAX_LAGS = 100
"""A chart of the gradient has at most so many lags of each line."""

MAX_EXAMPLES = 4
"""Attention maps of so many examples."""

DECADES = (-16, 4)
"""Colours of gradient norms begin and end so many decades above lag 0: the same at every step, cell and length."""

_PLACE = ("part", "layer", "direction")


@dataclass(frozen=True)
class Picture:
    """A PNG that is drawn only if it is sent: `source` is a digest of what it is drawn from."""

    source: str
    draw: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines: a row per point, with the columns `x`, `y` and `stroke` (which line)."""

    rows: pl.DataFrame
    x: str
    y: str
    stroke: str
    title: str


@dataclass(frozen=True)
class Maps:
    """Pictures of one kind with a caption each."""

    pictures: tuple[tuple[str, Callable[[], bytes]], ...]


@dataclass(frozen=True)
class Histogram:
    """How much lies in each bin, and the n + 1 edges of n bins."""

    amounts: tuple[float, ...]
    edges: tuple[float, ...]


Medium = Chart | Maps | Histogram
Tables = Mapping[str, pl.DataFrame]
"""Tables of one trial by name."""


def shown_steps(spec: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the traced steps of a trial of which media are shown, as they are known before it trains."""
    from pipeline.core.training.schedule import log_spaced_steps  # it brings torch, which takes seconds to come

    traced = log_spaced_steps(spec["training"]["max_steps"], spec["diagnostics"]["num_traces"])
    return tuple(traced[place] for place in evenly(len(traced), MAX_STEPS))


def media_of(tables: Tables, steps: Iterable[int]) -> dict[int, dict[str, Medium]]:
    """Return by step and name what the tables have of these steps: nothing of a step, or of a kind, that they lack."""
    found: dict[int, dict[str, Medium]] = {}
    for step in sorted(steps):
        of_step = {table: tables[table].filter(step=step) for table in ("traces", "attention", "gates")}
        if media := dict(_media(of_step, step)):
            found[step] = media
    return found


def _media(tables: Tables, step: int) -> Iterator[tuple[str, Medium]]:
    if not (traces := relative_traces(tables["traces"])).is_empty():
        yield "gradient_by_lag", _by_lag(traces)
        yield "gradient_map", _gradient_maps(traces, step)
    if not (attention := tables["attention"]).is_empty():
        yield "attention_map", _attention_maps(attention, step)
    densities = tables["gates"].filter(quantity="density")
    for place, rows in densities.group_by(*_PLACE, "gate", maintain_order=True):
        yield f"gates/{'/'.join(map(str, place))}", _histogram(rows)


def relative_traces(traces: pl.DataFrame) -> pl.DataFrame:
    """Return the traces of one step with `line`, `lag` and `value`: log10 of the norm relative to lag 0 of its seed."""
    line = pl.concat_str(*(pl.col(name).cast(pl.String) for name in (*_PLACE, "quantity")), separator="/")
    rows = traces.with_columns(line=line)
    lag = pl.col("timestep").max().over("line") - pl.col("timestep")
    reference = pl.col("log10_norm").filter(pl.col("lag") == 0).first().over("line", "seed")
    relative = pl.when(reference.is_finite()).then(pl.col("log10_norm") - reference).otherwise(float("nan"))
    return rows.with_columns(lag=lag).with_columns(value=relative).sort("line", "seed", "timestep")


def _by_lag(rows: pl.DataFrame) -> Chart:
    """Return the mean over seeds by lag; a norm of zero, or none, is in no mean."""
    name = "log10_relative_norm"
    finite = pl.col("value").filter(pl.col("value").is_finite())
    means = rows.group_by("line", "lag", maintain_order=True).agg(finite.mean().alias(name)).drop_nulls(name)
    thinned = thin_evenly(means, "lag", ["line"], MAX_LAGS).select("lag", name, "line").sort("line", "lag")
    return Chart(rows=thinned, x="lag", y=name, stroke="line", title="Gradient norm against lag, mean over seeds")


def _gradient_maps(rows: pl.DataFrame, step: int) -> Maps:
    captioned = []
    for (line,), of_line in rows.group_by("line", maintain_order=True):
        caption = (
            f"{line}, step {step}: seeds down, timesteps across; {DECADES[0]} to {DECADES[1]} decades above the last"
        )
        captioned.append((caption, _matrix(of_line, "seed", "timestep", "value")))
    return _maps(captioned, DECADES, wide=True)


def _attention_maps(rows: pl.DataFrame, step: int) -> Maps:
    keys = ["example", "output_position", "source_position"]
    means = rows.group_by(keys).agg(pl.col("weight").mean()).sort(keys)
    captioned = []
    for example in means["example"].unique().sort().head(MAX_EXAMPLES):
        values = _matrix(means.filter(example=example), "output_position", "source_position", "weight")
        caption = f"example {example}, step {step}: outputs down, source across; weights 0 to 1, mean over seeds"
        captioned.append((caption, values))
    return _maps(captioned, (0.0, 1.0), wide=False)


def _maps(captioned: Sequence[tuple[str, np.ndarray[Any, Any]]], ends: tuple[float, float], *, wide: bool) -> Maps:
    """Return pictures of matrices, all of the size of the largest: W&B shows those of one key side by side."""
    from pipeline.figures.maps import map_png, map_size

    heights, widths = zip(*(map_size(values.shape, wide=wide) for _, values in captioned), strict=True)
    size = max(heights), max(widths)
    pictures = tuple(
        (caption, functools.partial(map_png, values, *ends, wide=wide, size=size)) for caption, values in captioned
    )
    return Maps(pictures)


def _histogram(rows: pl.DataFrame) -> Histogram:
    """Return the share of gate values in each bin of [0, 1], mean over seeds."""
    means = rows.group_by("position").agg(pl.col("value").mean()).sort("position")
    edges = np.linspace(0.0, 1.0, means.height + 1)
    return Histogram(tuple(means["value"].fill_nan(None).fill_null(0.0) / means.height), tuple(edges.tolist()))


def _matrix(rows: pl.DataFrame, down: str, across: str, value: str) -> np.ndarray[Any, Any]:
    """Return `value` by two columns in their order; NaN where there is no row."""
    wide = rows.pivot(on=across, index=down, values=value, sort_columns=False).sort(down)
    columns = sorted((name for name in wide.columns if name != down), key=float)
    return wide.select(pl.col(columns).cast(pl.Float64)).to_numpy().astype(float)
