"""Train one setting with a few seeds, from Python, and print how its gradient falls with lag.

    python examples/train_one_trial.py --cell lstm --length 50 --steps 500

No study, no Ray and no tables on disk: a trial is a plain function of a spec and a dataset.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from pipeline.config import Paths, Sizes, build, read_yaml
from pipeline.core.training import MemorySink, TrialSpec, run_trial
from pipeline.data import load_dataset, prepare_dataset

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    """Train the adding problem and print the mean of log10 ‖∂L/∂h_{T-k}‖ over seeds, before and after training."""
    parser = argparse.ArgumentParser(description="Train one setting and print its gradient by lag.")
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--length", type=int, default=50, help="timesteps of a sequence")
    parser.add_argument("--steps", type=int, default=500, help="optimiser updates")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args(arguments)

    # The setting that every study begins with, and what differs here.
    paths = Paths.at(ROOT)
    raw = read_yaml(paths.base)
    raw["dataset"]["length"] = asked.length
    raw["model"]["cell"] = asked.cell
    raw["training"] |= {"max_steps": asked.steps, "evaluate_every": max(1, asked.steps // 5)}
    raw["seeds"] = list(range(asked.seeds))
    spec = build(TrialSpec, raw, "examples/train_one_trial.py")

    # The dataset, made once into a folder of its own; then every seed of the setting in one batched program.
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "adding"
        prepare_dataset("adding", paths.dataset_config("adding"), [asked.length], Sizes(1000, 200, 200), data)
        sink = MemorySink()
        result = run_trial(spec, load_dataset(data, asked.length), sink)
    print(f"{asked.cell} on adding, T = {asked.length}: {result.status}")

    # One row per (seed, step, layer, direction, timestep, quantity); a lag counts back from the last timestep.
    traces = sink.tables()["traces"]
    of_state = (traces["part"] == "recurrent") & (traces["quantity"] == "h")
    last_step = traces["step"][of_state].max()
    print("lag  log10 norm at step 0  after training")
    for lag in np.unique(np.linspace(0, asked.length - 1, 6).astype(int)):
        at_lag = of_state & (traces["timestep"] == asked.length - lag)
        before, after = (traces["log10_norm"][at_lag & (traces["step"] == step)].mean() for step in (0, last_step))
        print(f"{lag:3d}  {before:20.2f}  {after:14.2f}")


if __name__ == "__main__":
    main()
