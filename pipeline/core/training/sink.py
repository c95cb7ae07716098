"""Where a trial's rows go: plain columns, so that the numerical core needs no data-frame library."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Column = Sequence[Any] | np.ndarray[Any, Any] | str | int | float
"""A column of one write: an array, a list, or a scalar that stands for all its rows."""


class Sink(Protocol):
    """What `run_trial` writes to."""

    def write(self, table: str, columns: Mapping[str, Column]) -> None:
        """Append rows to `table`; arrays have one length, scalars are repeated to it."""

    def to_bytes(self) -> bytes:
        """Return everything written so far, for a checkpoint."""

    def restore(self, data: bytes) -> None:
        """Forget everything and take up what `to_bytes` returned."""


class MemorySink:
    """Keeps rows in memory until the trial is done."""

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
