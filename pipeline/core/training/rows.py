"""The rows of a trial: plain columns, so that the numerical core needs no data-frame library.

A `MemorySink` takes tables; `long_columns` makes the rows of one from arrays with named axes; a `RowWriter` writes
those of a trial's replicas and updates. S is updates, R replicas.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Column = Sequence[Any] | np.ndarray[Any, Any] | str | int | float
"""A column of one write: an array, a list, or a scalar that stands for all its rows."""


class MemorySink:
    """What `run_trial` writes to: keeps rows in memory until the trial is done."""

    def __init__(self) -> None:
        self._chunks: dict[str, list[dict[str, np.ndarray[Any, Any]]]] = {}

    def write(self, table: str, columns: Mapping[str, Column]) -> None:
        """Append rows to `table`; arrays have one length, scalars are repeated to it.

        Raises:
            ValueError: If arrays differ in length, or columns differ from those of earlier writes.
        """
        arrays = {name: np.asarray(column) for name, column in columns.items()}
        lengths = {array.shape[0] for array in arrays.values() if array.ndim}
        if len(lengths) > 1:
            raise ValueError(f"table {table!r}: columns of lengths {sorted(lengths)} in one write")
        chunks = self._chunks.setdefault(table, [])
        if chunks and chunks[0].keys() != arrays.keys():
            raise ValueError(f"table {table!r}: columns {sorted(arrays)} after {sorted(chunks[0])}")
        num_rows = lengths.pop() if lengths else 1
        chunks.append({name: np.broadcast_to(array, (num_rows,)) for name, array in arrays.items()})

    def tables(self) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        """Return every table as whole columns."""
        return {
            table: {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
            for table, chunks in self._chunks.items()
        }

    def to_bytes(self) -> bytes:
        """Return everything written so far as an .npz archive (no pickled objects in it)."""
        buffer = io.BytesIO()
        columns = {
            f"{table}/{name}": column for table, whole in self.tables().items() for name, column in whole.items()
        }
        np.savez(buffer, **columns)  # type: ignore[arg-type]
        return buffer.getvalue()

    def restore(self, data: bytes) -> None:
        """Forget everything and take up what `to_bytes` returned."""
        self._chunks = {}
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for key in archive.files:
                table, name = key.split("/", 1)
                self._chunks.setdefault(table, [{}])[0][name] = archive[key]


def long_columns(
    values: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]],
    **constants: str | int | float,
) -> dict[str, Column]:
    """Return a row for each entry of the arrays: where it stands on each axis, the constants, and its values.

    Args:
        values: Arrays of one shape by column.
        axes: For each axis of the arrays, in order, its column and what stands along it.
        constants: Columns with one value in all rows.
    """
    grids = np.meshgrid(*axes.values(), indexing="ij")
    places = {name: grid.reshape(-1) for name, grid in zip(axes, grids, strict=True)}
    return constants | places | {name: array.detach().cpu().numpy().reshape(-1) for name, array in values.items()}


FACTS: dict[str, str | int] = {
    "split": "",
    "mode": "",
    "group": "",
    "tested_length": -1,
    "part": "",
    "layer": -1,
    "direction": "",
    "gate": "",
}
"""What a row of `curves` may say about its value besides its metric, and what stands there where it says nothing.

`split` is of the data (train, validation, test); `mode` of a decoder (teacher_forced, free_running; nothing on the
loss and error by which a trial is judged); `group` a kind of token; `tested_length` a length that was not trained on;
`part`, `layer`, `direction` and `gate` which block of recurrent weights. Result tables have null where nothing stands.
"""


class RowWriter:
    """Writes the rows of some of a trial's replicas, under their seeds, and those of its updates in portions.

    Args:
        seeds: One per replica.
        sink: Where the rows go.
    """

    def __init__(self, seeds: Sequence[int], sink: MemorySink) -> None:
        self.seeds, self.sink = np.array(seeds), sink
        self._metrics: tuple[str, ...] = ()
        self._updates: list[Tensor] = []

    def write(
        self,
        table: str,
        values: Mapping[str, Tensor],
        which: list[int],
        axes: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]],
        **constants: str | int | float,
    ) -> None:
        """Write `long_columns` of arrays whose first axis is the replicas in `which`, the others `axes`."""
        self.sink.write(table, long_columns(values, {"seed": self.seeds[which], **axes}, **constants))

    def curve(self, step: int, metric: str, values_Q: Tensor, which: list[int], **facts: str | int) -> None:
        """Write a metric at a step, of the replicas in `which`, with what there is to say of it among `FACTS`."""
        values = {"value": values_Q.double()}
        self.write("curves", values, which, {}, step=step, metric=metric, **FACTS | facts)

    def note_update(self, active_R: Tensor, metrics: Mapping[str, Tensor]) -> None:
        """Keep the loss and the clip ledger of one update on the device, until `write_updates`.

        Args:
            active_R: Which replicas it was made for.
            metrics: The loss before it and whatever else there is to record, (R,) each; the same ones at every step.
        """
        self._metrics = tuple(metrics)
        self._updates.append(torch.stack([column.double() for column in (active_R, *metrics.values())]))

    def write_updates(self, step: int) -> None:
        """Write the rows of every update since the last time, up to `step`; not of replicas that were frozen."""
        if not self._updates:
            return
        active_SR, *columns_SR = torch.stack(self._updates).cpu().unbind(1)
        first = step - len(self._updates) + 1
        updates, replicas = (active_SR > 0).nonzero(as_tuple=True)
        for metric, values_SR in zip(self._metrics, columns_SR, strict=True):
            rows: dict[str, Column] = {
                "seed": self.seeds[replicas.numpy()],
                "step": first + updates.numpy(),
                "metric": metric,
                **FACTS,
                "split": "train" if metric == "loss" else "",
                "value": values_SR[updates, replicas].numpy(),
            }
            self.sink.write("curves", rows)
        self._updates = []
