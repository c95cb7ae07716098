"""The recurrent cells by name: every module of this package that has a `CELLS` adds to them."""

from __future__ import annotations

import importlib
import pkgutil

from pipeline.core.cells.cell import Cell, States, Weights

CELLS: dict[str, Cell] = {}
"""Every cell that a spec may name."""

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    CELLS |= getattr(importlib.import_module(f"{__name__}.{_module}"), "CELLS", {})

__all__ = ["CELLS", "Cell", "States", "Weights"]
