"""What a network is, as a study names it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cells import CELLS
from pipeline.config.strict import InvalidFieldError, require
from pipeline.errors import unknown_name
from pipeline.models.initialisation import Initialisation


@dataclass(frozen=True)
class ModelSpec:
    """A stack of recurrent layers between an input encoding and a linear readout.

    `embedding_size` is for token inputs: null encodes them one-hot. For a real input it must be null. A bidirectional
    layer has `hidden_size` units in each direction.
    """

    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    embedding_size: int | None
    initialisation: Initialisation

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise InvalidFieldError("cell", f"a cell of the list ({unknown_name('cell', self.cell, CELLS)})", self.cell)
        require(self.hidden_size >= 1, "hidden_size", "an integer of at least 1", self.hidden_size)
        require(1 <= self.num_layers <= 100, "num_layers", "an integer from 1 to 100", self.num_layers)
        size = self.embedding_size
        require(size is None or size >= 1, "embedding_size", "null or an integer of at least 1", size)
        self.initialisation.check(self.cell)
