"""What a trial is: one setting with all its seeds, and the id that is made from its meaning."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.cells import CELLS
from pipeline.config.strict import InvalidFieldError, require
from pipeline.errors import unknown_name
from pipeline.training.clipping import Clipping
from pipeline.training.optimisers import Optimiser

TRIAL_VERSION = 2
"""Raised by hand when the same spec would give other results: every trial then trains anew."""


@dataclass(frozen=True)
class DatasetRef:
    """Which prepared data: a name under configs/datasets, and a length where the dataset has several."""

    name: str
    length: int | None


@dataclass(frozen=True)
class ModelSpec:
    """A recurrent cell between an input encoding and a linear readout.

    `embedding_size` is for token inputs: null encodes them one-hot. For a real input it must be null.
    """

    cell: str
    hidden_size: int
    embedding_size: int | None

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise InvalidFieldError("cell", f"a cell of the list ({unknown_name('cell', self.cell, CELLS)})", self.cell)
        require(self.hidden_size >= 1, "hidden_size", "an integer of at least 1", self.hidden_size)
        size = self.embedding_size
        require(size is None or size >= 1, "embedding_size", "null or an integer of at least 1", size)


@dataclass(frozen=True)
class TrainingSpec:
    """How long, in what portions, and when to stop.

    A replica whose validation loss is below `stop_below` has reached the criterion and is frozen there.
    """

    batch_size: int
    max_steps: int
    evaluate_every: int
    stop_below: float | None

    def __post_init__(self) -> None:
        for field in ("batch_size", "max_steps", "evaluate_every"):
            require(1 <= getattr(self, field) <= 10**12, field, "an integer of at least 1", getattr(self, field))
        require(self.stop_below is None or self.stop_below > 0, "stop_below", "null or above 0", self.stop_below)


@dataclass(frozen=True)
class DiagnosticsSpec:
    """How often and on how many sequences the gradient is traced; how far float32 may stray from float64."""

    num_traces: int
    probe_size: int
    certificate_tolerance: float

    def __post_init__(self) -> None:
        require(self.num_traces >= 2, "num_traces", "at least 2 (step 0 and the last one)", self.num_traces)
        require(self.probe_size >= 1, "probe_size", "an integer of at least 1", self.probe_size)
        require(self.certificate_tolerance > 0, "certificate_tolerance", "above 0", self.certificate_tolerance)


@dataclass(frozen=True)
class TrialSpec:
    """One setting with all its seeds: everything that its result depends on, besides the data and the code."""

    dataset: DatasetRef
    model: ModelSpec
    optimiser: Optimiser
    clipping: Clipping
    training: TrainingSpec
    diagnostics: DiagnosticsSpec
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        require(len(self.seeds) >= 1, "seeds", "at least one seed", list(self.seeds))
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "each seed once", list(self.seeds))
        require(min(self.seeds) >= 0, "seeds", "integers of at least 0", list(self.seeds))


def check_portions(spec: TrialSpec, num_sequences: Mapping[str, int]) -> None:
    """Check that a batch, and the probe, are no larger than the split that they are taken from.

    Args:
        spec: What is to be trained.
        num_sequences: N of each split.

    Raises:
        InvalidFieldError: If one is; the caller knows the file and the dataset.
    """
    for field, asked, split in (
        ("training.batch_size", spec.training.batch_size, "train"),
        ("diagnostics.probe_size", spec.diagnostics.probe_size, "validation"),
    ):
        available = num_sequences[split]
        require(asked <= available, field, f"at most {available}, the {split} sequences", asked)


def canonical(spec: TrialSpec) -> dict[str, Any]:
    """Return the spec as nested plain mappings: what is hashed, stored and sent to W&B."""
    return dataclasses.asdict(spec) | {"seeds": list(spec.seeds)}


def columns(spec: TrialSpec) -> dict[str, Any]:
    """Return the spec as flat columns of a result table, `model.cell` and so on (without the seeds)."""
    return {key: value for key, value in _flatten(canonical(spec)) if key != "seeds"}


def trial_id(spec: TrialSpec, dataset_digest: str) -> str:
    """Return 16 hexadecimal digits: the same for the same spec, data and `TRIAL_VERSION`, on any machine."""
    meaning = {"spec": canonical(spec), "dataset": dataset_digest, "version": TRIAL_VERSION}
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        flat += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return flat
