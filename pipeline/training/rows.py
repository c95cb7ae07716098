"""From arrays with named axes to the rows of a long table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.training.sink import Column, Sink


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
    shape = tuple(len(along) for along in axes.values())
    columns: dict[str, Column] = dict(constants)
    for axis, (name, along) in enumerate(axes.items()):
        ones = [1] * len(shape)
        ones[axis] = -1
        columns[name] = np.broadcast_to(np.asarray(along).reshape(ones), shape).reshape(-1)
    for name, array in values.items():
        columns[name] = array.detach().cpu().numpy().reshape(shape).reshape(-1)
    return columns


class CurveWriter:
    """Writes rows of `curves`.

    Args:
        seeds: One a replica.
        sink: Where they go.
    """

    def __init__(self, seeds: Sequence[int], sink: Sink) -> None:
        self.seeds, self.sink = np.array(seeds), sink

    def write(self, step: int, metric: str, values_R: Tensor, which: list[int]) -> None:
        """Write one metric of the replicas in `which` at a step."""
        self.sink.write(
            "curves",
            long_columns({"value": values_R[which].double()}, {"seed": self.seeds[which]}, step=step, metric=metric),
        )
