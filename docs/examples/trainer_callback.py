"""The same for the trainer of transformers: `Trainer(callbacks=[GradientDynamics(...)])`, with `max_grad_norm=0`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from pipeline.core.clipping import ClippingRule
from pipeline.trace import Recorder


class GradientDynamics(TrainerCallback):
    """Records a training in a folder; `every=None` keeps the ledger of a model without recurrences."""

    def __init__(self, folder: str, rule: ClippingRule, every: int | None = None) -> None:
        self.folder, self.rule, self.every = folder, rule, every

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **others: Any) -> None:
        self.recorder = Recorder(model, every=self.every)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **others: Any) -> None:
        self.recorder.clip_(model.parameters(), self.rule)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.recorder.step()

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **others: Any) -> None:
        for name, split in {"loss": "train", "eval_loss": "validation"}.items():
            if name in logs:
                self.recorder.log("loss", logs[name], split)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.recorder.write(self.folder)
