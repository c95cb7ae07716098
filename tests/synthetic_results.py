"""Result tables of a study that never ran, with known slopes and shares: what figures and reports are tested on."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.tables import SCHEMAS, check, write_table

GATES = {"elman": "h", "lstm": "ifgo", "gru": "rzn"}
START_FACTORS = {"elman/h": 0.60, "lstm/h": 0.62, "lstm/c": 0.66, "gru/h": 0.72}
END_FACTORS = {"elman/h": 0.85, "lstm/h": 0.95, "lstm/c": 0.985, "gru/h": 0.975}
PATIENCE = {"elman": 25.0, "lstm": 9.0, "gru": 6.0}
"""Steps per timestep of length that a cell needs before its loss falls."""


@dataclass(frozen=True)
class Shape:
    """How large the study is, and what goes wrong in it: `broken` maps a label (or `label#seed`) to a status."""

    lengths: Sequence[int] = (10, 20)
    learning_rates: Sequence[float] = (0.003, 0.01)
    cells: Sequence[str] = ("elman", "lstm", "gru")
    digits_length: int | None = 16
    num_seeds: int = 3
    max_steps: int = 40
    evaluate_every: int = 10
    num_traces: int = 4
    hidden_size: int = 4
    broken: Mapping[str, str] = field(default_factory=dict)
    start_factors: Mapping[str, float] = field(default_factory=lambda: START_FACTORS)
    end_factors: Mapping[str, float] = field(default_factory=lambda: END_FACTORS)
    patience: Mapping[str, float] = field(default_factory=lambda: PATIENCE)
    noise: float = 1.0

    @property
    def trace_steps(self) -> list[int]:
        spaced = np.expm1(np.linspace(0.0, np.log1p(self.max_steps), self.num_traces))
        return sorted({int(step) for step in spaced.round()})


REALISTIC = Shape(
    lengths=(20, 50, 100),
    digits_length=64,
    num_seeds=5,
    max_steps=1500,
    evaluate_every=100,
    num_traces=12,
    hidden_size=32,
    broken={
        "elman, T=100, lr=0.01#3": "diverged",
        "lstm, T=20, lr=0.003": "error",
        "gru, T=100, lr=0.01#1": "diverged",
    },
)


def study_tables(shape: Shape = Shape()) -> dict[str, pl.DataFrame]:  # noqa: B008 - frozen
    """Return the five tables of a study of that shape."""
    plan = [("adding", length, cell, lr) for length, cell, lr in _points(shape.lengths, shape)]
    if shape.digits_length is not None:
        plan += [("digits", None, cell, lr) for _, cell, lr in _points([None], shape)]
    parts = {table: [pl.DataFrame(schema=schema)] for table, schema in SCHEMAS.items()}
    parts |= {"trials": [], "settings": []}
    for position, (grid, length, cell, lr) in enumerate(plan):
        trial = _Trial(shape, grid, length, cell, lr)
        parts["settings"].append(trial.setting(position))
        for table, frame in trial.tables().items():
            parts[table].append(frame)
    tables = {table: pl.concat(frames, how="diagonal") for table, frames in parts.items()}
    return {table: check(table, frame, "synthetic") for table, frame in tables.items()}


def write_results(folder: Path, shape: Shape = Shape()) -> dict[str, pl.DataFrame]:  # noqa: B008 - frozen
    """Write the tables of `study_tables` into `folder` and return them."""
    tables = study_tables(shape)
    for table, frame in tables.items():
        write_table(table, frame, folder)
    return tables


def _points(lengths: Sequence[int | None], shape: Shape) -> list[tuple[int | None, str, float]]:
    return list(itertools.product(lengths, shape.cells, shape.learning_rates))


class _Trial:
    """One setting with all its seeds."""

    def __init__(self, shape: Shape, grid: str, length: int | None, cell: str, lr: float) -> None:
        self.shape, self.grid, self.length, self.cell, self.lr = shape, grid, length, cell, lr
        self.label = ", ".join([cell, *([f"T={length}"] if length else []), f"lr={lr}"])
        self.id = hashlib.sha256(f"{grid}{self.label}".encode()).hexdigest()[:16]
        self.T = length or shape.digits_length or 1
        self.random = np.random.default_rng(int(self.id[:8], 16))
        self.failed = shape.broken.get(self.label) == "error"
        self.losses = {seed: self._losses(seed) for seed in range(shape.num_seeds)}

    def setting(self, position: int) -> pl.DataFrame:
        row = {"study": "cells", "grid": self.grid, "position": position, "trial_id": self.id, "label": self.label}
        row |= {"selected": self.lr == self.shape.learning_rates[-1], "dataset.length": self.length}
        row |= {"model.cell": self.cell, "optimiser.learning_rate": self.lr}
        extra = {"dataset.length": pl.Int64(), "model.cell": pl.String(), "optimiser.learning_rate": pl.Float64()}
        return pl.DataFrame([row], schema=SCHEMAS["settings"] | extra)

    def tables(self) -> dict[str, pl.DataFrame]:
        tables = {"trials": self._trials()}
        if not self.failed:
            tables |= {"curves": self._curves(), "traces": self._traces(), "eigenvalues": self._eigenvalues()}
        return tables

    def status(self, seed: int) -> str:
        if self.failed:
            return "error"
        return self.shape.broken.get(f"{self.label}#{seed}", "ok")

    def _losses(self, seed: int) -> dict[int, float]:
        """Validation loss by step: a plateau at the baseline, then an exponential fall; it stops at the criterion."""
        baseline = 1 / 6 if self.grid == "adding" else math.log(10)
        wait = self.shape.patience[self.cell] * self.T * self.random.uniform(0.8, 1.2)
        wait *= self.shape.max_steps / 1500
        losses = {}
        for step in range(0, self.shape.max_steps + 1, self.shape.evaluate_every):
            if self.status(seed) == "diverged" and step > self.shape.max_steps // 2:
                break
            fall = math.exp(-5 * max(0.0, step - wait) / max(wait, 1.0))
            floor = 0.004 if self.grid == "adding" else 0.25
            losses[step] = (baseline - floor) * fall * self.random.uniform(0.93, 1.05) + floor
            if self.grid == "adding" and losses[step] < 0.01:
                break
        return losses

    def _trials(self) -> pl.DataFrame:
        rows = [self._row(seed) for seed in range(self.shape.num_seeds)]
        spec = {
            "dataset.name": pl.lit(self.grid),
            "dataset.length": pl.lit(self.length, pl.Int64),
            "model.cell": pl.lit(self.cell),
            "model.hidden_size": pl.lit(self.shape.hidden_size, pl.Int64),
            "model.embedding_size": pl.lit(None, pl.Int64),
            "optimiser.name": pl.lit("adam"),
            "optimiser.learning_rate": pl.lit(self.lr),
            "clipping.name": pl.lit("global_norm"),
            "clipping.threshold": pl.lit(1.0),
            "training.batch_size": pl.lit(32, pl.Int64),
            "training.max_steps": pl.lit(self.shape.max_steps, pl.Int64),
            "training.stop_below": pl.lit(0.01 if self.grid == "adding" else None, pl.Float64),
        }
        return pl.DataFrame(rows, schema=SCHEMAS["trials"]).with_columns(**spec)

    def _row(self, seed: int) -> dict[str, object]:
        status, losses = self.status(seed), self.losses[seed]
        row: dict[str, object] = dict.fromkeys(SCHEMAS["trials"])
        row |= {"trial_id": self.id, "seed": seed, "dataset_digest": "ab" * 32, "status": status}
        if status == "error":
            return row | {"status_message": "RuntimeError: <the machine> stopped\nTraceback (most recent call last)"}
        best = min(losses, key=lambda step: losses[step])
        last, classify = max(losses), self.grid == "digits"
        reached = not classify and losses[last] < 0.01 and status == "ok"
        row |= {"num_steps": last, "best_step": best, "best_validation_loss": losses[best]}
        row |= {"test_loss": losses[best] * 1.03, "baseline_loss": None if classify else 1 / 6}
        row |= {"test_error": 0.04 + losses[best] / 5 if classify else None, "reached_criterion": reached}
        row |= {"criterion_step": last if reached else None, "clipped_share": 0.2, "num_parameters": 1185}
        row |= {"certificate_error": 2.1e-6, "wall_time_s": 12.5, "step_time_s": 0.008, "peak_memory_bytes": 10**8}
        row |= {"diagnostics_time_share": 0.03, "device": "cpu (x86_64)", "hostname": "node", "torch_version": "2.13.0"}
        row |= {"python_version": "3.11.2", "git_revision": "0123456789abcdef"}
        if status == "diverged":
            row |= {"status_message": "loss nan", "diverged_step": last + 1, "diverged_timestep": 3}
            row |= {"diverged_quantity": "h"}
        return row

    def _curves(self) -> pl.DataFrame:
        frames = []
        for seed, losses in self.losses.items():
            steps = np.arange(1, max(losses) + 1)
            norm = 10 ** (self.random.normal(-0.4, 0.35, len(steps)) - 0.6 * steps / self.shape.max_steps)
            clipped = np.minimum(norm, 1.0)
            rows = {"training_loss": np.interp(steps, list(losses), list(losses.values())), "grad_norm": norm}
            rows |= {"clipped_grad_norm": clipped, "clip_cosine": np.ones(len(steps))}
            frames += [self._curve(seed, steps, metric, values) for metric, values in rows.items()]
            frames.append(self._curve(seed, np.array(list(losses)), "validation_loss", np.array(list(losses.values()))))
            if self.grid == "digits":
                error = np.array(list(losses.values())) / 5 + 0.04
                frames.append(self._curve(seed, np.array(list(losses)), "validation_error", error))
            measured = np.array(self._trace_steps(seed))
            for gate in GATES[self.cell]:
                radius = 0.57 + 0.12 * np.log1p(measured) / 2 + self.random.normal(0, 0.01, len(measured))
                frames.append(self._curve(seed, measured, f"spectral_radius[{gate}]", radius))
                frames.append(self._curve(seed, measured, f"sigma_max[{gate}]", 1.75 * radius))
        return pl.concat(frames)

    def _curve(self, seed: int, steps: np.ndarray, metric: str, values: np.ndarray) -> pl.DataFrame:
        columns = {"trial_id": self.id, "seed": seed, "step": steps, "metric": metric, "value": values}
        return pl.DataFrame(columns, schema=SCHEMAS["curves"])

    def _trace_steps(self, seed: int) -> list[int]:
        last = max(self.losses[seed])
        scheduled = [step for step in self.shape.trace_steps if step <= last]
        ended = [] if self.status(seed) == "diverged" else [last]
        return sorted({*scheduled, *ended})

    def _traces(self) -> pl.DataFrame:
        lag = np.arange(self.T)[::-1]
        frames = []
        for seed, quantity in itertools.product(self.losses, "hc" if self.cell == "lstm" else "h"):
            key, steps = f"{self.cell}/{quantity}", self._trace_steps(seed)
            jitter = 1 + self.shape.noise * self.random.normal(0, 0.04)
            for step in steps:
                done = math.log1p(step) / math.log1p(max(steps)) if step else 0.0
                start, end = math.log10(self.shape.start_factors[key]), math.log10(self.shape.end_factors[key])
                slope = (start + (end - start) * done) * jitter
                wiggle = self.shape.noise * self.random.normal(0, 0.02, self.T).cumsum() * (lag > 0)
                columns = {"trial_id": self.id, "seed": seed, "step": step, "layer": 0, "direction": "forward"}
                values = -1.5 - 0.3 * done + slope * lag + wiggle
                columns |= {"timestep": np.arange(1, self.T + 1), "quantity": quantity, "log10_norm": values}
                frames.append(pl.DataFrame(columns, schema=SCHEMAS["traces"]))
        return pl.concat(frames)

    def _eigenvalues(self) -> pl.DataFrame:
        H = self.shape.hidden_size
        frames = []
        for seed, gate in itertools.product(self.losses, GATES[self.cell]):
            steps = self._trace_steps(seed)
            for step, scale in ((steps[0], 1.0), (steps[-1], 1.4)):
                weight = self.random.uniform(-1, 1, (H, H)) * scale / math.sqrt(H)
                values = np.linalg.eigvals(weight)
                columns = {"trial_id": self.id, "seed": seed, "step": step, "layer": 0, "direction": "forward"}
                columns |= {"gate": gate, "index": np.arange(H), "real": values.real, "imag": values.imag}
                frames.append(pl.DataFrame(columns, schema=SCHEMAS["eigenvalues"]))
        return pl.concat(frames)
