from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import polars as pl
import pytest
from matplotlib.figure import Figure

from pipeline.quantities import Grid, grids_of
from tests.synthetic_results import Shape, Variant, study_tables

OVER = ("optimiser.learning_rate",)
VARIANTS = {f"tanh, orthogonal ×1.{i:02d}": Variant("elman", 0.8, 0.80 + 0.01 * i) for i in range(12)}
"""Twelve free labels of some 20 letters, with factors per timestep of .80 to .91 after training."""


def changed(grid: Grid, **frames: pl.DataFrame | Sequence[Mapping[str, object]]) -> Grid:
    """Return a grid with other frames: `runs`, or a table; of rows, columns that are not given are null."""
    full = {
        name: frame if isinstance(frame, pl.DataFrame) else pl.DataFrame(frame, infer_schema_length=None)
        for name, frame in frames.items()
    }
    own = {name: full.pop(name) for name in ("runs", "all_runs") if name in full}
    long = {
        name: pl.concat([grid[name].clear(), frame], how="diagonal_relaxed") if name in grid.long else frame
        for name, frame in full.items()
    }
    known = own.get("runs", grid.runs)["arm"].unique(maintain_order=True)
    arms = (*(arm for arm in grid.arms if arm in known), *(arm for arm in known if arm not in grid.arms))
    return dataclasses.replace(grid, arms=arms, long={**grid.long, **long}, _memo={}, **own)  # type: ignore[arg-type]


def legend(figure: Figure) -> list[str]:
    """Return the labels of a figure's legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def panels(figure: Figure) -> list[str]:
    """Return the titles of the panels that are seen."""
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()]


def grids(shape: Shape) -> list[Grid]:
    return grids_of("cells", study_tables(shape), OVER)


@pytest.fixture(scope="session")
def exact() -> list[Grid]:
    """A study without noise, so that every slope is known."""
    return grids(Shape(noise=0.0))


@pytest.fixture(scope="session")
def measured() -> Grid:
    """A grid without noise, with every table."""
    return grids(Shape(noise=0.0, measures=True, digits_length=None))[0]


@pytest.fixture(scope="session")
def many() -> Grid:
    """A grid of twelve arms with free labels, with every table; three seeds of one diverge."""
    diverged = {f"tanh, orthogonal ×1.03, T=20, lr=0.01#{seed}": "diverged" for seed in range(3)}
    shape = Shape(variants=VARIANTS, noise=0.0, measures=True, digits_length=None, learning_rates=(0.01,))
    return grids(Shape(**(vars(shape) | {"broken": diverged})))[0]


@pytest.fixture(scope="session")
def deep() -> Grid:
    """Three layers, both ways, of an LSTM and an Elman network."""
    shape = Shape(cells=("lstm", "elman"), num_layers=3, directions=("forward", "backward"), noise=0.0, measures=True)
    return grids(Shape(**(vars(shape) | {"digits_length": None})))[0]


@pytest.fixture(scope="session")
def broken() -> list[Grid]:
    """A study in which a replica diverged, another ran out of time, and three settings failed."""
    troubles = {"elman, T=20, lr=0.01#1": "diverged", "gru, T=20, lr=0.01#0": "timed_out"}
    troubles |= {"lstm, T=10, lr=0.01": "error", "lstm, lr=0.01": "error", "gru, lr=0.01": "error"}
    return grids(Shape(broken=troubles, measures=True))
