"""Result tables of a study that never ran, with known slopes and shares: what figures and reports are tested on."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.core.training.rows import FACTS
from pipeline.results import SCHEMAS, check, write_table

GATES = {"elman": "h", "lstm": "ifgo", "gru": "rzn"}
START_FACTORS = {"elman/h": 0.60, "lstm/h": 0.62, "lstm/c": 0.66, "gru/h": 0.72}
END_FACTORS = {"elman/h": 0.85, "lstm/h": 0.95, "lstm/c": 0.985, "gru/h": 0.975}
PATIENCE = {"elman": 25.0, "lstm": 9.0, "gru": 6.0}
"""Steps per timestep of length that a cell needs before its loss falls."""


KEEPING = {"lstm": "f", "gru": "z"}
"""The gate by which the old state is multiplied."""


@dataclass(frozen=True)
class Variant:
    """An arm with a free label: its cell, its factors per timestep of lag, and what else it sets."""

    cell: str
    start: float = 0.7
    end: float = 0.9
    backward_length: int | None = None


@dataclass(frozen=True)
class Shape:
    """How large the study is, and what goes wrong in it: `broken` maps a label (or `label#seed`) to a status.

    `variants` are arms with free labels, instead of `cells`; `measures` adds the tables of gates, Jacobians, exponents,
    truncation and smoothness.
    """

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
    variants: Mapping[str, Variant] = field(default_factory=dict)
    measures: bool = False
    num_layers: int = 1
    directions: Sequence[str] = ("forward",)

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


MEASURED = ("value", "log10_norm", "log10_value", "lyapunov_nats_per_timestep", "cosine", "log10_phi", "error")


def unlike(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose seeds differ in the ninth digit: seeds that are all alike have no interval."""
    values = [name for name in MEASURED if name in frame.columns and {"seed", "step"} <= set(frame.columns)]
    apart = (
        3e-9 * (pl.col("seed") - pl.col("seed").max() / 2) * (1 + (pl.col("step") > 0).cast(pl.Float64))
    )  # changes by training differ, too
    return frame.with_columns(pl.col(name) * (1 - apart) for name in values)


def study_tables(shape: Shape = Shape()) -> dict[str, pl.DataFrame]:  # noqa: B008 - frozen
    """Return the tables of a study of that shape."""
    plan = [("adding", length, arm, lr) for length, arm, lr in _points(shape.lengths, shape)]
    if shape.digits_length is not None:
        plan += [("digits", None, arm, lr) for _, arm, lr in _points([None], shape)]
    parts = {table: [pl.DataFrame(schema=schema)] for table, schema in SCHEMAS.items()}
    parts |= {"trials": [], "settings": []}
    for position, (grid, length, arm, lr) in enumerate(plan):
        trial = _Trial(shape, grid, length, arm, lr)
        parts["settings"].append(trial.setting(position))
        for table, frame in trial.tables().items():
            parts[table].append(frame)
    tables = {table: unlike(pl.concat(frames, how="diagonal")) for table, frames in parts.items()}
    return {table: check(table, frame, "synthetic") for table, frame in tables.items()}


def write_results(folder: Path, shape: Shape = Shape()) -> dict[str, pl.DataFrame]:  # noqa: B008 - frozen
    """Write the tables of `study_tables` into `folder` and return them."""
    tables = study_tables(shape)
    for table, frame in tables.items():
        write_table(table, frame, folder)
    return tables


def _points(lengths: Sequence[int | None], shape: Shape) -> list[tuple[int | None, str, float]]:
    return list(itertools.product(lengths, shape.variants or shape.cells, shape.learning_rates))


