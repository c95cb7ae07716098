"""Quantities: every number that is reported, defined once, per arm and seed; frames in, frames out, nothing drawn.

A quantity is a function in any module of this package (`quantity.py` says how); figures, claims and metrics are
declarations over quantities. The seed is the only unit of replication.
"""

import importlib
import pkgutil

from pipeline.quantities.grid import Grid, Tables, finished, grids_of
from pipeline.quantities.intervals import CONFIDENCE, line_interval, mean_interval, paired_difference, share_interval
from pipeline.quantities.quantity import QUANTITIES, Effect, Quantity, Selection, difference_of, ratio_of, value_of

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "CONFIDENCE",
    "QUANTITIES",
    "Effect",
    "Grid",
    "Quantity",
    "Selection",
    "Tables",
    "difference_of",
    "finished",
    "grids_of",
    "line_interval",
    "mean_interval",
    "paired_difference",
    "ratio_of",
    "share_interval",
    "value_of",
]
