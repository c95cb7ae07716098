"""The explorer's data: a script per trial with its traces and attention maps, and one that lists the trials.

A page that is opened from disk may load scripts and no other data. Logarithms of norms are whole thousandths of a
decade, weights whole thousandths, both as 32-bit differences along the last axis, deflated, in base64: `unpack` of
explorer.js is the inverse.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.quantities import Grid
from pipeline.quantities.gradients import gradient_over_training
from pipeline.quantities.selection import fewer_settings, on_schedule, thin_evenly
from pipeline.quantities.settings import settings_table
from pipeline.quantities.words import name_of

MAX_SETTINGS, MAX_SEEDS, MAX_TIMESTEPS, MAX_EXAMPLES = 100, 10, 200, 3
"""Of a grid, of a trial, of a line, and of a trial's attention maps at most so many are shown; the page says which."""

PER_UNIT = 1000
"""Whole numbers to a decade, and to a weight of 1."""

ABSENT, ZERO = -(2**30), -(2**30) + 1
"""What stands for no number, and for the logarithm of a norm that is exactly zero."""

_LINE = ["part", "quantity", "layer", "direction"]
_PARTS = {"encoder": 0, "recurrent": 1, "decoder": 2, "input": 3}


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What the explorer has of a study.

    Attributes:
        entry: For the list of trials: name, question and its grids, each with the settings that are shown.
        scripts: By file name below the site, a script per trial.
    """

    entry: Mapping[str, Any]
    scripts: Mapping[str, bytes]


def explored(question: str, grids: Sequence[Grid], tables: Mapping[str, pl.DataFrame]) -> Explored:
    """Return what the explorer shows of a study with these grids and result tables."""
    shown = {grid.name: _shown(grid, tables["traces"]) for grid in grids}
    identities = pl.concat([rows.select("trial_id") for rows in shown.values()]).unique(maintain_order=True)
    mine = {
        name: tables[name].join(identities, on="trial_id", how="semi").partition_by("trial_id", as_dict=True)
        for name in ("attention", "tokens")
    }
    scripts, attends = {}, set()
    for trial, blocks in _traces(tables["traces"].join(identities, on="trial_id", how="semi")):
        content: dict[str, Any] = {"lines": blocks}
        if (trial,) in mine["attention"]:
            content["maps"] = _maps(mine["attention"][(trial,)], mine["tokens"].get((trial,)))
            attends.add(trial)
        scripts[f"data/{trial}.js"] = _script("trial", trial, content)
    entry = {
        "name": grids[0].study if grids else "",
        "question": question,
        "grids": [
            {
                "name": grid.name,
                "dataset": grid.dataset,
                "of": grid.settings.height,
                "untraced": _untraced(grid, tables["traces"]),
                "settings": [
                    {
                        "id": row["trial_id"],
                        "label": name_of(row["label"]),
                        "selected": row["selected"],
                        "attends": row["trial_id"] in attends,
                    }
                    for row in shown[grid.name].iter_rows(named=True)
                ],
            }
            for grid in grids
            if shown[grid.name].height
        ],
    }
    return Explored(entry=entry, scripts=scripts)


def listing(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the script that lists every study, grid and setting of the explorer."""
    return _script("list", None, [entry for entry in entries if entry["grids"]])


def _script(kind: str, identity: str | None, content: Any) -> bytes:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    named = f'"{identity}",' if identity else ""
    return f"explorer.{kind}({named}{text});\n".encode()


def _untraced(grid: Grid, traces: pl.DataFrame) -> int:
    return grid.settings.join(traces.select("trial_id").unique(), on="trial_id", how="anti").height


