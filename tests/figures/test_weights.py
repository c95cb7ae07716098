from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.figures.weights import eigenvalue_cloud, growth_by_singular_value, spectrum
from pipeline.quantities import Grid
from pipeline.quantities.quantity import from_log10
from tests.figures.conftest import changed, legend, panels

PLACE = {"part": "recurrent", "layer": 0, "direction": "forward"}


def with_sigma(grid: Grid, end: list[float]) -> Grid:
    rows = [
        {"trial_id": "t", "arm": "elman", "length": 20, "seed": seed, "step": step, "metric": metric, "value": value}
        | {"gate": "h", "status": "ok"}
        | PLACE
        for seed, last in enumerate(end)
        for step, value in ((0, 0.8), (40, last))
        for metric in ("sigma_max", "spectral_radius")
    ]
    return changed(grid, curves=rows)


@pytest.mark.parametrize(
    ("end", "verdict"),
    [
        ([1.5, 1.6, 1.4], "above 1/γ, so vanishing is no longer guaranteed"),
        ([0.9, 0.91, 0.92], "below 1/γ, so its gradient must vanish"),
        ([0.5, 1.6, 1.0], "inconclusive, the interval contains 1/γ"),
        ([1.5], "one seed, no interval"),
    ],
)
def test_sigma_is_compared_with_the_bound(exact: list[Grid], end: list[float], verdict: str) -> None:
    assert spectrum.view(with_sigma(exact[0], end)).title.endswith(verdict)


def test_the_spectrum_is_by_measure_and_gate(exact: list[Grid]) -> None:
    means = spectrum.view(exact[0]).means
    assert means["metric"].unique().sort().to_list() == ["sigma_max", "spectral_radius"]
    assert means.filter(arm="lstm")["gate"].unique().sort().to_list() == ["f", "g", "i", "o"]
    sigma = spectrum.view(with_sigma(exact[0], [1.0, 2.0])).means.filter(metric="sigma_max")
    assert from_log10(sigma["mean"].to_numpy()) == pytest.approx([0.8, math.sqrt(2.0)])  # geometric means
    labels = legend(spectrum.draw(exact[0]))
    assert {frozenset(label.split(", ")) for label in labels} == {
        frozenset(alike) for alike in (("W_hh", "g", "n"), ("f", "z"), ("i", "r"), ("o",))
    }


def test_many_arms_are_lines_of_two_panels(many: Grid) -> None:
    figure = spectrum.draw(many)
    assert panels(figure) == ["a  Largest singular value", "b  Spectral radius"]
    assert len(legend(figure)) == 12
    assert "«tanh, orthogonal ×1.00»" in spectrum.view(many).title


def test_of_several_layers_the_last_spectrum_is_taken(deep: Grid) -> None:
    drawn = spectrum.view(deep).means.filter(arm="elman", metric="sigma_max", step=0)
    last = deep.at("longest")["curves"].filter(
        arm="elman", metric="sigma_max", layer=2, direction="forward", gate="h", step=0
    )
    assert drawn["mean"].to_list() == pytest.approx([last["value"].log10().mean()])


def test_share_outside_the_unit_circle(exact: list[Grid]) -> None:
    rows = [
        {"arm": "elman", "gate": "h", "length": 20, "seed": seed, "step": step, "index": i, "real": x, "imag": y}
        | PLACE
        | {"status": "ok"}
        for seed in (0, 1)
        for step, values in ((0, [(0.6, 0.6), (0.0, 0.9)]), (40, [(0.8, 0.8), (-0.5, 0.0)]))
        for i, (x, y) in enumerate(values)
    ]
    view = eigenvalue_cloud.view(changed(exact[0], eigenvalues=rows))
    assert "the Elman network's" in view.title
    assert view.title.endswith("from 0.0 % to 50.0 %")


def test_the_candidate_of_a_gated_cell_stands_in_for_a_missing_elman_network(exact: list[Grid]) -> None:
    gated = exact[0]["eigenvalues"].filter(pl.col("arm") == "gru")
    assert eigenvalue_cloud.view(changed(exact[0], eigenvalues=gated)).rows["gate"].unique().to_list() == ["n"]
    assert not eigenvalue_cloud.is_of(changed(exact[0], eigenvalues=gated.clear()))


