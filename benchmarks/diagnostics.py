"""What the diagnostics cost at the schedule that the laptop scale uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import Paths, Sizes, build, expand, load_scale, load_study
from pipeline.core.training import MemorySink, TrialSpec, run_trial
from pipeline.data import load_dataset, prepare_dataset

ROOT = Path(__file__).parents[1]


def diagnostics_overhead(num_steps: int | None = None) -> list[dict[str, Any]]:
    """Return the share of step time spent in diagnostics, for each cell at the longest length of study `cells`."""
    import tempfile

    paths = Paths.at(ROOT)
    settings = [s for s in expand(load_study(paths, "cells"), "laptop", "cells") if s.grid == "adding"]
    longest = max(setting.axes["dataset.length"] for setting in settings)
    seeds = list(range(load_scale(paths, "laptop").num_seeds))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "adding"
        prepare_dataset("adding", paths.dataset_config("adding"), [longest], Sizes(2000, 100, 100), target)
        dataset = load_dataset(target, longest)
        rows = {}
        for setting in settings:
            cell = setting.axes["model.cell"]
            if setting.axes["dataset.length"] != longest or cell in rows:
                continue
            spec = build(TrialSpec, {**setting.spec, "seeds": seeds}, setting.where)
            row = run_trial(spec, dataset, MemorySink()).rows[0]
            rows[cell] = {"label": f"{cell}, T={longest}, {row['num_steps']} steps", **row}
    keys = ("label", "diagnostics_time_share", "step_time_s", "gradient_check_error")
    return [{key: row[key] for key in keys} for row in rows.values()]
