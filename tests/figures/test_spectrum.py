from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import spectrum
from pipeline.quantities import GridTables


def with_sigma(tables: GridTables, end: list[float]) -> GridTables:
    rows = [
        {"trial_id": "t", "arm": "elman", "length": 20, "seed": seed, "step": step, "metric": metric, "value": value}
        for seed, last in enumerate(end)
        for step, value in ((0, 0.8), (40, last))
        for metric in ("sigma_max[h]", "spectral_radius[h]", "training_loss")
    ]
    return replace(tables, curves=pl.DataFrame(rows))


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        ([1.5, 1.6, 1.4], "above 1/γ, so vanishing is no longer guaranteed"),
        ([0.9, 0.91, 0.92], "below 1/γ, so its gradient must vanish"),
        ([0.5, 1.6, 1.0], "inconclusive, the interval contains 1/γ"),
        ([1.5], "one seed, no interval"),
    ],
)
def test_title_compares_with_the_bound(exact: list[GridTables], end: list[float], verdict: str) -> None:
    assert spectrum.title(with_sigma(exact[0], end)).endswith(verdict)


def test_table_is_by_measure_and_gate(exact: list[GridTables]) -> None:
    drawn = spectrum.table(exact[0])
    assert drawn["measure"].unique().sort().to_list() == ["sigma_max", "spectral_radius"]
    assert drawn.filter(arm="lstm")["gate"].unique().sort().to_list() == ["f", "g", "i", "o"]
    assert spectrum.table(with_sigma(exact[0], [1.0, 2.0])).filter(measure="sigma_max")["mean"].to_list() == [0.8, 1.5]


def test_many_arms_are_lines_of_two_panels(many: GridTables) -> None:
    figure = spectrum.draw(many)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a  Largest singular value", "b  Spectral radius"]
    assert len(figure.legends[0].get_texts()) == 12
    assert "«tanh, orthogonal ×1.00»" in spectrum.title(many)


def test_of_several_layers_the_last_one_is_taken(deep: GridTables) -> None:
    drawn = spectrum.table(deep).filter(arm="elman", measure="sigma_max", step=0)
    last = deep.at_longest(deep.curves).filter(arm="elman", metric="sigma_max[l2.h]", step=0)
    assert drawn["mean"].to_list() == pytest.approx([last["value"].mean()])
    assert drawn["gate"].to_list() == ["h"]
