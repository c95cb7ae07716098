"""Grids of networks that never ran, whose every number is a power of one factor per timestep."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.quantities import Grid
from pipeline.results import SCHEMAS
from tests.synthetic_attention import grid
from tests.synthetic_decoding import with_tables
from tests.synthetic_results import unlike

T, LAST = 20, 100
"""Timesteps, and the last training step."""

FACTORS = {"elman": (0.7, 0.85), "lstm": (0.9, 0.99), "gru": (0.85, 0.98)}
"""Per timestep at initialisation and at the end."""

SIGMA = 1.2
"""σ_max of W_hh of networks with one block, in every seed times 1 + seed/10."""

POWERS = {"largest": 1.0, "median": 1.5, "smallest": 2.0, "condition": -1.0}
BACKWARD_LENGTHS = np.array([1, 2, 3, 5, 8, 13, 20])


def dynamical_grid(factors: Mapping[str, Sequence[float]] = FACTORS, *, num_seeds: int = 3, **kwargs: object) -> Grid:
    """Return a grid of arms with factors at initialisation and at the end, all seeds alike but for σ_max."""

    def replica(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
        for step, factor in zip((0, LAST), factors[arm], strict=True):
            place = {"step": step, "part": "recurrent", "layer": 0, "direction": "forward"}
            yield "traces", place | {"timestep": range(1, T + 1), "quantity": "h", "log10_norm": 0.0}
            lag = np.arange(1, T)
            for quantity, power in POWERS.items():
                yield (
                    "jacobians",
                    place | {"lag": lag, "quantity": quantity, "log10_value": power * lag * math.log10(factor)},
                )
            yield from _lyapunov(place, factor)
            yield "truncation", {"step": step} | _truncation(factor)
            for gate in "h" if arm == "elman" else "zr":
                block = dict.fromkeys(SCHEMAS["curves"]) | place | {"metric": "sigma_max", "gate": gate}
                yield "curves", block | {"value": [SIGMA * (1 + seed / 10)]}

    found = grid(list(factors), replica, num_seeds=num_seeds, **kwargs)  # type: ignore[arg-type]
    cells = {"model.cell": pl.when(pl.col("arm").is_in(["lstm", "gru"])).then("arm").otherwise(pl.lit("elman"))}
    runs = found.runs.with_columns(**cells)
    return with_tables(found, runs=runs, **{table: unlike(frame) for table, frame in found.long.items()})


def _lyapunov(place: Mapping[str, object], factor: float) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield exponents ln f - i/10, i = 0..3, approached from above as 1/t."""
    for index, t in itertools.product(range(4), (1, 5, T)):
        exponent = math.log(factor) - 0.1 * index + 0.1 / t
        columns = {"index": [index], "timestep": t, "lyapunov_nats_per_timestep": exponent}
        yield "lyapunov", {**place, **columns, "standard_error": 0.02 / math.sqrt(t)}


def _truncation(factor: float) -> Mapping[str, object]:
    """Return relative errors, and φ, of f^K; Aicher's bound is then f^K / (1 - f^K)."""
    error = factor**BACKWARD_LENGTHS
    columns = {"backward_length": BACKWARD_LENGTHS, "cosine": 1 - error / 2, "relative_error": error}
    columns |= {"log10_phi": np.log10(error), "relative_bias_bound": error / (1 - error)}
    return columns | {"decay_factor": factor}


ORBITS: dict[str, tuple[int | None, Sequence[float]]] = {
    "every 4": (4, (0.9, 0.5, 3.0)),
    "every 16": (16, (0.6, 0.7, 2.0)),
    "never": (None, (9.0, 8.0, 7.0)),
    "never, clipped": (None, (0.1, 0.1, 0.1)),
}
"""By arm the timesteps between forcings, and the divergence of each seed; the last is the only one that is clipped."""


def orbit_grid(arms: Mapping[str, tuple[int | None, Sequence[float]]] = ORBITS, **kwargs: object) -> Grid:
    """Return a grid of networks that generate, over sequences of 60 timesteps, with the exponents 0, 0.01, 0.02."""

    def replica(arm: str, seed: int) -> Iterator[tuple[str, Mapping[str, object]]]:
        for metric, value in (("state_space_divergence", arms[arm][1][seed]), ("orbit_exponent", seed / 100)):
            yield "curves", dict.fromkeys(SCHEMAS["curves"]) | {"step": LAST, "metric": metric, "value": [value]}

    found = grid(list(arms), replica, num_seeds=3, **kwargs)  # type: ignore[arg-type]
    every = {name: each for name, (each, _) in arms.items()}
    columns = {
        "training.state_forcing.every": pl.col("arm").replace_strict(every, return_dtype=pl.Int64),
        "clipping.name": pl.when(pl.col("arm").str.ends_with("clipped"))
        .then(pl.lit("value"))
        .otherwise(pl.lit("none")),
        "length": pl.lit(60, pl.Int64),
        "series_exponent": pl.lit(0.0453),
    }
    return dataclasses.replace(
        found, runs=found.runs.with_columns(**columns), all_runs=found.all_runs.with_columns(**columns), _memo={}
    )
