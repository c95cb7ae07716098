from __future__ import annotations

import pytest

from pipeline.quantities import GridTables, grids_of
from tests.synthetic_results import Shape, Variant, study_tables

OVER = ("optimiser.learning_rate",)
VARIANTS = {f"tanh, orthogonal ×1.{i:02d}": Variant("elman", 0.8, 0.80 + 0.01 * i) for i in range(12)}
"""Twelve free labels of some 20 letters, with factors per timestep of .80 to .91 after training."""


def grids(shape: Shape) -> list[GridTables]:
    return grids_of("cells", study_tables(shape), OVER)


@pytest.fixture(scope="session")
def exact() -> list[GridTables]:
    """A study without noise, so that every slope is known."""
    return grids(Shape(noise=0.0))


@pytest.fixture(scope="session")
def measured() -> GridTables:
    """A grid without noise, with every table."""
    return grids(Shape(noise=0.0, measures=True, digits_length=None))[0]


@pytest.fixture(scope="session")
def many() -> GridTables:
    """A grid of twelve arms with free labels, with every table; three seeds of one diverge."""
    diverged = {f"tanh, orthogonal ×1.03, T=20, lr=0.01#{seed}": "diverged" for seed in range(3)}
    shape = Shape(variants=VARIANTS, noise=0.0, measures=True, digits_length=None, learning_rates=(0.01,))
    return grids(Shape(**(vars(shape) | {"broken": diverged})))[0]


@pytest.fixture(scope="session")
def deep() -> GridTables:
    """Three layers, both ways, of an LSTM and an Elman network."""
    shape = Shape(cells=("lstm", "elman"), num_layers=3, directions=("forward", "backward"), noise=0.0, measures=True)
    return grids(Shape(**(vars(shape) | {"digits_length": None})))[0]


@pytest.fixture(scope="session")
def broken() -> list[GridTables]:
    """A study in which a replica diverged, another ran out of time, and three settings failed."""
    troubles = {"elman, T=20, lr=0.01#1": "diverged", "gru, T=20, lr=0.01#0": "timed_out"}
    troubles |= {"lstm, T=10, lr=0.01": "error", "lstm, lr=0.01": "error", "gru, lr=0.01": "error"}
    return grids(Shape(broken=troubles, measures=True))
