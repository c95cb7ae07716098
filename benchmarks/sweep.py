"""`make bench-sweep`: a small study as stages/sweep.py runs it, beside plain Ray Tune with torch.nn, a trial per seed.

Both train the same cells, learning rates, seeds and updates on the same prepared data, with Adam, clipping by global
norm and the same validations, one thread a trial and as many trials at a time as there are cores. Only this project
measures gradients, checks them and writes tables; what that takes is in its time. Each sweep is a process of its own;
they alternate. Start-up is everything before `Tuner.fit`: the interpreter, imports, the plan, `ray.init`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import pages, record
from benchmarks.timing import environment
from pipeline.config import Paths, expand, load_study, read_yaml
from pipeline.data import load_dataset
from pipeline.results import read_table

ROOT = Path(__file__).parents[1]
STUDY, SCALE = "speed", "laptop"
CELLS, LEARNING_RATES, LENGTH = ("elman", "gru", "lstm"), (0.003, 0.01), 100


def main(arguments: list[str] | None = None) -> None:
    """Run both sweeps by turns, print what they made of a minute, and keep it in benchmarks/latest.json."""
    parser = argparse.ArgumentParser(description="Replica-updates per minute of a small study, here and with torch.nn.")
    parser.add_argument("--rounds", type=int, default=2, help="sweeps of each kind")
    parser.add_argument("--updates", type=int, default=1000, help="optimiser updates of every seed")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workspace", type=Path, default=ROOT / ".bench", help="made anew")
    asked = parser.parse_args(arguments)
    workspace = lay_out(asked.workspace, asked.updates, asked.seeds)
    runs = [run(who, workspace, asked) for _ in range(asked.rounds) for who in ("ours", "plain")]
    measured = {
        "environment": environment(),
        "study": {"cells": CELLS, "learning_rates": LEARNING_RATES, "T": LENGTH, **plain_settings(workspace)},
        "num_seeds": asked.seeds,
        "num_rounds": asked.rounds,
        **summarise(runs),
    }
    print(describe(measured))
    record.write("sweep", measured)
    pages.main()


def lay_out(folder: Path, num_updates: int, num_seeds: int) -> Paths:
    """Write a workspace with the study, its data, and the same in the form that the plain sweep reads."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "configs", folder / "configs")
    workspace = Paths.at(folder)
    study = {
        "question": "How many updates of all seeds does a minute hold?",
        "grids": {
            "adding": {
                "set": {"dataset.length": LENGTH, "training.max_steps": num_updates},
                "axes": {"model.cell": [*CELLS], "optimiser.learning_rate": [*LEARNING_RATES]},
            }
        },
    }
    params = read_yaml(ROOT / "params.yaml") | {
        "scale": SCALE,
        "seeds": {"start": 0, "count": num_seeds},
        "datasets": ["adding"],
        "studies": [STUDY],
        "trial_store": None,
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
    }
    for path, content in ((workspace.study_config(STUDY), study), (workspace.params, params)):
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    prepare = [sys.executable, str(ROOT / "stages" / "prepare.py"), "adding", "--project", str(folder)]
    subprocess.run(prepare, check=True, env=_environment())  # noqa: S603
    dataset = load_dataset(workspace.dataset("adding"), LENGTH)
    splits = {name: (torch.tensor(s.inputs), torch.tensor(s.targets)) for name, s in dataset.splits.items()}
    torch.save(splits, folder / "splits.pt")
    grid = {"cell": CELLS, "learning_rate": LEARNING_RATES, "seed": range(num_seeds)}
    plain = {"grid": {name: [*values] for name, values in grid.items()}, "settings": plain_settings(workspace)}
    (folder / "plain.json").write_text(json.dumps(plain), encoding="utf-8")
    return workspace


