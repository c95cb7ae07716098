"""The clip ledger: what every update's loss, gradient and clipping were, per replica, buffered on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.training.clipping import Ledger
from pipeline.training.sink import Column, Sink


class LedgerBuffer:
    """Collects a row an update and replica, and writes them in portions rather than one by one.

    Args:
        seeds: One a replica.
        sink: Where the rows go.
    """

    def __init__(self, seeds: tuple[int, ...], sink: Sink) -> None:
        self._seeds, self._sink = np.array(seeds), sink
        self._rows: list[Tensor] = []

    def add(self, active_R: Tensor, losses_R: Tensor, ledger: Ledger, omega_R: Tensor | None = None) -> None:
        """Take note of one update; `active_R` says which replicas it was made for, `omega_R` what regularised it."""
        columns = [active_R.double(), losses_R.double(), *ledger]
        self._rows.append(torch.stack(columns if omega_R is None else [*columns, omega_R.double()]))

    def write(self, step: int) -> None:
        """Write the rows of every update since the last time, up to `step`; not of replicas that were frozen."""
        if not self._rows:
            return
        active_SR, *columns_SR = torch.stack(self._rows).cpu().unbind(1)
        first = step - len(self._rows) + 1
        updates, replicas = (active_SR > 0).nonzero(as_tuple=True)
        metrics = ("training_loss", *Ledger._fields, "omega")
        for metric, values_SR in zip(metrics, columns_SR, strict=False):  # omega where there is a regulariser
            rows: dict[str, Column] = {
                "seed": self._seeds[replicas.numpy()],
                "step": first + updates.numpy(),
                "metric": metric,
                "value": values_SR[updates, replicas].numpy(),
            }
            self._sink.write("curves", rows)
        self._rows = []
