from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import input_gradients as figure
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_decoding import ATTENTION, RECURRENCE, Arm, Setting, decoding_grid

EXACT = Setting(spread=0.0)


def test_it_applies_where_arms_with_and_without_recurrence_stand_beside_each_other(exact: list[GridTables]) -> None:
    assert figure.applies(decoding_grid(RECURRENCE))
    assert figure.recurring(decoding_grid(RECURRENCE)) == ["lstm"]
    assert not figure.applies(decoding_grid(ATTENTION))
    assert not figure.applies(exact[0])  # recurrent only, with the gradient of their input
    assert not figure.applies(decoding_grid({"self-attention": Arm(recurs=False)}))


def test_norms_are_relative_to_the_largest_of_the_replica() -> None:
    tables = decoding_grid({**RECURRENCE, "growing": Arm(recurs=False, factors=(1.1, 1.1))}, EXACT)
    drawn = figure.table(tables).filter(stage="end")
    means = {arm: drawn.filter(arm=arm)["mean"].to_list() for arm in tables.arms}
    assert means["lstm"] == pytest.approx([lag * math.log10(0.8) for lag in range(40)], abs=1e-12)
    assert means["growing"] == pytest.approx([(lag - 39) * math.log10(1.1) for lag in range(40)], abs=1e-12)


def test_title_tells_what_the_farther_half_gets() -> None:
    far = [-sum(lag * math.log10(factor) for lag in range(20, 40)) / 20 for factor in (0.8, 0.99)]
    assert figure.title(decoding_grid(RECURRENCE, Setting(spread=0.01))) == (
        "After training the farther half of the input gets a gradient "
        f"{far[0]:.1f} [2.8, 2.9] decades below the largest with recurrence, {far[1]:.2f} [0.13, 0.13] without"
    )


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        ({"lstm": Arm(), "self-attention": Arm(recurs=False)}, "Inconclusive: no difference between input gradients "),
        (
            {"lstm": Arm(diverged=(0, 1, 2)), "self-attention": Arm(recurs=False)},
            "Inconclusive: no replica of both kinds finished training",
        ),
    ],
)
def test_title_of_what_is_not_established_is_inconclusive(arms: dict[str, Arm], title: str) -> None:
    tables = decoding_grid(arms, EXACT)
    assert figure.title(tables).startswith(title)
    assert b"<svg" in to_svg(figure.draw(tables))


def test_an_input_without_gradient_is_counted_and_so_is_a_replica_without_any() -> None:
    tables = decoding_grid(RECURRENCE, EXACT)
    far, of_attention = pl.col("timestep") == 1, pl.col("arm") == "self-attention"
    none = (far & ~of_attention & (pl.col("part") == "input")) | (of_attention & (pl.col("seed") == 0))
    norm = pl.when(none).then(-math.inf).otherwise("log10_norm")
    tables = replace(tables, traces=tables.traces.with_columns(log10_norm=norm))
    drawn = figure.table(tables).filter(stage="end")
    assert drawn.filter(arm="lstm", lag=39).select("num_seeds", "num_nonfinite").rows() == [(0, 3)]
    assert drawn.filter(arm="self-attention", lag=0).select("num_seeds", "num_nonfinite").rows() == [(2, 1)]


def test_the_legend_says_which_arms_are_not_recurrent() -> None:
    tables = decoding_grid(RECURRENCE)
    labels = [text.get_text() for text in figure.draw(tables).legends[0].get_texts()]
    assert labels == ["LSTM", "self-attention (no recurrence)"]
    assert "With recurrence: LSTM." in figure.caption(tables)