def plain_settings(workspace: Paths) -> dict[str, Any]:
    """Return what the plain sweep needs to know of the settings of the study, which all have it in common."""
    spec = expand(load_study(workspace, STUDY), SCALE, STUDY)[0].spec
    training = spec["training"]
    return {
        "hidden_size": spec["model"]["hidden_size"],
        "clip_norm": spec["clipping"]["threshold"],
        "batch_size": training["batch_size"],
        "num_updates": training["max_steps"],
        "evaluate_every": training["evaluate_every"],
    }


def run(who: str, workspace: Paths, asked: argparse.Namespace) -> dict[str, Any]:
    """Run one sweep from nothing and return its seconds, its updates and what it learned."""
    for folder in (workspace.default_store, workspace.results(STUDY)):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.one_sweep", who, str(workspace.root)]
    started = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment())  # noqa: S603
    total_s = time.monotonic() - started
    said = json.loads(done.stdout.splitlines()[-1])
    num_replicas = len(CELLS) * len(LEARNING_RATES) * asked.seeds
    found: dict[str, Any] = {"num_replicas": num_replicas, "num_updates": num_replicas * asked.updates}
    losses = [row["validation_loss"] for row in said["rows"]]
    if who == "ours":
        trials = read_table("trials", workspace.results(STUDY))
        losses = trials["best_validation_loss"].to_list()
        found["num_updates"] = trials["num_steps"].sum()
        found["diagnostics_time_share"] = trials["diagnostics_time_share"].mean()
        found["kernel"] = trials["kernel"].unique().to_list()
    (init_started, init_ended), (fit_started, _) = said["times"]["init"], said["times"]["fit"]
    row = {
        "who": who,
        "total_s": total_s,
        "startup_s": fit_started - started,
        "ray_init_s": init_ended - init_started,
        **found,
        "median_validation_loss": statistics.median(losses),
    }
    print(f"{who:5} {total_s:6.1f} s, {row['startup_s']:.1f} s of them start-up (ray.init {row['ray_init_s']:.1f} s)")
    return row


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the runs, and for each kind the medians of what a minute holds, with start-up and without."""
    summary: dict[str, Any] = {"runs": runs}
    for who in ("ours", "plain"):
        mine = [each for each in runs if each["who"] == who]
        working = [each["total_s"] - each["startup_s"] for each in mine]
        summary[who] = {
            "updates_per_minute": statistics.median(60 * each["num_updates"] / each["total_s"] for each in mine),
            "updates_per_minute_after_startup": statistics.median(
                60 * each["num_updates"] / seconds for each, seconds in zip(mine, working, strict=True)
            ),
            "replicas_per_minute": statistics.median(60 * each["num_replicas"] / each["total_s"] for each in mine),
            "total_s": statistics.median(each["total_s"] for each in mine),
            "startup_s": statistics.median(each["startup_s"] for each in mine),
            "ray_init_s": statistics.median(each["ray_init_s"] for each in mine),
        }
    for name in ("updates_per_minute", "updates_per_minute_after_startup"):
        summary[f"ratio_of_{name}"] = summary["ours"][name] / summary["plain"][name]
    return summary


def describe(measured: dict[str, Any]) -> str:
    """Return the comparison as lines of text."""
    lines = []
    for who, name in (
        ("ours", "stages/sweep.py, a trial of all seeds"),
        ("plain", "Ray Tune and torch.nn, a trial per seed"),
    ):
        one = measured[who]
        lines.append(
            f"{name}: {one['replicas_per_minute']:.1f} trials x seeds a minute, "
            f"{one['updates_per_minute']:.0f} replica-updates a minute with start-up ({one['startup_s']:.1f} s, "
            f"of them ray.init {one['ray_init_s']:.1f} s), {one['updates_per_minute_after_startup']:.0f} without"
        )
    with_it, without = (measured[f"ratio_of_updates_per_minute{end}"] for end in ("", "_after_startup"))
    return "\n".join([*lines, f"ratio of replica-updates a minute: {with_it:.2f} with start-up, {without:.2f} without"])


def _environment() -> dict[str, str]:
    """Return the environment of a sweep: this tree's code, and Ray on this machine."""
    others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return others | {"PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    main()
