"""Every figure draws without a warning (they are errors here), whatever went wrong in the study."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.figures.catalogue import FIGURES, drawings_of
from pipeline.figures.style import to_svg
from pipeline.statistics import GridTables
from tests.figures.conftest import grids
from tests.synthetic_results import Shape


def names(tables: GridTables) -> list[str]:
    return [drawing.name for drawing in drawings_of(tables)]


def test_names_of_figures_say_study_and_grid(exact: list[GridTables]) -> None:
    assert names(exact[0])[:3] == [
        "cells_adding_gradient_by_lag",
        "cells_adding_gradient_heatmap",
        "cells_adding_loss_by_length",
    ]
    assert {name.removeprefix("cells_digits_") for name in names(exact[1])} == {
        module.__name__.rpartition(".")[2] for module in FIGURES
    } - {"loss_by_length"}


@pytest.mark.parametrize("grid", [0, 1])
def test_draws_where_replicas_diverged_and_settings_failed(broken: list[GridTables], grid: int) -> None:
    for drawing in drawings_of(broken[grid]):
        assert b"<svg" in to_svg(drawing.draw())
        assert "seed" in drawing.caption
        assert "ended ok" in drawing.caption or "failed" in drawing.caption or "diverged" in drawing.caption


def test_draws_one_seed_at_one_length() -> None:
    (tables,) = grids(Shape(lengths=(10,), learning_rates=(0.01,), num_seeds=1, cells=("gru",), digits_length=None))
    for drawing in drawings_of(tables):
        assert b"<svg" in to_svg(drawing.draw())


def test_nothing_is_drawn_where_everything_failed() -> None:
    shape = Shape(lengths=(10,), learning_rates=(0.01,), cells=("gru", "lstm"), digits_length=None)
    one = grids(replace(shape, broken={"gru, T=10, lr=0.01": "error"}))[0]
    left = one.runs.filter(arm="gru")
    empty = {name: getattr(one, name).clear() for name in ("curves", "traces", "eigenvalues")}
    assert names(replace(one, runs=left, all_runs=left, **empty)) == []
