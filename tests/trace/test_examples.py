"""The examples of docs/examples that trace and record run as they stand; other packages' trainers are stood in for."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from docs.examples import record_training, speaker_encoder, trace_model, truncated_loop
from pipeline.core.clipping import GlobalNorm
from pipeline.results import read_table
from tests.trace.test_recorder import Net, data, net


def test_a_translator_is_traced(capsys: pytest.CaptureFixture[str]) -> None:
    table = trace_model.main().table
    assert set(table["module"]) == {"encoder", "decoder"}
    assert table.filter(module="encoder", direction="forward", state="h")["lag"].max() == 11
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_training_is_recorded_and_drawn(tmp_path: Path) -> None:
    path = record_training.main(str(tmp_path / "rules"), num_seeds=2, num_steps=10)
    assert path.stat().st_size > 10_000
    assert set(read_table("settings", path.parent)["label"]) == {"by norm", "by value"}


def test_a_loop_is_truncated_and_its_bias_measured() -> None:
    (error,) = truncated_loop.main(num_timesteps=200)
    assert 0 < error < 1


def test_somebody_elses_model_is_traced() -> None:
    reason = "Resemblyzer is not installed: the example with a model that nobody here wrote was not run"
    resemblyzer = pytest.importorskip("resemblyzer", reason=reason, exc_type=ImportError)
    traced = speaker_encoder.main(resemblyzer.VoiceEncoder("cpu", verbose=False))
    assert traced.table.group_by("layer", "state").len()["len"].to_list() == [speaker_encoder.NUM_FRAMES] * 6


def test_its_voices_are_spectrograms() -> None:
    voices = speaker_encoder.voices()
    assert voices.shape == (8, 160, 40)
    assert voices.isfinite().all()
    assert (voices > 0).all()


class Training:
    """What trainers do, in the order in which Lightning and transformers call their callbacks."""

    def __init__(self, model: Net) -> None:
        self.model, self.global_step = model, 0
        self.callback_metrics: dict[str, float] = {}
        self.optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

    def backward(self, step: int) -> torch.Tensor:
        x, y = data(step)
        loss = nn.functional.mse_loss(self.model(x), y)
        loss.backward()
        return loss

    def update(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.global_step += 1


def example(name: str, package: str, base: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an example's module, imported where its package has nothing but the class that a callback derives from."""
    module = types.ModuleType(package)
    setattr(module, base, type(base, (), {}))
    monkeypatch.setitem(sys.modules, package, module)
    if "." in package:
        monkeypatch.setitem(sys.modules, package.split(".")[0], types.ModuleType(package.split(".")[0]))
    monkeypatch.delitem(sys.modules, f"docs.examples.{name}", raising=False)
    return importlib.import_module(f"docs.examples.{name}")


def test_lightning_records_by_a_callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = example("lightning_callback", "lightning.pytorch", "Callback", monkeypatch)
    callback = callbacks.GradientDynamics(str(tmp_path / "run"), GlobalNorm(threshold=0.01), every=2)
    model = net()
    trainer = Training(model)
    callback.on_validation_end(trainer, model)  # the sanity check
    callback.on_train_start(trainer, model)
    for batch in range(8):
        loss = trainer.backward(batch)
        if batch % 2:  # gradients of two batches are accumulated
            callback.on_before_optimizer_step(trainer, model, trainer.optimiser)
            norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
            assert norm <= 0.01 * (1 + 1e-5)
            trainer.update()
        callback.on_train_batch_end(trainer, model, {"loss": loss}, None, batch)
    trainer.callback_metrics["val_loss"] = 0.5
    callback.on_validation_end(trainer, model)
    callback.on_train_end(trainer, model)
    row = read_table("trials", tmp_path / "run").row(0, named=True)
    assert (row["num_steps"], row["clipped_share"], row["final_validation_loss"]) == (4, 1.0, 0.5)
    assert read_table("traces", tmp_path / "run")["step"].unique().to_list() == [0, 2]


def test_transformers_records_by_a_callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = example("trainer_callback", "transformers", "TrainerCallback", monkeypatch)
    callback = callbacks.GradientDynamics(str(tmp_path / "run"), GlobalNorm(threshold=0.01))
    model = net()
    trainer = Training(model)
    callback.on_train_begin(None, None, None, model=model)
    for step in range(3):
        loss = trainer.backward(step)
        callback.on_pre_optimizer_step(None, None, None, model=model, optimizer=trainer.optimiser)
        trainer.update()
        callback.on_step_end(None, None, None, model=model)
        callback.on_log(None, None, None, logs={"loss": loss.item(), "epoch": 0.1}, model=model)
    callback.on_log(None, None, None, logs={"eval_loss": 0.7}, model=model)
    callback.on_train_end(None, None, None, model=model)
    row = read_table("trials", tmp_path / "run").row(0, named=True)
    assert (row["num_steps"], row["final_validation_loss"]) == (3, pytest.approx(0.7))
    assert read_table("traces", tmp_path / "run").is_empty()
