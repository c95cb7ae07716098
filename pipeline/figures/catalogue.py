"""Every figure of a grid, in the order in which a report shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from matplotlib.figure import Figure

from pipeline.figures import (
    clipping_ledger,
    eigenvalue_cloud,
    error_by_cell,
    gate_distribution,
    gate_retention,
    gradient_by_lag,
    gradient_by_layer,
    gradient_heatmap,
    growth_by_singular_value,
    jacobian_spectrum,
    learning_curves,
    loss_by_length,
    lyapunov_spectrum,
    outcome_by_arm,
    smoothness,
    spectrum,
    truncation_bias,
    truncation_cost,
)
from pipeline.statistics import GridTables


class FigureModule(Protocol):
    """What each figure's module has; `draw` draws the module's `table` and says its `title`."""

    __name__: str

    def applies(self, tables: GridTables) -> bool:
        """Return whether these tables have what the figure shows."""

    def title(self, tables: GridTables) -> str:
        """Return the finding, computed from the tables by rule."""

    def caption(self, tables: GridTables) -> str:
        """Return what is drawn, over how many seeds, with which interval, and what happened to rows not `ok`."""

    def draw(self, tables: GridTables) -> Figure:
        """Return the figure."""


FIGURES: tuple[FigureModule, ...] = (
    gradient_by_lag,
    gradient_by_layer,
    gradient_heatmap,
    loss_by_length,
    error_by_cell,
    outcome_by_arm,
    truncation_cost,
    truncation_bias,
    growth_by_singular_value,
    jacobian_spectrum,
    lyapunov_spectrum,
    gate_retention,
    gate_distribution,
    learning_curves,
    clipping_ledger,
    smoothness,
    spectrum,
    eigenvalue_cloud,
)


@dataclass(frozen=True)
class Drawing:
    """One figure of one grid, not yet drawn.

    Attributes:
        name: Of its files, `<study>_<grid>_<figure>`.
        kind: The figure's module, `gradient_by_lag`.
    """

    name: str
    kind: str
    title: str
    caption: str
    module: FigureModule
    tables: GridTables

    def draw(self) -> Figure:
        """Return the figure."""
        return self.module.draw(self.tables)


def drawings_of(tables: GridTables) -> Iterator[Drawing]:
    """Yield every figure that applies to a grid."""
    for module in FIGURES:
        if module.applies(tables):
            kind = module.__name__.rpartition(".")[2]
            name = f"{tables.study}_{tables.grid}_{kind}"
            yield Drawing(name, kind, module.title(tables), module.caption(tables), module, tables)
