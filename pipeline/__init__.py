"""Gradient dynamics of recurrent networks: datasets, recurrences, training, sweeps and reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.loading import Results as Results
    from pipeline.loading import load_results as load_results
    from pipeline.trained import Trained as Trained
    from pipeline.trained import load_trained as load_trained

_HOMES = {"Results": "loading", "load_results": "loading", "Trained": "trained", "load_trained": "trained"}
__all__ = ["Results", "Trained", "load_results", "load_trained"]


def __getattr__(name: str) -> Any:
    """Import what reads results when it is first asked for: the numerical core does without polars and matplotlib.

    Raises:
        AttributeError: If the package has no such name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
