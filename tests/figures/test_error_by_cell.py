from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import error_by_cell
from pipeline.quantities import GridTables


def with_errors(tables: GridTables, errors: dict[str, list[float]]) -> GridTables:
    rows = [
        {"arm": arm, "length": 16, "seed": seed, "status": "ok", "test_error": error, "dataset.name": "digits"}
        for arm, own in errors.items()
        for seed, error in enumerate(own)
    ]
    return replace(tables, runs=pl.DataFrame(rows))


@pytest.mark.parametrize(
    ("errors", "title"),
    [
        ({"gru": [0.1, 0.2, 0.3], "lstm": [0.11, 0.21, 0.312]}, "Fewest test errors: the GRU"),  # paired: tight
        ({"gru": [0.1, 0.2, 0.3], "lstm": [0.3, 0.2, 0.12]}, "Inconclusive: no difference in test error"),
        ({"gru": [0.1], "lstm": [0.2]}, "One pair of seeds, no interval"),
        ({"gru": [0.1, 0.3]}, r"Test error of the GRU (20.0 %)"),
    ],
)
def test_title_rests_on_the_paired_difference(
    exact: list[GridTables], errors: dict[str, list[float]], title: str
) -> None:
    assert error_by_cell.title(with_errors(exact[1], errors)).startswith(title)


def test_only_grids_with_classes_have_it(exact: list[GridTables]) -> None:
    assert [error_by_cell.applies(tables) for tables in exact] == [False, True]
