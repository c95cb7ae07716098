"""Result tables of encoder-decoders that never ran, with known errors, schedules and gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.quantities import Grid
from pipeline.results import SCHEMAS, TRIAL_TABLES
from tests.synthetic_results import unlike

LAST = 100
"""The last training step."""

JOINED = {"arm": pl.String(), "length": pl.Int64(), "status": pl.String()}


@dataclass(frozen=True)
class Arm:
    """What a kind of network does, seed by seed the same but for `spread`.

    Attributes:
        attends: Whether it attends to the source.
        recurs: Whether it has states; without, only the gradient of its input was traced.
        errors: Shares of sequences wrong at the shortest and the longest source; in between on a straight line.
        forced: Token error of a decoder that is given the true tokens, at every output position.
        drift: By how much that of a free-running one grows with every output position.
        epsilon: The probability of the true token at the first and the last step; linear in between.
        factors: Of the gradient per timestep of lag, at initialisation and at the end.
        diverged: Seeds that diverged half-way.
    """

    attends: bool = False
    recurs: bool = True
    errors: tuple[float, float] = (0.1, 0.5)
    forced: float = 0.02
    drift: float = 0.01
    epsilon: tuple[float, float] = (1.0, 1.0)
    factors: tuple[float, float] = (0.7, 0.9)
    diverged: Sequence[int] = ()


ATTENTION = {
    "none": Arm(errors=(0.03, 0.8), factors=(0.7, 0.85)),
    "dot": Arm(attends=True, errors=(0.01, 0.01), factors=(0.9, 0.99)),
    "additive": Arm(attends=True, errors=(0.02, 0.05), factors=(0.9, 0.97)),
}
SCHEDULES = {
    "teacher forcing": Arm(drift=0.03),
    "linear": Arm(drift=0.01, epsilon=(1.0, 0.2)),
    "free running": Arm(forced=0.05, drift=0.01, epsilon=(0.0, 0.0)),
}
RECURRENCE = {"lstm": Arm(factors=(0.7, 0.8)), "self-attention": Arm(recurs=False, factors=(1.0, 0.99))}


@dataclass(frozen=True)
class Setting:
    """How large a grid is.

    Attributes:
        source_lengths: Of the test sequences; a hundred sequences of each.
        trained_lengths: `dataset.length` of its settings; one without the axis for none.
        spread: Seed r of R has every error and log10 norm times 1 + spread (r - (R-1)/2).
    """

    source_lengths: Sequence[int] = (10, 20, 40)
    trained_lengths: Sequence[int | None] = (None,)
    num_outputs: int = 10
    num_seeds: int = 3
    spread: float = 0.02

    def factor(self, seed: int) -> float:
        return 1 + self.spread * (seed - (self.num_seeds - 1) / 2)


def decoding_grid(arms: Mapping[str, Arm], setting: Setting = Setting()) -> Grid:  # noqa: B008 - frozen
    """Return the tables of one grid: a setting for each arm and trained length."""
    parts: dict[str, list[dict[str, object]]] = {table: [] for table in TRIAL_TABLES}
    for name, arm in arms.items():
        for length in setting.trained_lengths:
            for seed in range(setting.num_seeds):
                place = {"trial_id": f"{name} {length}", "seed": seed, "arm": name}
                place |= {"length": length or max(setting.source_lengths)}
                place |= {"status": "diverged" if seed in arm.diverged else "ok"}
                for table, rows in _replica(arm, setting, length, seed).items():
                    parts[table] += [place | row for row in rows]
    extra = {"dataset.name": pl.String(), "dataset.length": pl.Int64(), "model.cell": pl.String()}
    schemas = {table: SCHEMAS[table] | JOINED | (extra if table == "trials" else {}) for table in TRIAL_TABLES}
    frames = {table: pl.DataFrame(rows, schema=schemas[table]) for table, rows in parts.items()}
    frames["traces"] = unlike(frames["traces"])
    runs = frames.pop("trials")
    settings = runs.select("arm", "length").unique(maintain_order=True)
    return Grid(study="study", name="grid", arms=tuple(arms), settings=settings, runs=runs, all_runs=runs, long=frames)


def with_tables(grid: Grid, *, runs: pl.DataFrame | None = None, **tables: pl.DataFrame) -> Grid:
    """Return a grid with some of its tables replaced."""
    return dataclasses.replace(grid, runs=grid.runs if runs is None else runs, long={**grid.long, **tables}, _memo={})


def all_lost(grid: Grid) -> Grid:
    """Return a grid whose replicas all diverged."""
    lost = pl.lit("diverged").alias("status")
    return with_tables(
        grid, runs=grid.runs.with_columns(lost), **{name: rows.with_columns(lost) for name, rows in grid.long.items()}
    )


def _replica(arm: Arm, setting: Setting, length: int | None, seed: int) -> dict[str, list[dict[str, object]]]:
    factor, ended = setting.factor(seed), seed not in arm.diverged
    steps = range(0, LAST + 1, 10) if ended else range(0, LAST // 2, 10)
    wrong = dict(_line(setting.source_lengths, arm.errors))
    run = {"dataset.name": "dates", "dataset.length": length, "model.cell": "lstm", "num_steps": steps[-1]}
    test_error = wrong.get(length, arm.errors[1]) * factor if length else None
    return {
        "trials": [run | {"test_error": test_error if ended else None}],
        "curves": [*_curves(arm, setting, factor, steps)],
        "breakdown": [*_breakdown(arm, setting, factor, wrong)] if ended else [],
        "traces": [*_traces(arm, length or max(setting.source_lengths), factor, steps)],
    }


def _line(places: Sequence[int], ends: tuple[float, float]) -> Iterator[tuple[int, float]]:
    """Yield each place with the height of the line that joins the ends."""
    first, last = min(places), max(places)
    for place in places:
        yield place, ends[0] + (ends[1] - ends[0]) * (place - first) / max(1, last - first)


def token_error(arm: Arm, setting: Setting, mode: str) -> float:
    """Return the mean over output positions of the token error."""
    drift = arm.drift * (setting.num_outputs - 1) / 2 if mode == "free_running" else 0.0
    return arm.forced + drift


def _curves(arm: Arm, setting: Setting, factor: float, steps: range) -> Iterator[dict[str, object]]:
    for step, epsilon in _line(range(LAST + 1), arm.epsilon):
        if 1 <= step <= steps[-1]:
            yield {"step": step, "metric": "teacher_forcing_probability", "value": epsilon}
    for mode in ("teacher_forced", "free_running"):
        final = token_error(arm, setting, mode) * factor
        for step in steps:
            error = final + (0.9 - final) * math.exp(-8 * step / LAST) * (step < LAST)
            yield {"step": step, "metric": "token_error", "split": "validation", "mode": mode, "value": error}
        if steps[-1] == LAST:
            yield {"step": LAST, "metric": "token_error", "split": "test", "mode": mode, "value": final}
    if arm.attends:
        yield from ({"step": step, "metric": "attention_entropy_nats", "value": 1.0} for step in (0, steps[-1]))


def _breakdown(arm: Arm, setting: Setting, factor: float, wrong: Mapping[int, float]) -> Iterator[dict[str, object]]:
    for mode in ("teacher_forced", "free_running"):
        place = {"step": LAST, "mode": mode}
        drift = arm.drift if mode == "free_running" else 0.0
        for position in range(1, setting.num_outputs + 1):
            error = (arm.forced + drift * (position - 1)) * factor
            yield place | {"by": "output_position", "at": position, "num": 300, "error": error}
        for length, error in wrong.items():
            yield place | {"by": "source_length", "at": length, "num": 100, "error": error * factor}


def _traces(arm: Arm, num_timesteps: int, factor: float, steps: range) -> Iterator[dict[str, object]]:
    """Yield norms of the encoder's h, or without recurrence of the input only, that fall geometrically with lag."""
    parts = {"encoder": "h", "input": "x"} if arm.recurs else {"input": "x"}
    for step, per_timestep in zip((0, steps[-1]), arm.factors, strict=True):
        for part, quantity in parts.items():
            place = {"step": step, "part": part, "layer": 0, "direction": "forward", "quantity": quantity}
            for lag in range(num_timesteps):
                norm = -1.0 + factor * lag * math.log10(per_timestep)
                yield place | {"timestep": num_timesteps - lag, "log10_norm": norm}
