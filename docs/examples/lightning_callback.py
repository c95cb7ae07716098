"""A Lightning callback that clips, keeps the ledger and traces: `Trainer(callbacks=[GradientDynamics(...)])`.

Leave the trainer's own `gradient_clip_val` unset.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from pipeline.core.clipping import ClippingRule
from pipeline.trace import Recorder


class GradientDynamics(Callback):
    """Records a training in a folder."""

    def __init__(self, folder: str, rule: ClippingRule, every: int = 100) -> None:
        self.folder, self.rule, self.every = folder, rule, every

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.recorder = Recorder(pl_module, every=self.every)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.recorder.clip_(pl_module.parameters(), self.rule)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > self.recorder.num_steps:  # not where gradients are still accumulated
            self.recorder.step(outputs["loss"])

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if (
            hasattr(self, "recorder") and "val_loss" in trainer.callback_metrics
        ):  # not in the sanity check before training
            self.recorder.log("loss", trainer.callback_metrics["val_loss"])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.recorder.write(self.folder)
