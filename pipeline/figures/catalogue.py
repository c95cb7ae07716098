"""Every figure of a grid, in the order in which a report shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from matplotlib.figure import Figure

from pipeline.errors import ConfigError, unknown_name
from pipeline.figures import (
    attention_maps,
    attention_over_training,
    captions,
    clipping_ledger,
    eigenvalue_cloud,
    error_by_cell,
    error_by_source_length,
    error_by_token,
    exposure_bias,
    forcing_schedule,
    gate_distribution,
    gate_retention,
    gradient_by_lag,
    gradient_by_layer,
    gradient_heatmap,
    gradient_into_encoder,
    growth_by_singular_value,
    input_gradients,
    jacobian_spectrum,
    learning_curves,
    loss_by_length,
    lyapunov_spectrum,
    outcome_by_arm,
    reconstructions,
    samples,
    smoothness,
    spectrum,
    truncation_bias,
    truncation_cost,
    unseen_lengths,
)
from pipeline.quantities import GridTables


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
    unseen_lengths,
    error_by_cell,
    error_by_token,
    error_by_source_length,
    exposure_bias,
    forcing_schedule,
    gradient_into_encoder,
    input_gradients,
    attention_maps,
    attention_over_training,
    captions,
    reconstructions,
    samples,
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


KINDS = {module.__name__.rpartition(".")[2]: module for module in FIGURES}
"""Every figure by the name of its module, as a study's grid names it."""


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


def drawings_of(tables: GridTables, wanted: Sequence[str] | None = None) -> Iterator[Drawing]:
    """Yield the figures that apply to a grid.

    Args:
        tables: Of the grid.
        wanted: Keys of `KINDS` in the order of the report; None is all of them.
    """
    for kind in KINDS if wanted is None else wanted:
        module = KINDS[kind]
        if module.applies(tables):
            name = f"{tables.study}_{tables.grid}_{kind}"
            yield Drawing(name, kind, module.title(tables), module.caption(tables), module, tables)


def check_kinds(wanted: Sequence[str] | None, where: str) -> None:
    """Check that a grid asks for figures that exist.

    Raises:
        ConfigError: If it does not; the message begins with `where`.
    """
    for kind in wanted or ():
        if kind not in KINDS:
            raise ConfigError(f"{where}: {unknown_name('figure', kind, KINDS)}")
