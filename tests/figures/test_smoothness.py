from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import smoothness
from pipeline.quantities import GridTables


def with_points(tables: GridTables, points: dict[int, list[tuple[float, float]]]) -> GridTables:
    rows = [
        {"arm": "gru", "length": 20, "seed": seed, "step": step, "status": "ok", "metric": metric, "value": value}
        for seed, own in points.items()
        for step, (norm, smooth) in enumerate(own)
        for metric, value in (("probe_grad_norm", norm), ("local_smoothness", smooth))
    ]
    return replace(tables, curves=pl.DataFrame(rows))


def test_a_power_law_has_correlation_one(measured: GridTables) -> None:
    points = smoothness.table(measured)
    expected = [math.log10(2.0) + 0.8 * norm for norm in points["log10_norm"]]
    assert points["log10_smoothness"].to_list() == pytest.approx(expected)
    found = smoothness.correlations(measured)
    assert found["mean"].to_list() == pytest.approx([1.0] * 6)
    assert found["num_seeds"].to_list() == [3] * 6
    assert smoothness.title(measured).startswith(
        "Along training local smoothness rises with the gradient norm in the Elman network (r = 1.0 [1.0, 1.0]), "
    )


def test_seeds_that_disagree_are_inconclusive(exact: list[GridTables]) -> None:
    line = [(0.1, 0.1), (1.0, 1.0), (10.0, 10.0)]
    tables = with_points(exact[0], {0: line, 1: [(x, 1 / y) for x, y in line]})
    assert smoothness.title(tables) == "Along training no correlation is established in the GRU (r = 0 [-1.0, 1.0])"
    assert smoothness.title(with_points(exact[0], {0: line})).startswith("Along training no correlation is established")


def test_a_seed_with_two_points_has_no_correlation(exact: list[GridTables]) -> None:
    tables = with_points(exact[0], {0: [(0.1, 0.2), (0.2, 0.3)]})
    assert smoothness.title(tables) == "Inconclusive: too few measurements of smoothness for a correlation"


def test_points_at_zero_are_counted(exact: list[GridTables]) -> None:
    tables = with_points(exact[0], {0: [(0.1, 0.2), (0.0, 0.3), (0.2, math.nan)]})
    assert "2 points that are zero or not finite left out." in smoothness.caption(tables)


def test_at_most_six_panels(many: GridTables) -> None:
    assert sum(ax.get_visible() for ax in smoothness.draw(many).axes) == 6
    assert "6 of 12 arms are shown" in smoothness.caption(many)


def test_grids_without_it_have_none(exact: list[GridTables]) -> None:
    assert not smoothness.applies(exact[0])
    only = exact[0].curves.with_columns(metric=pl.lit("local_smoothness")).unique(["arm", "length", "seed", "step"])
    assert not smoothness.applies(replace(exact[0], curves=only))
