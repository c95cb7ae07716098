from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.figures.clipping import MAX_BINS, clipping_ledger
from pipeline.figures.frame import FAINT_MEANS
from pipeline.quantities import Grid
from tests.figures.conftest import changed, legend, panels
from tests.quantities.conftest import midp, shares


def with_norms(grid: Grid, norms: dict[int, list[float]], threshold: float = 1.0) -> Grid:
    rows = []
    for seed, own in norms.items():
        for step, norm in enumerate(own, start=1):
            base = {"arm": "gru", "length": 20, "seed": seed, "step": step, "status": "ok"}
            rows.append(base | {"metric": "grad_norm", "value": norm})
            rows.append(base | {"metric": "clipped_grad_norm", "value": min(norm, threshold)})
    return changed(grid, curves=rows)


def with_cosines(grid: Grid, cosines: dict[str, list[list[float]]]) -> Grid:
    rows = [
        {"arm": arm, "length": 20, "seed": seed, "step": step, "status": "ok", "metric": metric, "value": value}
        for arm, seeds in cosines.items()
        for seed, own in enumerate(seeds)
        for step, cosine in enumerate(own, start=1)
        for metric, value in (("grad_norm", 2.0), ("clipped_grad_norm", 1.0), ("clip_cosine", cosine))
    ]
    return changed(grid, curves=rows)


def test_share_of_clipped_steps_is_a_mean_over_seeds(exact: list[Grid]) -> None:
    grid = with_norms(exact[0], {0: [2.0, 2.0, 0.5, 0.5], 1: [2.0, 2.0, 2.0, 0.5]})
    view = clipping_ledger.view(grid)
    assert "62 % of the GRU's steps" in view.title
    assert view.means.filter(row="share")["mean"].to_list() == [1.0, 1.0, 0.5, 0.0]
    after = view.means.filter(row="norm", side="after")
    assert [10**middle for middle in after["mean"]] == pytest.approx([1.0, 1.0, math.sqrt(0.5), 0.5])


def test_the_share_of_clipped_steps_has_the_interval_of_a_share(exact: list[Grid]) -> None:
    view = clipping_ledger.view(with_norms(exact[0], {0: [2.0, 2.0, 0.5], 1: [2.0, 0.5, 0.5], 2: [2.0, 2.0, 0.5]}))
    found = view.means.filter(row="share").select("mean", "low", "high").rows()
    assert found == [pytest.approx(expected) for expected in (midp(3, 3), shares([1.0, 0.0, 1.0]), midp(0, 3))]


def test_steps_are_gathered_into_bins(exact: list[Grid]) -> None:
    view = clipping_ledger.view(with_norms(exact[0], {0: [0.1] * 200, 1: [0.1] * 200}))
    norms = view.means.filter(row="norm", side="before")
    assert norms.height == MAX_BINS
    assert norms["mean"].to_list() == pytest.approx([-1.0] * MAX_BINS)
    assert norms["step"].is_sorted()


def test_infinite_norms_are_counted(exact: list[Grid]) -> None:
    means = clipping_ledger.view(with_norms(exact[0], {0: [0.1, math.inf], 1: [0.3, 0.3]})).means
    assert means.filter(row="norm", side="before").select("num_seeds").rows() == [(2,), (1,)]


def test_no_clipping_is_said(exact: list[Grid]) -> None:
    assert clipping_ledger.view(with_norms(exact[0], {0: [0.1, 0.2]})).title == "No step was clipped"


def test_clipping_that_changes_the_direction_is_the_message(exact: list[Grid]) -> None:
    cosines = {"gru": [[0.8, 0.6], [0.7, 0.9], [0.75, 0.75]], "elman": [[1.0, 1.0], [1.0, 1.0 - 1e-9]]}
    view = clipping_ledger.view(with_cosines(exact[0], cosines))
    assert "direction in the GRU (mean cosine 0.75 [0.63, 0.87]); changes only its length in the Elman" in view.title
    labels = [ax.get_ylabel() for ax in clipping_ledger.draw(view.grid).axes]
    assert [label.replace("\n", " ") for label in labels if label] == [
        "gradient norm",
        "share of steps clipped",
        "cosine of clipped steps",
    ]


def test_a_change_in_some_seeds_only_is_not_shown(exact: list[Grid]) -> None:
    grid = with_cosines(exact[0], {"gru": [[0.8], [1.0]]})
    title = clipping_ledger.view(grid).title
    assert title == "Clipping is not shown to change the direction in the GRU (mean cosine 0.90 [-0.37, 1.0])"


def test_columns_are_titled_once_and_the_legend_names_no_arm(many: Grid) -> None:
    figure = clipping_ledger.draw(many)
    assert len([title for title in panels(figure) if title]) == 4
    assert legend(figure) == ["before clipping", "after clipping", "threshold of the norm over all parameters"]
    assert "4 of 12 arms are shown" in clipping_ledger.view(many).caption


def test_where_few_seeds_are_left_the_line_is_faint_and_the_caption_says_so(exact: list[Grid]) -> None:
    stays = with_norms(exact[0], {seed: [2.0] * 6 for seed in range(3)})
    assert FAINT_MEANS not in clipping_ledger.view(stays).caption
    stops = with_norms(exact[0], {0: [2.0] * 6, 1: [2.0, 2.0], 2: [2.0]})
    assert FAINT_MEANS in clipping_ledger.view(stops).caption
    (ax, *_) = clipping_ledger.draw(stops).axes
    faint = [line for line in ax.get_lines() if line.get_alpha() == 0.45]
    drawn = [pl.Series(line.get_ydata()).is_nan().to_list() for line in faint]  # type: ignore[arg-type]
    assert drawn[0] == [True, False, False, False, False, False]  # from the last point with two of three seeds
