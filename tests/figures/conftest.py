from __future__ import annotations

import pytest

from pipeline.statistics import GridTables, grids_of
from tests.synthetic_results import Shape, study_tables

OVER = ("optimiser.learning_rate",)


def grids(shape: Shape) -> list[GridTables]:
    return grids_of("cells", study_tables(shape), OVER)


@pytest.fixture(scope="session")
def exact() -> list[GridTables]:
    """A study without noise, so that every slope is known."""
    return grids(Shape(noise=0.0))


@pytest.fixture(scope="session")
def broken() -> list[GridTables]:
    """A study in which a replica diverged, another ran out of time, and three settings failed."""
    troubles = {"elman, T=20, lr=0.01#1": "diverged", "gru, T=20, lr=0.01#0": "timed_out"}
    return grids(
        Shape(broken=troubles | {"lstm, T=10, lr=0.01": "error", "lstm, lr=0.01": "error", "gru, lr=0.01": "error"})
    )
