"""A tiny project in a temporary folder, and a training function that only pretends to train.

Importable by Ray workers and by the driver that a test kills.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config import Params, Paths, Sizes, load_params
from pipeline.core.training import TrialSpec
from pipeline.core.training.rows import FACTS
from pipeline.data import prepare_dataset
from pipeline.results import HOST_COLUMNS, SCHEMAS, read_table
from pipeline.results.schema import IDENTITY_COLUMNS
from pipeline.sweep import executor_named, run_sweep

NUM_STEPS = 6
PARAMS = {
    "scale": "tiny",
    "seeds": {"start": 0, "count": None},
    "datasets": ["adding"],
    "studies": ["cells"],
    "trial_store": None,
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "settings_per_program": 1},
    "tracking": {"mode": "disabled", "project": "test", "entity": None},
}
SCALE = {
    "num_seeds": 2,
    "datasets": {"num_train": 8, "num_validation": 4, "num_test": 4},
    "max_wall_time_s": 60.0,
}
BASE = yaml.safe_load((Path(__file__).parents[2] / "configs" / "base.yaml").read_text())
STUDY = {
    "question": "Does the sweep work?",
    "claims": [],
    "set": {
        "dataset.length": 4,
        "model.hidden_size": 3,
        "optimiser": {"name": "sgd", "learning_rate": 0.1},
        "clipping": {"name": "none"},
        "training.batch_size": 4,
        "training.max_steps": NUM_STEPS,
        "training.evaluate_every": 3,
        "diagnostics.num_traces": 2,
        "diagnostics.probe_size": 2,
    },
    "grids": {
        "cells": {
            "figures": None,
            "set": {},
            "variants": {},
            "axes": {"model.cell": ["elman", "lstm"], "optimiser.learning_rate": [0.1, 0.2]},
        },
    },
    "select": {"over": ["optimiser.learning_rate"], "metric": "best_validation_loss"},
    "scales": {},
}


def write_project(root: Path, **study: object) -> tuple[Paths, Params]:
    """Write params.yaml and configs/ of a project with one study, prepare its data, and return it loaded."""
    paths = Paths.at(root)
    adding = {"generator": "adding", "seed": 1, "lengths": [4, 6]}
    write_yaml(paths.params, PARAMS)
    write_yaml(paths.scale_config("tiny"), SCALE)
    write_yaml(paths.claims, {"min_seeds": 3, "claims": {"C1": {}}})
    write_yaml(paths.base, BASE)
    write_yaml(paths.dataset_config("adding"), adding)
    write_yaml(paths.study_config("cells"), {**STUDY, **study})
    prepare_dataset("adding", paths.dataset_config("adding"), [4, 6], Sizes(8, 4, 4), paths.dataset("adding"))
    return paths, load_params(paths)


def limit_time(paths: Paths, seconds: float) -> None:
    """Change a trial's time limit, 60 s before."""
    write_yaml(paths.scale_config("tiny"), SCALE | {"max_wall_time_s": seconds})


def write_yaml(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def grid(**axes: list[object]) -> dict[str, object]:
    """Return a study's `grids` with one grid; `model__cell` stands for `model.cell`."""
    return {
        "cells": {
            "figures": None,
            "set": {},
            "variants": {},
            "axes": {key.replace("__", "."): v for key, v in axes.items()},
        }
    }


@dataclass(frozen=True)
class FakeResult:
    rows: list[dict[str, object]]
    status: str


@dataclass(frozen=True)
class FakeTrain:
    """Pretends to train: each step depends on the one before, so a wrong resume shows in the tables.

    `journal` gets a line for every step made; the workers that first come to `die_at` die, in ways given.
    """

    delay_s: float = 0.0
    fails_on: str = ""
    diverges_on: str = ""
    die_at: int | None = None
    deaths: tuple[Callable[[], None], ...] = ()
    journal: Path | None = None

    def __call__(
        self, spec: TrialSpec, dataset, sink, *, checkpoints, device, num_threads, max_wall_time_s, stop_at, program
    ):
        if spec.model.cell == self.fails_on:
            raise RuntimeError(f"no kernel for {spec.model.cell}")
        step, state = 0, f"{spec.model.cell} {spec.optimiser.learning_rate} {dataset.digest}"
        if (data := checkpoints.load()) is not None:
            kept = json.loads(data)
            step, state = kept["step"], kept["state"]
            sink.restore(base64.b64decode(kept["rows"]))
        while step < spec.training.max_steps:
            step, state = step + 1, hashlib.sha256(state.encode()).hexdigest()
            about = {"step": step, "metric": "loss", **FACTS, "split": "train"}
            row = {"seed": list(spec.seeds), **about, "value": loss_of(state)}
            sink.write("curves", row)
            rows = base64.b64encode(sink.to_bytes()).decode()
            checkpoints.save(json.dumps({"step": step, "state": state, "rows": rows}).encode())
            self._note(f"{spec.model.cell} {spec.optimiser.learning_rate} {step}")
            self._maybe_die(step)
            time.sleep(self.delay_s)
        status = "diverged" if spec.model.cell == self.diverges_on else "ok"
        return FakeResult([trial_row(seed, loss_of(state) + seed, status) for seed in spec.seeds], status)

    def _note(self, line: str) -> None:
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(f"{line}\n")

    def _maybe_die(self, step: int) -> None:
        if step != self.die_at or self.journal is None:
            return
        for number, end in enumerate(self.deaths):
            with contextlib.suppress(FileExistsError):
                (self.journal.parent / f"death-{number}").touch(exist_ok=False)
                end()
                return


def kill() -> None:
    """End this process as the kernel does when there is no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Wait for what never comes."""
    threading.Event().wait()


def loss_of(state: str) -> float:
    return int(state[:8], 16) / 2**32


def trial_row(seed: int, loss: float | None, status: str = "ok") -> dict[str, object]:
    """Return one seed's columns of `trials` as training makes them."""
    given = (*IDENTITY_COLUMNS, "dataset_digest", "hostname", "git_revision")
    blank = {name: None for name in SCHEMAS["trials"] if name not in given}
    return {**blank, "seed": seed, "status": status, "best_validation_loss": loss, "wall_time_s": time.perf_counter()}


def sweep(paths: Paths, params: Params, train: object, executor: str = "inline", **more: object) -> str:
    """Run the study `cells` and return what it showed."""
    shown = io.StringIO()
    run_sweep(
        paths,
        params,
        "cells",
        executor_named(executor, params),
        stream=shown,
        train=train,
        **more,
    )
    return shown.getvalue()


def drive(root: str, journal: str) -> None:
    """Sweep slowly with Ray, showing progress on standard output: the driver that a test kills."""
    paths = Paths.at(root)
    params = load_params(paths)
    train = FakeTrain(delay_s=1.0, journal=Path(journal))
    run_sweep(paths, params, "cells", executor_named("ray", params), train=train)


def assert_same_tables(first: Path, second: Path) -> None:
    for table in SCHEMAS:
        frames = [read_table(table, folder) for folder in (first, second)]
        if table == "trials":
            frames = [frame.drop(list(HOST_COLUMNS)) for frame in frames]
        assert frames[0].equals(frames[1]), table
