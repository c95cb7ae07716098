from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.figures.comparison import gradient_and_cost
from pipeline.quantities import Grid
from tests.figures.conftest import changed, grids, legend, panels
from tests.synthetic_results import Shape, Variant

FACTORS = {"keeps": (0.9, 0.999), "forgets": (0.6, 0.8), "grows": (0.8, 1.1), "slowly": (0.7, 0.9)}


@pytest.fixture(scope="module")
def four() -> Grid:
    variants = {arm: Variant("elman", *ends) for arm, ends in FACTORS.items()}
    shape = Shape(variants=variants, noise=0.0, digits_length=None, learning_rates=(0.01,))
    return grids(shape)[0]


def test_every_arm_has_its_factors_its_loss_its_share_and_its_time(four: Grid) -> None:
    means = gradient_and_cost.view(four).means
    factors = {
        (arm, stage): 10**mean for arm, stage, mean in means.filter(panel="factor")["arm", "stage", "mean"].rows()
    }
    expected = {
        (arm, stage): factor for arm, ends in FACTORS.items() for stage, factor in zip(STAGES, ends, strict=True)
    }
    assert factors == pytest.approx(expected)
    time = means.filter(panel="time", arm="keeps").row(0, named=True)
    assert 10 ** time["mean"] == pytest.approx(8.0)
    assert 10 ** time["high"] == pytest.approx(8.0 + 4.3027 * 0.2, abs=1e-4)  # t of three portions
    runs = four.at("longest").runs.filter(arm="slowly")
    loss = means.filter(panel="loss", arm="slowly")["mean"].item()
    assert loss == pytest.approx(runs["test_loss"].log10().mean())
    assert means.filter(panel="solved", arm="slowly")["mean"].item() == runs["reached_criterion"].mean()


STAGES = ("initialisation", "end")


def test_arms_stand_in_the_order_of_their_first_factor(four: Grid) -> None:
    view = gradient_and_cost.view(four)
    assert view.shown == ["forgets", "slowly", "grows", "keeps"]
    assert "Arms are sorted by the factor at initialisation" in view.caption
    assert "grows 1.1000; keeps 0.9990; slowly 0.9000; forgets 0.8000" in view.caption
    figure = gradient_and_cost.draw(four)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == view.shown
    assert panels(figure) == ["a  Gradient", "b  Loss", "c  Solved", "d  Cost"]
    assert legend(figure) == ["at initialisation", "at the end of training"]


def test_the_finding_is_where_the_gradient_keeps_its_size_and_how_many_solve(four: Grid) -> None:
    runs = four.runs.with_columns(reached_criterion=pl.col("arm") != "forgets")
    title = gradient_and_cost.view(changed(four, runs=runs)).title
    assert title == (
        "After training at T = 20 the gradient keeps its size in keeps; decays in forgets and slowly; grows in grows; "
        "3 of 4 arms reach the criterion with most seeds"
    )


def test_a_diverged_arm_has_its_factor_at_initialisation_alone(four: Grid) -> None:
    variants = {arm: Variant("elman", *ends) for arm, ends in FACTORS.items()}
    broken = {f"grows, T=20, lr=0.01#{seed}": "diverged" for seed in range(3)}
    shape = Shape(variants=variants, noise=0.0, digits_length=None, learning_rates=(0.01,), broken=broken)
    view = gradient_and_cost.view(grids(shape)[0])
    known = view.means.filter(arm="grows").drop_nulls("mean").select("panel", "stage").rows()
    assert set(known) == {("factor", "initialisation"), ("solved", "")}
    assert "Of 24 replicas" not in view.caption  # the longest length alone
    assert "3 diverged" in view.caption


def test_without_a_criterion_there_is_no_share(four: Grid) -> None:
    runs = four.runs.with_columns(pl.lit(None, pl.Float64).alias("training.stop_below"))
    grid = changed(four, runs=runs)
    assert panels(gradient_and_cost.draw(grid)) == ["a  Gradient", "b  Loss", "c  Cost"]
    assert "criterion" not in gradient_and_cost.view(grid).title


def test_three_arms_have_figures_of_their_own(exact: list[Grid]) -> None:
    assert not gradient_and_cost.is_of(exact[0])
    assert math.isfinite(gradient_and_cost.view(exact[0]).means["mean"].drop_nulls().sum())