class _Trial:
    """One setting with all its seeds."""

    def __init__(self, shape: Shape, grid: str, length: int | None, arm: str, lr: float) -> None:
        self.shape, self.grid, self.length, self.arm, self.lr = shape, grid, length, arm, lr
        self.variant = shape.variants.get(arm)
        self.cell = self.variant.cell if self.variant else arm
        self.label = ", ".join([arm, *([f"T={length}"] if length else []), f"lr={lr}"])
        self.id = hashlib.sha256(f"{grid}{self.label}".encode()).hexdigest()[:16]
        self.T = length or shape.digits_length or 1
        self.random = np.random.default_rng(int(self.id[:8], 16))
        self.failed = shape.broken.get(self.label) == "error"
        self.losses = {seed: self._losses(seed) for seed in range(shape.num_seeds)}

    def setting(self, position: int) -> pl.DataFrame:
        row = {"study": "cells", "grid": self.grid, "position": position, "trial_id": self.id, "label": self.label}
        row |= {"variant": None, "selected": self.lr == self.shape.learning_rates[-1], "dataset.length": self.length}
        row |= {"optimiser.learning_rate": self.lr}
        row |= {"variant": self.arm} if self.variant else {"model.cell": self.cell}
        extra = {"dataset.length": pl.Int64(), "model.cell": pl.String(), "optimiser.learning_rate": pl.Float64()}
        return pl.DataFrame([row], schema=SCHEMAS["settings"] | extra)

    def tables(self) -> dict[str, pl.DataFrame]:
        tables = {"trials": self._trials()}
        if not self.failed:
            tables |= {"curves": self._curves(), "traces": self._traces(), "eigenvalues": self._eigenvalues()}
        if not self.failed and self.shape.measures:
            tables |= {"jacobians": self._jacobians(), "lyapunov": self._lyapunov(), "truncation": self._truncation()}
            tables |= {"gates": self._gates()} if self.cell in KEEPING else {}
        return tables

    @property
    def places(self) -> list[tuple[int, str]]:
        return list(itertools.product(range(self.shape.num_layers), self.shape.directions))

    def factor(self, quantity: str, done: float) -> float:
        """Return by how much the gradient of the top layer falls per timestep; `done` goes from 0 to 1 in training."""
        key = f"{self.cell}/{quantity}"
        if self.variant:
            start, end = self.variant.start, self.variant.end
        else:
            start, end = self.shape.start_factors[key], self.shape.end_factors[key]
        return start ** (1 - done) * end**done

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
            "model.num_layers": pl.lit(self.shape.num_layers, pl.Int64),
            "model.embedding_size": pl.lit(None, pl.Int64),
            "optimiser.name": pl.lit("adam"),
            "optimiser.learning_rate": pl.lit(self.lr),
            "clipping.name": pl.lit("global_norm"),
            "clipping.threshold": pl.lit(1.0),
            "training.batch_size": pl.lit(32, pl.Int64),
            "training.max_steps": pl.lit(self.shape.max_steps, pl.Int64),
            "training.stop_below": pl.lit(0.01 if self.grid == "adding" else None, pl.Float64),
        }
        if any(variant.backward_length for variant in self.shape.variants.values()):
            length = self.variant.backward_length if self.variant else None
            spec["training.truncation.backward_length"] = pl.lit(length, pl.Int64)
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
        row |= {"final_validation_loss": losses[last], "beat_untrained": best > 0}
        row |= {"converged": None if status == "diverged" else True}
        row |= {"test_loss": losses[best] * 1.03, "baseline_loss": None if classify else 1 / 6}
        row |= {"test_error": 0.04 + losses[best] / 5 if classify else None, "reached_criterion": reached}
        row |= {"criterion_step": last if reached else None, "clipped_share": 0.2, "num_parameters": 1185}
        row |= {"gradient_check_error": 2.1e-6, "wall_time_s": 12.5, "peak_memory_bytes": 10**8}
        row |= {
            "training_time_s": 0.008 * last,
            "step_time_s": 0.008,
            "step_time_error_s": 0.0002,
            "num_timed_portions": 3,
        }
        row |= {"criterion_time_s": 0.008 * last if reached else None, "activation_bytes": 10**6}
        row |= {
            "diagnostics_time_share": 0.03,
            "device": "cpu (x86_64)",
            "kernel": "compiled",
            "hostname": "node",
            "torch_version": "2.13.0",
        }
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
            training = np.interp(steps, list(losses), list(losses.values()))
            frames.append(self._curve(seed, steps, "loss", training, split="train"))
            rows = {"grad_norm": norm, "clipped_grad_norm": clipped, "clip_cosine": np.ones(len(steps))}
            frames += [self._curve(seed, steps, metric, values) for metric, values in rows.items()]
            evaluated, validation = np.array(list(losses)), np.array(list(losses.values()))
            frames.append(self._curve(seed, evaluated, "loss", validation, split="validation"))
            if self.grid == "digits":
                frames.append(self._curve(seed, evaluated, "error", validation / 5 + 0.04, split="validation"))
            measured = np.array(self._trace_steps(seed))
            if self.shape.measures:
                probe = 10 ** (self.random.normal(-0.5, 0.4, len(measured)))
                smoothness = 2.0 * probe**0.8 * 10 ** (self.shape.noise * self.random.normal(0, 0.15, len(measured)))
                frames.append(self._curve(seed, measured, "probe_grad_norm", probe))
                frames.append(self._curve(seed, measured, "local_smoothness", smoothness))
            for (layer, direction), gate in itertools.product(self.places, GATES[self.cell]):
                block: dict[str, Any] = {"part": "recurrent", "layer": layer, "direction": direction, "gate": gate}
                radius = 0.57 + 0.12 * np.log1p(measured) / 2 + self.random.normal(0, 0.01, len(measured))
                frames.append(self._curve(seed, measured, "spectral_radius", radius, **block))
                frames.append(self._curve(seed, measured, "sigma_max", 1.75 * radius, **block))
        return pl.concat(frames)

    def _curve(self, seed: int, steps: np.ndarray, metric: str, values: np.ndarray, **facts: str | int) -> pl.DataFrame:
        columns = {"trial_id": self.id, "seed": seed, "step": steps, "metric": metric, "value": values}
        columns |= dict.fromkeys(FACTS) | facts
        return pl.DataFrame(columns, schema=SCHEMAS["curves"])

    def _trace_steps(self, seed: int) -> list[int]:
        last = max(self.losses[seed])
        scheduled = [step for step in self.shape.trace_steps if step <= last]
        ended = [] if self.status(seed) == "diverged" else [last]
        return sorted({*scheduled, *ended})

    def _traces(self) -> pl.DataFrame:
        frames = []
        for seed, quantity in itertools.product(self.losses, "hc" if self.cell == "lstm" else "h"):
            steps = self._trace_steps(seed)
            jitter = 1 + self.shape.noise * self.random.normal(0, 0.04)
            for step, (layer, direction) in itertools.product(steps, self.places):
                done = math.log1p(step) / math.log1p(max(steps)) if step else 0.0
                below = self.shape.num_layers - 1 - layer
                slope = math.log10(self.factor(quantity, done)) * jitter * (1 + 0.25 * below)
                lag = np.arange(self.T) if direction == "backward" else np.arange(self.T)[::-1]
                wiggle = self.shape.noise * self.random.normal(0, 0.02, self.T).cumsum() * (lag > 0)
                columns = {"trial_id": self.id, "seed": seed, "step": step, "part": "recurrent", "layer": layer}
                columns |= {"direction": direction}
                values = -1.5 - 0.3 * done - 0.4 * below + slope * lag + wiggle
                columns |= {"timestep": np.arange(1, self.T + 1), "quantity": quantity, "log10_norm": values}
                frames.append(pl.DataFrame(columns, schema=SCHEMAS["traces"]))
                if (layer, direction, quantity) == (0, "forward", "h"):
                    columns |= {"part": "input", "quantity": "x", "log10_norm": values - 1}
                    frames.append(pl.DataFrame(columns, schema=SCHEMAS["traces"]))
        return pl.concat(frames)

    def _staged(self) -> Iterator[tuple[dict[str, object], float]]:
        """Yield the keys of a measurement at the first and last step of each seed, and its factor per timestep."""
        for seed in self.losses:
            jitter = 1 + self.shape.noise * self.random.normal(0, 0.04)
            steps = self._trace_steps(seed)
            for step, done in {steps[0]: 0.0, steps[-1]: 1.0}.items():
                keys = {"trial_id": self.id, "seed": seed, "step": step}
                yield keys, self.factor("c" if self.cell == "lstm" else "h", done) ** jitter

    def _placed(self) -> Iterator[tuple[dict[str, object], float]]:
        for keys, factor in self._staged():
            for layer, direction in self.places:
                yield keys | {"part": "recurrent", "layer": layer, "direction": direction}, factor

    def _jacobians(self) -> pl.DataFrame:
        """Singular values of f^k, f^1.5k and f^2k, f being the factor."""
        lag, frames = np.arange(1, self.T), []
        powers = {"largest": 1.0, "median": 1.5, "smallest": 2.0, "condition": -1.0}
        for (keys, factor), (quantity, power) in itertools.product(self._placed(), powers.items()):
            columns = keys | {"lag": lag, "quantity": quantity, "log10_value": power * lag * math.log10(factor)}
            frames.append(pl.DataFrame(columns, schema=SCHEMAS["jacobians"]))
        return pl.concat(frames)

    def _lyapunov(self) -> pl.DataFrame:
        """Exponents ln f - i/10, approached from above as 1/t."""
        t, frames = np.unique(np.geomspace(1, self.T, 12).round().astype(int)), []
        for (keys, factor), index in itertools.product(self._placed(), range(self.shape.hidden_size)):
            exponent = math.log(factor) - 0.1 * index
            columns = keys | {"index": index, "timestep": t, "lyapunov_nats_per_timestep": exponent + 0.1 * (1 / t)}
            columns |= {"standard_error": 0.02 / np.sqrt(t)}
            frames.append(pl.DataFrame(columns, schema=SCHEMAS["lyapunov"]))
        return pl.concat(frames)

    def _gates(self) -> pl.DataFrame:
        """Densities of Beta(a, 1) by bins; the mean of the keeping gate is the factor, that of every other a half."""
        middles, frames = (np.arange(20) + 0.5) / 20, []
        squashed = GATES[self.cell].strip("n").replace("g", "")
        for (keys, factor), gate in itertools.product(self._placed(), squashed):
            mean = min(factor, 0.999) if gate == KEEPING[self.cell] else 0.5
            density = middles ** (mean / (1 - mean) - 1)  # Beta(a, 1) has the mean a/(a+1)
            density *= 20 / density.sum()
            rows = [
                ("density", middles, density),
                ("mean", 0.0, mean),
            ]
            rows += [("left_saturated", 0.0, density[:2].sum() / 20), ("right_saturated", 0.0, density[-2:].sum() / 20)]
            if gate == KEEPING[self.cell]:
                rows += [("kept", 0.0, mean), ("half_life", 0.0, -math.log(2) / math.log(mean))]
                rows.append(("retention", np.arange(self.T), np.arange(self.T) * math.log10(mean)))
            for quantity, position, value in rows:
                columns = keys | {"gate": gate, "quantity": quantity, "position": position, "value": value}
                frames.append(pl.DataFrame(columns, schema=SCHEMAS["gates"], strict=False))
        return pl.concat(frames)

    def _truncation(self) -> pl.DataFrame:
        """Relative error, and phi, of f^K; Aicher's bound is then f^K / (1 - f^K)."""
        K, frames = np.unique(np.geomspace(1, self.T, 8).round().astype(int)), []
        for keys, factor in self._staged():
            error = min(factor, 0.999) ** K
            columns = keys | {"backward_length": K, "cosine": 1 - error / 2, "relative_error": error}
            columns |= {"log10_phi": np.log10(error), "decay_factor": min(factor, 0.999)}
            columns |= {"relative_bias_bound": error / (1 - error)}
            frames.append(pl.DataFrame(columns, schema=SCHEMAS["truncation"]))
        return pl.concat(frames)

    def _eigenvalues(self) -> pl.DataFrame:
        H = self.shape.hidden_size
        frames = []
        for seed, gate in itertools.product(self.losses, GATES[self.cell]):
            steps = self._trace_steps(seed)
            for step, scale in ((steps[0], 1.0), (steps[-1], 1.4)):
                weight = self.random.uniform(-1, 1, (H, H)) * scale / math.sqrt(H)
                values = np.linalg.eigvals(weight)
                columns = {"trial_id": self.id, "seed": seed, "step": step, "part": "recurrent", "layer": 0}
                columns |= {"direction": "forward", "gate": gate}
                columns |= {"index": np.arange(H), "real": values.real, "imag": values.imag}
                frames.append(pl.DataFrame(columns, schema=SCHEMAS["eigenvalues"]))
        return pl.concat(frames)


