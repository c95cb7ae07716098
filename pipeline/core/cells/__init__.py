"""The recurrent cells by name: `CELLS` of every module of this package, a file per family."""

from __future__ import annotations

import importlib
import pkgutil

from pipeline.core.cells.cell import Cell, States, Weights
from pipeline.core.identity import Registry

CELLS: Registry[Cell] = {}
"""Every cell that a spec may name."""

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    CELLS |= getattr(importlib.import_module(f"{__name__}.{_module}"), "CELLS", {})

__all__ = ["CELLS", "Cell", "States", "Weights"]
