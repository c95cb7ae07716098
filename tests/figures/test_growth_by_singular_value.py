from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import growth_by_singular_value
from pipeline.quantities import GridTables


def with_points(tables: GridTables, points: dict[int, tuple[float, float]]) -> GridTables:
    """Return a grid of one arm with (σ_max, factor of the gradient per timestep of lag) at step 0, by seed."""
    base = {"arm": "elman", "length": 20, "step": 0, "status": "ok"}
    place = {"part": "recurrent", "layer": 0, "direction": "forward"}
    curves = [
        base | {"seed": seed, "metric": metric, "value": value}
        for seed, (sigma, _) in points.items()
        for metric, value in (("sigma_max[h]", sigma), ("sigma_max[l1.h]", 9.0), ("training_loss", 1.0))
    ]
    traces = [
        base | place | {"seed": seed, "quantity": "h", "timestep": t, "log10_norm": (20 - t) * math.log10(factor)}
        for seed, (_, factor) in points.items()
        for t in range(1, 21)
    ]
    return replace(tables, curves=pl.DataFrame(curves), traces=pl.DataFrame(traces))


def test_a_point_is_growth_in_nats_against_log_sigma(exact: list[GridTables]) -> None:
    points = growth_by_singular_value.table(with_points(exact[0], {0: (1.5, 0.9), 1: (0.8, 0.7)}))
    assert points["log_sigma"].to_list() == pytest.approx([math.log(1.5), math.log(0.8)])
    assert points["growth"].to_list() == pytest.approx([math.log(0.9), math.log(0.7)])
    assert points["stage"].to_list() == ["initialisation"] * 2


@pytest.mark.parametrize(
    ("points", "title"),
    [
        (
            {0: (1.5, 0.9), 1: (1.2, 0.8), 2: (1.4, 1.3), 3: (0.9, 0.5)},
            "σ_max above 1/γ does not make a gradient explode: 2 of 3 (67 %) shrink",
        ),
        ({0: (1.5, 1.4), 1: (0.9, 0.5)}, "Every one of the 1 gradients with σ_max above 1/γ grows"),
        ({0: (0.9, 0.5), 1: (0.8, 0.7)}, "σ_max lies nowhere above 1/γ: 2 of 2 gradients shrink"),
        (
            {0: (0.9, 0.95), 1: (0.8, 0.7)},
            "σ_max lies nowhere above 1/γ: 2 of 2 gradients shrink; 1 point above the bound growth = ln σ_max",
        ),
    ],
)
def test_title_counts_what_lies_above(
    exact: list[GridTables], points: dict[int, tuple[float, float]], title: str
) -> None:
    assert growth_by_singular_value.title(with_points(exact[0], points)) == title


def test_the_share_is_over_seeds(exact: list[GridTables]) -> None:
    tables = with_points(exact[0], {0: (1.5, 0.9), 1: (1.5, 1.2), 2: (0.5, 0.4)})
    assert growth_by_singular_value.shares(tables).select("mean", "num_seeds").rows() == [(0.5, 2)]


def test_gated_cells_have_no_such_figure(exact: list[GridTables]) -> None:
    gated = exact[0].curves.filter(pl.col("arm") != "elman")
    assert not growth_by_singular_value.applies(replace(exact[0], curves=gated))
