"""A small adding problem and specs for it, made here so that training is tested apart from the datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.config import build
from pipeline.core.training import TrialSpec


@dataclasses.dataclass(frozen=True)
class Split:
    inputs: np.ndarray
    targets: np.ndarray
    alignment: np.ndarray | None = None
    images: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SmallDataset:
    """What `run_trial` reads of a dataset."""

    splits: Mapping[str, Split]
    input_kind: str = "real"
    input_size: int = 2
    target_at: str = "last"
    target_kind: str = "value"
    output_size: int = 1
    baseline_loss: float | None = 1 / 6
    token_groups: Mapping[str, tuple[int, ...]] | None = None
    padded: bool = False
    input_tokens: tuple[str, ...] | None = None
    target_tokens: tuple[str, ...] | None = None
    unknown_target: int | None = None
    frame_shape: tuple[int, int] | None = None
    series_exponent: float | None = None
    unseen: Mapping[int, Split] = dataclasses.field(default_factory=dict)

    @property
    def num_timesteps(self) -> int:
        return int(self.splits["train"].inputs.shape[1])


def adding_split(num_sequences: int, num_timesteps: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    values = random.random((num_sequences, num_timesteps))
    markers = np.zeros_like(values)
    rows, half = np.arange(num_sequences), num_timesteps // 2
    first, second = random.integers(0, half, num_sequences), random.integers(half, num_timesteps, num_sequences)
    markers[rows, first] = markers[rows, second] = 1.0
    targets = (values[rows, first] + values[rows, second])[:, None]
    return Split(np.stack([values, markers], axis=2).astype(np.float32), targets.astype(np.float32))


def symbols_split(num_sequences: int, num_timesteps: int, seed: int) -> Split:
    ids = np.random.default_rng(seed).integers(0, 4, (num_sequences, num_timesteps + 1)).astype(np.uint8)
    return Split(ids[:, 1:], ids[:, :-1])  # the target at t is the symbol before: one step of memory


@pytest.fixture(scope="session")
def adding() -> SmallDataset:
    names = {"train": 256, "validation": 64, "test": 64}
    return SmallDataset({name: adding_split(size, 10, seed) for seed, (name, size) in enumerate(names.items())})


@pytest.fixture(scope="session")
def symbols() -> SmallDataset:
    names = {"train": 256, "validation": 64, "test": 64}
    splits = {name: symbols_split(size, 12, seed) for seed, (name, size) in enumerate(names.items())}
    return SmallDataset(splits, "token", 4, "every", "class", 4, float(np.log(4)))


RAW = {
    "dataset": {"name": "adding", "length": 10, "unseen_lengths": []},
    "model": {
        "cell": "elman",
        "hidden_size": 6,
        "num_layers": 1,
        "bidirectional": False,
        "embedding_size": None,
        "attention": {"name": "none"},
        "code_size": None,
        "initialisation": {
            "input": {"name": "uniform"},
            "recurrent": {"name": "uniform"},
            "gates": {},
            "bias": {"name": "uniform"},
            "readout": {"name": "uniform"},
        },
    },
    "optimiser": {"name": "adam", "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999},
    "clipping": {"name": "global_norm", "threshold": 1.0},
    "regularisation": {"name": "none"},
    "training": {
        "batch_size": 16,
        "max_steps": 30,
        "evaluate_every": 10,
        "stop_on": "validation_loss",
        "stop_below": None,
        "explodes_above": 10.0,
        "convergence": {"last_share": 0.2, "improvement": 0.05},
        "truncation": None,
        "forcing": {"schedule": {"name": "constant", "value": 1.0}, "coin": "token"},
    },
    "diagnostics": {"num_traces": 4, "probe_size": 8, "gradient_check_tolerance": 1.0e-3, "measures": []},
    "seeds": [0, 1, 2],
}


@pytest.fixture(scope="session")
def spec_of() -> Callable[..., TrialSpec]:
    def make(**changes: Any) -> TrialSpec:
        raw = {key: dict(value) if isinstance(value, dict) else value for key, value in RAW.items()}
        for key, value in changes.items():
            section, _, field = key.partition("__")
            if field:
                raw[section][field] = value
            else:
                raw[section] = value
        return build(TrialSpec, raw, "a test")

    return make
