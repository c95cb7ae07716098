"""Ten thousand settings: what planning them takes, and a sweep of one-step trainings; a part of `make bench-sweep`.

Each program is a process of its own, as a user runs it. While the sweep trains, the memory of its driver is looked at,
and how many trials are done: the slope of a line through both is what a thousand settings more cost. Ray's release
test of 10 000 trials on 16 CPUs took 715 s where its trials, of one second each, take 625 s
(docs.ray.io, "Scalability and overhead benchmarks for Ray Tune"): 0.144 CPU-seconds a trial.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from benchmarks import pages, record
from benchmarks.timing import environment
from pipeline.config import Paths, read_yaml

ROOT = Path(__file__).parents[1]
STUDY = "many"
PACKED = 32
NUM_SEEDS = 2
RAY = {"num_trials": 10_000, "num_cpus": 16, "total_s": 715.0, "floor_s": 625.0}
LOOK_S = 2.0
SPACE = {
    "optimiser.learning_rate": {"name": "log_uniform", "low": 1.0e-4, "high": 1.0e-1},
    "clipping.threshold": {"name": "log_uniform", "low": 0.01, "high": 10.0},
}
"""In what the settings of the study differ."""


def main(arguments: list[str] | None = None) -> None:
    """Plan and sweep, print what it took, and keep it in benchmarks/latest.json."""
    parser = argparse.ArgumentParser(description="Seconds, memory and files of a study of many settings.")
    parser.add_argument("--settings", type=int, default=10_000, help="of the study")
    parser.add_argument("--unpacked", type=int, default=500, help="so many are trained without packing, too")
    parser.add_argument("--workspace", type=Path, default=ROOT / ".bench", help="made anew")
    asked = parser.parse_args(arguments)
    measured = {
        "environment": environment(),
        "num_settings": asked.settings,
        "num_seeds": NUM_SEEDS,
        "num_cores": os.cpu_count(),
        "ray": RAY,
        **measure(asked.workspace, asked.settings),
        "unpacked": swept(lay_out(asked.workspace, asked.unpacked, packed=1), asked.unpacked),
    }
    print(pages.many({"many": measured}))
    record.write("many", measured)
    pages.main()


def measure(folder: Path, num_settings: int) -> dict[str, Any]:
    """Return what planning takes with nothing stored and with everything, and what the sweep between them takes."""
    workspace = lay_out(folder, num_settings, packed=PACKED)
    before = planned(workspace)
    packed = swept(workspace, num_settings)
    after = planned(workspace)
    again = swept(workspace, num_settings)
    shutil.rmtree(workspace.default_store / ".catalogue")
    return {
        "plan_s": before,
        "packed": packed,
        "plan_stored_s": after,
        "nothing_to_do_s": again["total_s"],
        "plan_without_catalogue_s": planned(workspace),
    }


def with_settings(
    folder: Path, num_settings: int, *, grid: Mapping[str, Any], params: Mapping[str, Any], **study: Any
) -> Paths:
    """Write a workspace, made anew, with one study of one grid that searches so many settings of `SPACE`.

    Args:
        folder: Of the workspace.
        num_settings: How many.
        grid: What the grid has besides.
        params: Of params.yaml, what is not as in this project.
        **study: What the study has besides.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "configs", folder / "configs")
    workspace = Paths.at(folder)
    search = {"name": "random", "number": num_settings, "seed": 0, "space": SPACE}
    asked = {"question": "What do many settings cost?", "grids": {"adding": {**grid, "search": search}}, **study}
    project = read_yaml(ROOT / "params.yaml") | {
        "scale": "laptop",
        "datasets": ["adding"],
        "studies": [STUDY],
        **params,
    }
    for path, content in ((workspace.study_config(STUDY), asked), (workspace.params, project)):
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return workspace


def lay_out(folder: Path, num_settings: int, packed: int) -> Paths:
    """Write a workspace with a study of so many one-step trainings that differ in learning rate and threshold."""
    changes = {"dataset.length": 10, "training.max_steps": 1, "model.hidden_size": 4, "diagnostics.num_traces": 2}
    workspace = with_settings(
        folder,
        num_settings,
        grid={"set": changes},
        params={
            "seeds": {"start": 0, "count": NUM_SEEDS},
            "trial_store": None,
            "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "settings_per_program": packed},
        },
    )
    command = [sys.executable, str(ROOT / "stages" / "prepare.py"), "adding", "--project", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_environment())  # noqa: S603
    return workspace


def planned(workspace: Paths) -> float:
    """Return the seconds of a dry run, the start of Python included."""
    started = time.monotonic()
    _run(workspace, "--dry-run").wait()
    return time.monotonic() - started


def swept(workspace: Paths, num_settings: int) -> dict[str, Any]:
    """Return seconds, the driver's memory, and what the store holds at the end.

    Raises:
        SystemExit: If the sweep failed.
    """
    started, looks = time.monotonic(), list[tuple[int, float]]()
    process = _run(workspace, "--executor", "ray")
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(LOOK_S)
        num_done = sum(1 for _ in workspace.default_store.glob("*.zip"))
        if process.poll() is None:
            looks.append((num_done, driver.memory_info().rss / 2**20))
    if process.returncode:
        raise SystemExit(f"the sweep failed with status {process.returncode}")
    total_s = time.monotonic() - started
    files = [path for path in workspace.default_store.rglob("*") if path.is_file()]
    training = [look for look in looks if 0 < look[0] < num_settings]
    done, memory = zip(*training, strict=True) if len({number for number, _ in training}) > 2 else ((0, 1), (0.0, 0.0))
    return {
        "num_settings": num_settings,
        "total_s": total_s,
        "cpu_s_per_setting": total_s * (os.cpu_count() or 1) / num_settings,
        "driver_mib": max((memory for _, memory in looks), default=0.0),
        "driver_mib_per_1000": 1000 * float(np.polyfit(done, memory, 1)[0]),
        "num_files": len(files),
        "num_bytes": sum(path.stat().st_size for path in files),
    }


def _run(workspace: Paths, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "stages" / "sweep.py"), STUDY, *arguments]
    return subprocess.Popen(command, cwd=workspace.root, stdout=subprocess.DEVNULL, env=_environment())  # noqa: S603


def _environment() -> dict[str, str]:
    """Return the environment of a program: this tree's code, and Ray on this machine."""
    others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return others | {"PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    main()
