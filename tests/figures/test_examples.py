from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from pipeline.figures.examples import as_grid, at_end, of_first_seed, of_runs, outline, where
from pipeline.quantities import GridTables
from tests.synthetic_attention import STEPS, attending, grid

INSIDE = {"dot": 0.9, "general": 0.8}


def losses(arm: str, seed: int) -> dict[str, object]:
    return {"test_loss": 0.5 + seed}


@pytest.fixture
def tables() -> GridTables:
    return grid(list(INSIDE), attending(INSIDE), num_seeds=3, broken={"dot#0": "diverged"}, trial=losses)


def test_the_first_seed_that_did_not_diverge_is_shown_at_its_last_step(tables: GridTables) -> None:
    shown = of_first_seed(tables, tables.attention).select("arm", "seed", "step").unique().sort("arm")
    assert shown.rows() == [("dot", 1, STEPS[-1]), ("general", 0, STEPS[-1])]


def test_means_are_over_seeds_that_did_not_diverge(tables: GridTables) -> None:
    errors = {row["arm"]: (row["mean"], row["num_seeds"]) for row in at_end(tables, "alignment_error").to_dicts()}
    assert errors == {"dot": (pytest.approx(0.1 + 0.015), 2), "general": (pytest.approx(0.2 + 0.01), 3)}
    assert at_end(tables, "unknown").is_empty()
    assert dict(of_runs(tables, pl.col("test_loss")).select("arm", "mean").iter_rows()) == {"dot": 2.0, "general": 1.5}


def test_the_length_is_told_where_there_are_several(tables: GridTables) -> None:
    assert where(tables) == "dates"
    longer = tables.runs.with_columns(length=pl.when(seed=2).then(8).otherwise(4))
    assert where(GridTables(**(vars(tables) | {"runs": longer}))) == "dates at T = 8"


def test_a_grid_is_in_the_order_of_its_positions() -> None:
    rows = pl.DataFrame({"i": [2, 1, 2, 1, 1, 2], "j": [1, 2, 3, 1, 3, 2], "value": [4, 2, 6, 1, 3, 5]})
    assert as_grid(rows, "i", "j", "value").tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_border_goes_around_cells_and_not_between_them() -> None:
    ax = Figure().subplots()
    outline(ax, np.array([[False, True, True]]), width=2.0, height=3.0)
    edges = {tuple(sorted(map(tuple, edge.vertices.tolist()))) for edge in ax.collections[0].get_paths()}
    across = {((x, y), (x + 2, y)) for x in (2.0, 4.0) for y in (0.0, 3.0)}
    assert edges == across | {((x, 0.0), (x, 3.0)) for x in (2.0, 6.0)}