def _shown(grid: Grid, traces: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of settings that are shown: those with traces, selected ones first where there are too many."""
    traced = traces.select("trial_id").unique()
    rows = settings_table(grid).join(traced, on="trial_id", how="semi", maintain_order="left")
    return fewer_settings(rows, MAX_SETTINGS)


def _traces(traces: pl.DataFrame) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Yield each trial with its lines: per part, quantity, layer and direction the norms over steps and timesteps."""
    of_line = traces.with_columns(T=pl.col("timestep").max().over("trial_id", *_LINE))
    rows = thin_evenly(of_line, "timestep", ["trial_id", *_LINE], MAX_TIMESTEPS)
    rows = on_schedule(rows, [*_LINE, "timestep"]).rename({"log10_norm": "value"})
    place = ["trial_id", *_LINE, "T", "step", "timestep"]
    means = gradient_over_training.summary(rows, place).select(*place, "mean", "low", "high")
    seeds = rows.partition_by("trial_id", as_dict=True)
    for (trial,), mine in means.partition_by("trial_id", as_dict=True, maintain_order=True).items():
        theirs = seeds[(trial,)].partition_by(_LINE, as_dict=True)
        lines = mine.partition_by(_LINE, as_dict=True)
        order = sorted(lines, key=lambda key: _rank(*key))
        yield str(trial), [dict(zip(_LINE, key, strict=True)) | _line(lines[key], theirs[key]) for key in order]


def _rank(part: str, quantity: str, layer: int, direction: str) -> tuple[int, bool, int, bool]:
    """Return what puts the encoder, h, the last layer and the direction forward first."""
    return _PARTS.get(part, len(_PARTS)), quantity != "h", -layer, direction != "forward"


def _line(means: pl.DataFrame, seeds: pl.DataFrame) -> dict[str, Any]:
    """Return the norms of one line: rows are the mean over all seeds, the ends of its interval, and the first seeds."""
    axes = [means[name].unique().sort() for name in ("step", "timestep")]
    named = seeds["seed"].unique().sort().head(MAX_SEEDS).to_list()
    sides = [means.select("step", "timestep", value=side) for side in ("mean", "low", "high")]
    rows = sides + [seeds.filter(seed=seed).select("step", "timestep", "value") for seed in named]
    values = np.stack([_filled(frame, axes, "value") for frame in rows])
    return {
        "T": means["T"][0],
        "steps": axes[0].to_list(),
        "timesteps": axes[1].to_list(),
        "seeds": named,
        "of": seeds["seed"].n_unique(),
        "norms": pack(values),
    }


def _maps(weights: pl.DataFrame, tokens: pl.DataFrame | None) -> list[dict[str, Any]]:
    """Return the attention maps of the first examples: rows are the mean over seeds, and the first seeds."""
    axes = ["step", "output_position", "source_position"]
    named = weights["seed"].unique().sort().head(MAX_SEEDS).to_list()
    maps = []
    for example in weights["example"].unique().sort().head(MAX_EXAMPLES):
        mine = weights.filter(example=example)
        places = [mine[name].unique().sort() for name in axes]
        mean = mine.group_by(axes).agg(pl.col("weight").mean())
        frames = [mean, *(mine.filter(seed=seed) for seed in named)]
        values = np.stack([_filled(frame, places, "weight") for frame in frames])
        aligned = mine.filter("aligned").select(axes[1:]).unique().sort(axes[1:]).rows()
        words = {
            "outputs": _words(tokens, example, "target") or _words(tokens, example, "words"),
            "sources": _words(tokens, example, "source"),
        }
        sizes = {"outputs": places[1].len(), "sources": places[2].len()}
        labels = {
            side: words[side] if len(words[side]) == size else [str(place + 1) for place in range(size)]
            for side, size in sizes.items()
        }
        facts = {"example": example, "steps": places[0].to_list(), "seeds": named, "of": weights["seed"].n_unique()}
        maps.append(facts | labels | {"aligned": aligned, "weights": pack(values)})
    return maps


def _words(tokens: pl.DataFrame | None, example: int, sequence: str) -> list[str]:
    """Return the tokens of one side of an example; none where they were not kept."""
    if tokens is None:
        return []
    mine = tokens.filter(pl.col("seed") == pl.col("seed").min(), example=example, sequence=sequence)
    return mine.unique("position").sort("position")["token"].to_list()


def _filled(frame: pl.DataFrame, axes: Sequence[pl.Series], value: str) -> np.ndarray[Any, Any]:
    """Return column `value` as an array over the values of `axes`, NaN where there is no row."""
    array = np.full([len(axis) for axis in axes], np.nan)
    places = tuple(np.searchsorted(axis.to_numpy(), frame[axis.name].to_numpy()) for axis in axes)
    array[places] = frame[value].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return array


def pack(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return an array as its shape and text; see the head of this module."""
    whole = np.rint(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) * PER_UNIT)
    whole = np.where(np.isneginf(values), ZERO, np.where(np.isfinite(values), whole, ABSENT)).astype("<i4")
    steps = np.diff(whole, axis=-1, prepend=np.zeros_like(whole[..., :1]))
    return {"shape": list(values.shape), "packed": base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()}
