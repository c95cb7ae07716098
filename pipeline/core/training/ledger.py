"""The clip ledger: what every update's loss, gradient and clipping were, per replica, buffered on the device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.core.training.clipping import Ledger
from pipeline.core.training.rows import FACTS
from pipeline.core.training.sink import Column, Sink


class LedgerBuffer:
    """Collects a row an update and replica, and writes them in portions rather than one by one.

    Args:
        seeds: One a replica.
        sink: Where the rows go.
    """

    def __init__(self, seeds: tuple[int, ...], sink: Sink) -> None:
        self._seeds, self._sink = np.array(seeds), sink
        self._rows: list[Tensor] = []
        self._further: tuple[str, ...] = ()

    def add(self, active_R: Tensor, losses_R: Tensor, ledger: Ledger, further: Mapping[str, Tensor]) -> None:
        """Take note of one update.

        Args:
            active_R: Which replicas it was made for.
            losses_R: Before it.
            ledger: What clipping did.
            further: Other metrics, (R,) each; the same ones at every step.
        """
        self._further = tuple(further)
        columns = [active_R, losses_R, *ledger, *further.values()]
        self._rows.append(torch.stack([column.double() for column in columns]))

    def write(self, step: int) -> None:
        """Write the rows of every update since the last time, up to `step`; not of replicas that were frozen."""
        if not self._rows:
            return
        active_SR, *columns_SR = torch.stack(self._rows).cpu().unbind(1)
        first = step - len(self._rows) + 1
        updates, replicas = (active_SR > 0).nonzero(as_tuple=True)
        metrics = ("loss", *Ledger._fields, *self._further)
        for metric, values_SR in zip(metrics, columns_SR, strict=True):
            rows: dict[str, Column] = {
                "seed": self._seeds[replicas.numpy()],
                "step": first + updates.numpy(),
                "metric": metric,
                **FACTS,
                "split": "train" if metric == "loss" else "",
                "value": values_SR[updates, replicas].numpy(),
            }
            self._sink.write("curves", rows)
        self._rows = []