def many_tables(num_settings: int) -> dict[str, pl.DataFrame]:
    """Return the tables of a study of one grid with so many settings, as a random search leaves them.

    A few trials are made up and copied under other identities, learning rates and clipping thresholds (of three digits,
    as searches draw them), with norms and losses of their own: what takes long is to be the report.
    """
    base = study_tables(Shape(lengths=(10,), digits_length=None, num_seeds=2, num_traces=3, measures=True))
    place = np.arange(-(-num_settings // base["settings"].height))
    factor, threshold = 10 ** (0.8 * (place * 0.618034 % 1) - 0.4), 10 ** (2 * (place + 0.5) / len(place) - 1)
    copies = pl.DataFrame({"copy": place, "factor": factor, "threshold": threshold})
    own = {
        "trial_id": pl.format("{}{}", pl.col("copy").cast(pl.String).str.zfill(6), pl.col("trial_id").str.slice(6)),
        "optimiser.learning_rate": (pl.col("optimiser.learning_rate") * pl.col("factor")).round_sig_figs(3),
        "clipping.threshold": pl.col("threshold").round_sig_figs(3),
    }
    changes: dict[str, dict[str, pl.Expr]] = {
        "trials": own | {name: pl.col(name) * pl.col("factor") for name in ("test_loss", "best_validation_loss")},
        "traces": {"log10_norm": pl.col("log10_norm") * pl.col("factor")},
        "jacobians": {"log10_value": pl.col("log10_value") * pl.col("factor")},
    }

    def copied(name: str) -> pl.DataFrame:
        both = base[name].join(copies, how="cross", maintain_order="right_left")
        rows = both.with_columns(**{"trial_id": own["trial_id"], **changes.get(name, {})})
        return rows.drop("copy", "factor", "threshold")

    settings = base["settings"].join(copies, how="cross", maintain_order="right_left").head(num_settings)
    settings = settings.with_columns(
        **own, study=pl.lit("many"), position=pl.int_range(pl.len(), dtype=pl.Int64), selected=pl.lit(value=True)
    )
    settings = settings.with_columns(label=pl.format("{}, lr={}", "model.cell", "optimiser.learning_rate"))
    kept = settings.select("trial_id")
    tables = {
        name: copied(name).join(kept, on="trial_id", how="semi", maintain_order="left")
        for name in base
        if name != "settings"
    }
    tables["settings"] = settings.drop("copy", "factor", "threshold")
    return {name: check(name, tables[name], "synthetic") for name in SCHEMAS}
