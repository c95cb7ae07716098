from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest
from scipy import stats

from pipeline.figures import outcome_by_arm
from pipeline.quantities import GridTables


def with_runs(
    tables: GridTables,
    losses: dict[str, list[float]],
    *,
    solved: dict[str, int] | None = None,
    status: dict[str, str] | None = None,
    classes: bool = False,
) -> GridTables:
    rows = [
        {"arm": arm, "length": 20, "seed": seed, "status": (status or {}).get(arm, "ok"), "baseline_loss": 1 / 6}
        | {"test_loss": loss, "test_error": loss if classes else None, "dataset.name": "adding", "model.cell": "gru"}
        | {"reached_criterion": seed < (solved or {}).get(arm, 0), "training.stop_below": 0.1 if solved else None}
        for arm, own in losses.items()
        for seed, loss in enumerate(own)
    ]
    schema = {"test_error": pl.Float64, "training.stop_below": pl.Float64}
    return replace(tables, runs=pl.DataFrame(rows, schema_overrides=schema))


LOSSES = {"a, ×1": [0.1, 0.2, 0.3], "b": [0.11, 0.22, 0.33], "c": [0.3, 0.3, 0.3]}


def test_shares_have_wilson_intervals(exact: list[GridTables]) -> None:
    tables = with_runs(exact[0], LOSSES, solved={"b": 2}, status={"c": "diverged"})
    drawn = outcome_by_arm.table(tables)
    found = {(row["arm"], row["end"]): row["share"] for row in drawn.iter_rows(named=True)}
    assert found == {
        ("a, ×1", "solved"): 0.0,
        ("a, ×1", "diverged"): 0.0,
        ("b", "solved"): pytest.approx(2 / 3),
        ("b", "diverged"): 0.0,
        ("c", "solved"): 0.0,
        ("c", "diverged"): 1.0,
    }
    expected = stats.binomtest(2, 3).proportion_ci(method="wilson")
    row = drawn.filter(arm="b", end="solved").row(0, named=True)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_losses_are_geometric_means_of_those_that_did_not_diverge(exact: list[GridTables]) -> None:
    means = outcome_by_arm.losses(with_runs(exact[0], LOSSES, status={"c": "diverged"}))
    assert means["arm"].to_list() == ["a, ×1", "b"]
    assert 10 ** means["mean"][0] == pytest.approx(math.prod(LOSSES["a, ×1"]) ** (1 / 3))


@pytest.mark.parametrize(
    ("solved", "status", "title"),
    [
        ({"b": 2}, {"c": "diverged"}, "At T = 20 most seeds reach the criterion with b, not with «a, ×1» and c; "),
        ({"b": 1}, {}, "At T = 20 no arm reaches the criterion with most of its seeds"),
        ({"a, ×1": 3, "b": 3, "c": 2}, {}, "At T = 20 every arm reaches the criterion with most of its seeds"),
        (
            {},
            {"c": "diverged"},
            "Lowest test loss: «a, ×1» (0.182), ahead of b (0.200) in a comparison paired by seed; ",
        ),
    ],
)
def test_title_follows_the_shares(
    exact: list[GridTables], solved: dict[str, int], status: dict[str, str], title: str
) -> None:
    said = outcome_by_arm.title(with_runs(exact[0], LOSSES, solved=solved, status=status))
    assert said == (f"{title}most seeds of c diverge" if status else title)


def test_title_without_a_difference_is_inconclusive(exact: list[GridTables]) -> None:
    near = {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.11]}
    assert outcome_by_arm.title(with_runs(exact[0], near, classes=True)) == (
        "Inconclusive: no difference in test error is established between the best two, a (20.0 %) and b (20.3 %)"
    )
    one = with_runs(exact[0], {"a": [0.1], "b": [0.2]})
    assert outcome_by_arm.title(one) == "One pair of seeds, no interval: a (0.100) against b (0.200) in test loss"
    gone = with_runs(exact[0], near, status={"a": "diverged", "b": "diverged"})
    assert outcome_by_arm.title(gone).startswith("Inconclusive: no replica finished training; most seeds of a and b")


def test_bare_cells_have_their_own_figures(exact: list[GridTables], many: GridTables) -> None:
    assert not outcome_by_arm.applies(exact[0])
    assert not outcome_by_arm.applies(exact[1])
    assert outcome_by_arm.applies(many)
    assert "most seeds of «tanh, orthogonal ×1.03» diverge" in outcome_by_arm.title(many)
    only = many.runs.filter(arm="tanh, orthogonal ×1.03")
    assert not outcome_by_arm.applies(replace(many, runs=only))


@pytest.mark.parametrize("solved", [None, {"b": 2}])
def test_the_baselines_name_lies_above_every_row(exact: list[GridTables], solved: dict[str, int] | None) -> None:
    losses = {"a": [0.05, 0.1, 0.9], "b": [0.11, 0.22, 0.33], "c": [1 / 6, 1 / 6, 1 / 6]}  # a's interval crosses it
    figure = outcome_by_arm.draw(with_runs(exact[0], losses, solved=solved))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    (name,) = ax.texts
    titles = [a._left_title.get_window_extent().y0 for a in figure.axes]  # type: ignore[attr-defined]
    assert name.get_window_extent().y0 >= ax.get_window_extent().y1
    assert name.get_window_extent().y1 <= min(titles)
    assert max(titles) == pytest.approx(min(titles), abs=1)
    middle = (name.get_window_extent().x0 + name.get_window_extent().x1) / 2
    assert middle == pytest.approx(ax.transData.transform((1 / 6, 0))[0], abs=1)


def test_only_two_panels_have_a_left_one(exact: list[GridTables]) -> None:
    assert outcome_by_arm.caption(with_runs(exact[0], LOSSES)).startswith("Test loss on adding")
    assert outcome_by_arm.caption(with_runs(exact[0], LOSSES, solved={"b": 2})).startswith("Left: test loss on adding")
