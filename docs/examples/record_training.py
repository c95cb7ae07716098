"""A training loop of one's own, recorded in the pipeline's tables, and a figure of the pipeline drawn from them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from pipeline.core.clipping import GlobalNorm, Value
from pipeline.figures.catalogue import FIGURES
from pipeline.figures.style import to_png
from pipeline.quantities import grids_of
from pipeline.results import SCHEMAS, read_table
from pipeline.trace import Recorder, write_recorded


def train(name: str, rule: GlobalNorm | Value, seed: int, num_steps: int) -> Recorder:
    """Return the record of a training: remember the first number of a sequence."""
    torch.manual_seed(seed)
    gru, readout = nn.GRU(1, 16), nn.Linear(16, 1)
    model = nn.ModuleDict({"gru": gru, "readout": readout})
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    recorder = Recorder(model, every=max(1, num_steps // 10), name=name, seed=seed)
    for _ in range(num_steps):
        x = torch.randn(20, 32, 1)
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(readout(gru(x)[0][-1]), x[0])
        loss.backward()
        recorder.clip_(model.parameters(), rule)  # instead of torch.nn.utils.clip_grad_norm_
        optimiser.step()
        recorder.step(loss)
    return recorder


def main(folder: str = "results/rules", num_seeds: int = 3, num_steps: int = 200) -> Path:
    """Write the tables of two clipping rules with some seeds each, and a figure beside them; return its path."""
    rules = {"by norm": GlobalNorm(threshold=0.1), "by value": Value(threshold=0.01)}
    runs = [train(name, rule, seed, num_steps) for name, rule in rules.items() for seed in range(num_seeds)]
    where = write_recorded(runs, folder)
    (grid,) = grids_of(where.name, {table: read_table(table, where) for table in SCHEMAS}, over=())
    path = where / "gradient_by_lag.png"
    path.write_bytes(to_png(FIGURES["gradient_by_lag"].draw(grid)))
    return path


if __name__ == "__main__":
    print(main(*sys.argv[1:2]))
