"""The study of `benchmarks.sweep` as one writes it with Ray Tune and torch.nn: one trial per cell, rate and seed.

Of this project only the prepared arrays are used. What helps is done: workers are used again by the next trial, tensors
travel once, batches are indexed and not loaded, one thread a trial, denormal numbers flushed, nothing logged.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from typing import Any

import ray
import torch
from ray import tune
from torch import Tensor, nn

from benchmarks.plain import TORCH_NN

Split = tuple[Tensor, Tensor]
"""Inputs (N, T, D) and targets (N, 1)."""


def train(config: dict[str, Any], splits: dict[str, Split], settings: dict[str, Any]) -> None:
    """Train one seed; validate as often as the study does, test the weights of the best validation at the end."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(config["seed"])
    inputs, targets = splits["train"]
    recurrent = TORCH_NN[config["cell"]](inputs.shape[2], settings["hidden_size"], batch_first=True)
    network = nn.ModuleDict({"recurrent": recurrent, "readout": nn.Linear(settings["hidden_size"], 1)})
    optimiser = torch.optim.Adam(network.parameters(), lr=config["learning_rate"])

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        outputs, _ = network["recurrent"](x)
        return nn.functional.mse_loss(network["readout"](outputs[:, -1]), y)

    def evaluate(split: str) -> float:
        with torch.no_grad():
            return loss_of(*splits[split]).item()

    best, best_weights = evaluate("validation"), copy.deepcopy(network.state_dict())
    batch_size = settings["batch_size"]
    for step in range(settings["num_updates"]):
        position = step % (len(inputs) // batch_size)
        if position == 0:
            order = torch.randperm(len(inputs))
        batch = order[position * batch_size : (position + 1) * batch_size]
        optimiser.zero_grad()
        loss_of(inputs[batch], targets[batch]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings["clip_norm"])
        optimiser.step()
        if (step + 1) % settings["evaluate_every"] == 0 and (loss := evaluate("validation")) < best:
            best, best_weights = loss, copy.deepcopy(network.state_dict())
    network.load_state_dict(best_weights)
    tune.report({"validation_loss": best, "test_loss": evaluate("test")})


def sweep(splits: dict[str, Split], grid: dict[str, list[Any]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Train every point of the grid, as many at a time as there are cores, and return what each reported.

    Raises:
        RuntimeError: If a trial failed.
    """
    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train, splits=splits, settings=settings), {"cpu": 1}),
            param_space={name: tune.grid_search(values) for name, values in grid.items()},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        if results.errors:
            raise RuntimeError(f"{len(results.errors)} trials failed, the first of them: {results.errors[0]}")
        rows = [dict(results[index].metrics or {}) for index in range(len(results))]
    ray.shutdown()
    return rows
