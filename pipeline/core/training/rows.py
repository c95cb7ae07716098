"""From arrays with named axes to the rows of a long table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.core.training.sink import Column, Sink


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


class CurveWriter:
    """Writes rows of `curves`.

    Args:
        seeds: One a replica.
        sink: Where they go.
    """

    def __init__(self, seeds: Sequence[int], sink: Sink) -> None:
        self.seeds, self.sink = np.array(seeds), sink

    def write(self, step: int, metric: str, values_R: Tensor, which: list[int], **facts: str | int) -> None:
        """Write one metric of the replicas in `which` at a step, with what there is to say of it among `FACTS`."""
        constants = FACTS | facts
        values = {"value": values_R[which].double()}
        axes = {"seed": self.seeds[which]}
        self.sink.write("curves", long_columns(values, axes, step=step, metric=metric, **constants))