def test_of_many_arms_six_have_a_cloud(many: Grid) -> None:
    view = eigenvalue_cloud.view(many)
    assert len(view.arms) == 12
    assert sum(ax.get_visible() for ax in eigenvalue_cloud.draw(many).axes) == 6
    assert "6 of 12 arms are shown" in view.caption
    assert view.title.startswith("After training ")


def test_eigenvalues_beyond_the_frame_are_counted(exact: list[Grid]) -> None:
    far = pl.when((pl.col("index") == 0) & (pl.col("seed") == 0) & (pl.col("step") > 0)).then(50.0).otherwise("real")
    grid = changed(exact[0], eigenvalues=exact[0]["eigenvalues"].with_columns(real=far))
    assert "1 point far from the others" in eigenvalue_cloud.view(grid).caption


def with_points(grid: Grid, points: dict[int, tuple[float, float]]) -> Grid:
    """Return a grid of one arm with (σ_max, factor of the gradient per timestep of lag) at step 0, by seed."""
    base = {"arm": "elman", "length": 20, "step": 0, "status": "ok"} | PLACE
    curves = [
        base | {"seed": seed, "metric": "sigma_max", "gate": "h", "value": value, "layer": layer}
        for seed, (sigma, _) in points.items()
        for layer, value in ((0, sigma), (1, 9.0))
    ]
    traces = [
        base | {"seed": seed, "quantity": "h", "timestep": t, "log10_norm": (20 - t) * math.log10(factor)}
        for seed, (_, factor) in points.items()
        for t in range(1, 21)
    ]
    return changed(grid, curves=curves, traces=traces)


def test_a_point_is_growth_in_nats_against_log_sigma(exact: list[Grid]) -> None:
    points = growth_by_singular_value.view(with_points(exact[0], {0: (1.5, 0.9), 1: (0.8, 0.7)})).rows
    assert points["log_sigma"].to_list() == pytest.approx([math.log(1.5), math.log(0.8)])
    assert points["growth"].to_list() == pytest.approx([math.log(0.9), math.log(0.7)])
    assert points["stage"].to_list() == ["initialisation"] * 2


@pytest.mark.parametrize(
    ("points", "title"),
    [
        (
            {0: (1.5, 0.9), 1: (1.2, 0.8), 2: (1.4, 1.3), 3: (0.9, 0.5)},
            "σ_max above 1/γ need not make a gradient explode: 2 of 3 (67 %) shrink",
        ),
        ({0: (1.5, 1.4), 1: (0.9, 0.5)}, "Every one of the 1 gradients with σ_max above 1/γ grows"),
        ({0: (0.9, 0.5), 1: (0.8, 0.7)}, "σ_max lies nowhere above 1/γ: 2 of 2 gradients shrink"),
        (
            {0: (0.9, 0.95), 1: (0.8, 0.7)},
            "σ_max lies nowhere above 1/γ: 2 of 2 gradients shrink; 1 point above the bound growth = ln σ_max",
        ),
    ],
)
def test_what_lies_above_the_bound_is_counted(
    exact: list[Grid], points: dict[int, tuple[float, float]], title: str
) -> None:
    assert growth_by_singular_value.view(with_points(exact[0], points)).title == title


def test_the_share_that_shrinks_is_over_seeds(exact: list[Grid]) -> None:
    view = growth_by_singular_value.view(with_points(exact[0], {0: (1.5, 0.9), 1: (1.5, 1.2), 2: (0.5, 0.4)}))
    assert "Share shrinking above 1/γ, mean over seeds: 0.50" in view.caption


def test_gated_cells_have_no_growth_by_singular_value(exact: list[Grid]) -> None:
    gated = exact[0]["curves"].filter(pl.col("arm") != "elman")
    assert not growth_by_singular_value.is_of(changed(exact[0], curves=gated))
