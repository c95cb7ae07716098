from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

from pipeline.config import Params, Paths, Resources, Tracking
from pipeline.config.params import SeedRange
from pipeline.publish import Publisher
from pipeline.publish.views import RunView, views_of
from pipeline.quantities import Grid
from pipeline.results import SCHEMAS, TRIAL_TABLES, write_table
from tests.publish.wandb_server import WandbServer

KEY = "feed" * 10
SEEDS = (0, 1, 2)
STEPS = 20
TRIAL_IDS = ("00112233445566aa", "00112233445566bb")
SPEC = {
    "dataset": {"name": "adding", "length": 10},
    "model": {"cell": "lstm", "hidden_size": 4, "embedding_size": None},
    "optimiser": {"name": "adam", "learning_rate": 0.003, "beta1": 0.9, "beta2": 0.999},
    "clipping": {"name": "none"},
    "training": {"batch_size": 8, "max_steps": STEPS, "evaluate_every": 10, "stop_below": None},
    "diagnostics": {"num_traces": 3, "probe_size": 8, "gradient_check_tolerance": 0.001},
    "seeds": list(SEEDS),
}
OTHER_VARIANTS = {"optimiser.momentum": None, "optimiser.decay": None, "clipping.threshold": None}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's key or home, nor a server beyond loopback."""
    for name in (
        "WANDB_MODE",
        "WANDB_DISABLED",
        "WANDB_API_KEY",
        "WANDB_DIR",
        "WANDB_DATA_DIR",
        "WANDB_CACHE_DIR",
        "NETRC",
    ):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A stand-in for W&B on loopback, whose address and key are in the environment."""
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield server
    server.close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    root = tmp_path / "project"
    root.mkdir()
    return Paths.at(root)


@pytest.fixture
def heatmap(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A heat map that is quick to draw; the list says how many rows each drawing was given."""
    drawn: list[int] = []

    def draw(grid: Grid) -> bytes:
        drawn.append(grid["traces"].height)
        return png()

    monkeypatch.setattr("pipeline.publish.views._draw_heatmap", draw)
    return drawn


def png() -> bytes:
    buffer = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(buffer, format="png")
    return buffer.getvalue()


def params_with(mode: str) -> Params:
    tracking = Tracking(mode=mode, project="gradients", entity="team")  # type: ignore[arg-type]
    return Params("smoke", SeedRange(0, None), ("adding",), ("cells",), None, Resources(1.0, 0.0), tracking)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = (record for record in caplog.records if record.name.startswith("pipeline"))
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@dataclass(frozen=True)
class Trial:
    label: str
    trial_id: str
    tables: dict[str, pl.DataFrame]


def publish(paths: Paths, publisher: Publisher, *trials: Trial) -> None:
    """Publish the runs of these settings, one study with each alone."""
    for trial in trials:
        write_study(paths, [trial])
        publisher.publish(settings_of(paths)[0])


def settings_of(paths: Paths) -> list[RunView]:
    """The runs of the settings of study `cells`; the last view is the study's own."""
    return list(views_of(paths, "cells"))[:-1]


def make_trial(trial_id: str = TRIAL_IDS[0], label: str = "lstm, T=10", *, loss: float = 1.0) -> Trial:
    """A trial of three seeds: validation loss (1 + seed) * loss at every tenth step, seed 2 diverged after step 10."""
    tables = {"trials": _trials(trial_id, loss), "curves": _curves(trial_id, loss), "traces": _traces(trial_id)}
    tables |= {name: pl.DataFrame(schema=SCHEMAS[name]) for name in TRIAL_TABLES if name not in tables}
    return Trial(label, trial_id, tables)


def write_study(paths: Paths, trials: list[Trial]) -> None:
    """The consolidated tables of study `cells`."""
    folder = paths.results("cells")
    for table in TRIAL_TABLES:
        write_table(table, pl.concat([trial.tables[table] for trial in trials]), folder)
    rows = [
        {"study": "cells", "grid": "adding", "position": i, "trial_id": t.trial_id}
        | {"label": t.label, "variant": None, "selected": True, "model.cell": "lstm"}
        for i, t in enumerate(trials)
    ]
    schema = SCHEMAS["settings"] | {"model.cell": pl.String()}
    write_table("settings", pl.DataFrame(rows, schema=schema), folder)


def _trials(trial_id: str, loss: float) -> pl.DataFrame:
    spec = {f"{group}.{key}": value for group, part in SPEC.items() if group != "seeds" for key, value in part.items()}
    rows = []
    for seed in SEEDS:
        final = {"best_validation_loss": (1 + seed) * loss, "test_loss": None if seed == 2 else 0.5 + seed}
        facts = {
            "spec": json.dumps(SPEC),
            "trial_id": trial_id,
            "seed": seed,
            "dataset_digest": "d" * 64,
            "num_steps": STEPS,
            "device": "cpu",
            "kernel": "eager",
        }
        status = {"status": "diverged" if seed == 2 else "ok"}
        rows.append(dict.fromkeys(SCHEMAS["trials"]) | facts | status | final)
    frame = pl.DataFrame(rows, schema=SCHEMAS["trials"])
    integers = {"dataset.length", "model.embedding_size"}
    nulls = {key: pl.Int64() if key in integers else pl.Float64() for key in (*spec, *OTHER_VARIANTS)}
    literals = spec | OTHER_VARIANTS
    return frame.with_columns(
        pl.lit(value, nulls[key] if value is None else None).alias(key) for key, value in literals.items()
    )


def _curves(trial_id: str, loss: float) -> pl.DataFrame:
    rows = []
    for seed in SEEDS:
        last = 10 if seed == 2 else STEPS
        rows += [curve(seed, step, "grad_norm", 10.0 ** (seed - step)) for step in range(1, last + 1)]
        rows += [curve(seed, step, "loss", (1 + seed) * loss, split="validation") for step in range(0, last + 1, 10)]
        rows += [curve(seed, 0, "sigma_max", 1.0 + seed, part="recurrent", layer=0, direction="forward", gate="f")]
    return pl.DataFrame([{"trial_id": trial_id} | row for row in rows], schema=SCHEMAS["curves"])


def curve(seed: int, step: int, metric: str, value: float, **facts: str | int) -> dict[str, object]:
    """A row of `curves`; what is not said of it is null."""
    return {"seed": seed, "step": step, "metric": metric, "value": value} | facts


def _traces(trial_id: str) -> pl.DataFrame:
    rows = [
        (trial_id, seed, step, "recurrent", 0, "forward", t, "h", -math.inf if t == 1 else -float(t))
        for seed in SEEDS
        for step in (0, 10)
        for t in range(1, 11)
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["traces"], orient="row")
