"""Every figure by name, in the order in which a report shows them.

A figure is found by its file: every public declaration in a module of this package is one. Those that `_ORDER` does not
name come after the others, so that a new figure is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline import figures
from pipeline.errors import ConfigError, unknown_name
from pipeline.figures.frame import Frame
from pipeline.quantities import Grid

if TYPE_CHECKING:
    from pipeline.config import Study

_ORDER = (
    "gradient_and_cost",
    "gradient_by_lag",
    "gradient_by_layer",
    "gradient_heatmap",
    "gradient_heatmap_row",
    "loss_by_length",
    "criterion_by_length",
    "unseen_lengths",
    "error_by_cell",
    "error_by_token",
    "error_by_source_length",
    "exposure_bias",
    "forcing_schedule",
    "gradient_into_encoder",
    "input_gradients",
    "attention_maps",
    "attention_over_training",
    "captions",
    "descriptions",
    "reconstructions",
    "samples",
    "outcome_by_arm",
    "truncation_cost",
    "truncation_bias",
    "growth_by_singular_value",
    "jacobian_spectrum",
    "lyapunov_spectrum",
    "gate_retention",
    "gate_distribution",
    "learning_curves",
    "clipping_ledger",
    "smoothness",
    "spectrum",
    "eigenvalue_cloud",
)


def discover() -> dict[str, Frame]:
    """Return every figure that a module of this package declares, in the order of a report."""
    found: dict[str, Frame] = {}
    for module in pkgutil.iter_modules(figures.__path__, f"{figures.__name__}."):
        if module.name != __name__:
            declared = vars(importlib.import_module(module.name)).items()
            found |= {it.name: it for name, it in declared if isinstance(it, Frame) and not name.startswith("_")}
    places = {name: place for place, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda item: places.get(item[0], len(places))))


FIGURES: Mapping[str, Frame] = discover()


def figures_of(grid: Grid, wanted: Sequence[str] | None = None) -> Iterator[Frame]:
    """Yield the figures that a grid has what to draw for, in the order of `wanted`; None is every one."""
    for name in FIGURES if wanted is None else wanted:
        if FIGURES[name].is_of(grid):
            yield FIGURES[name]


def check_study(study: Study, where: str) -> None:
    """Check that every grid of a study, whose file is `where`, asks for figures that exist.

    Raises:
        ConfigError: If one does not.
    """
    for name, grid in study.grids.items():
        check_figures(grid.figures, f"{where}.grids.{name}.figures")


def check_figures(wanted: Sequence[str] | None, where: str) -> None:
    """Check that a grid asks for figures that exist.

    Raises:
        ConfigError: If it does not; the message begins with `where`.
    """
    for name in wanted or ():
        if name not in FIGURES:
            raise ConfigError(f"{where}: {unknown_name('figure', name, FIGURES)}")
