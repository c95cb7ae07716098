from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.figures.style import to_svg
from pipeline.figures.training import learning_curves, smoothness, unseen_lengths
from pipeline.quantities import Grid
from pipeline.quantities.dynamics import smoothness_correlation
from tests.figures.conftest import changed


def curves_of(grid: Grid, values: dict[int, list[float]], status: dict[int, str]) -> Grid:
    rows = [
        {"arm": "gru", "length": 20, "seed": seed, "step": 10 * i, "metric": "loss", "value": value}
        | {"status": status.get(seed, "ok"), "split": "validation"}
        for seed, own in values.items()
        for i, value in enumerate(own)
    ]
    return changed(grid, curves=rows)


@pytest.mark.parametrize(
    ("values", "status", "medians"),
    [
        (
            {0: [4.0, 2.0, 1.0], 1: [4.0, 0.5], 2: [4.0]},
            {2: "diverged"},
            [4.0, 2.0, 1.0],
        ),  # a frozen one keeps its loss
        ({0: [4.0, 2.0], 1: [4.0], 2: [4.0]}, {1: "diverged", 2: "diverged"}, [4.0, None]),
        ({0: [4.0, math.nan], 1: [4.0, 3.0], 2: [4.0, 5.0]}, {}, [4.0, 5.0]),  # NaN is the worst of all
    ],
)
def test_a_diverged_replica_counts_as_infinite_in_the_median(
    exact: list[Grid], values: dict[int, list[float]], status: dict[int, str], medians: list[float | None]
) -> None:
    assert learning_curves.view(curves_of(exact[0], values, status)).means["mean"].to_list() == medians


def test_who_reaches_the_criterion_first_is_the_finding(exact: list[Grid]) -> None:
    steps = pl.col("arm").replace_strict({"elman": None, "lstm": 30, "gru": 20}, return_dtype=pl.Int64)
    runs = exact[0].runs.with_columns(criterion_step=steps, num_steps=pl.lit(40, pl.Int64))
    title = learning_curves.view(changed(exact[0], runs=runs)).title
    assert title.endswith("the GRU after 20 and the LSTM after 30; the Elman network not within 40 steps")
    assert learning_curves.view(exact[1]).title.startswith("Median validation loss after training: ")


def test_an_arm_most_of_whose_seeds_diverged_has_no_final_loss(exact: list[Grid]) -> None:
    lost = pl.when(pl.col("arm") == "gru").then(pl.lit("diverged")).otherwise("status").alias("status")
    title = learning_curves.view(changed(exact[1], runs=exact[1].runs.with_columns(lost))).title
    assert "the GRU diverge" in title
    assert title.startswith("Median validation loss after training: the")
    assert "the GRU 0" not in title


def test_of_many_arms_only_medians_and_crosses_are_drawn(many: Grid) -> None:
    assert "lines are medians" in learning_curves.view(many).caption
    longest = learning_curves.draw(many).axes[1]
    assert len(longest.get_lines()) == 12 + 3 + 2  # medians, diverged seeds, baseline and criterion


def test_of_many_arms_the_ends_are_named(many: Grid) -> None:
    runs = many.runs.with_columns(criterion_step=pl.col("arm").rank("dense").cast(pl.Int64))
    title = learning_curves.view(changed(many, runs=runs)).title
    assert title.endswith("from «tanh, orthogonal ×1.00» after 1 to «tanh, orthogonal ×1.11» after 12")


LOSSES = {"elman": 1.0, "lstm": 0.001, "gru": 0.01}


def with_unseen(grid: Grid, losses: dict[str, float], tested: int = 200) -> Grid:
    """The grid with a test loss at a length, the same for all seeds and trained lengths."""
    runs = grid.runs.select("trial_id", "seed", "arm", "length", "status")
    facts = {"step": pl.lit(40, pl.Int64), "metric": pl.lit("loss"), "split": pl.lit("test")}
    facts["tested_length"] = pl.lit(tested, pl.Int64)
    parts = [
        runs.filter(arm=arm).with_columns(**facts, value=loss * (1 + 1e-6 * pl.col("seed")))
        for arm, loss in losses.items()
    ]
    return changed(grid, curves=pl.concat([grid["curves"], *parts], how="diagonal_relaxed"))


def means_of(grid: Grid) -> dict[tuple[int, int, str], float]:
    """Return the geometric mean of the test loss by trained length, tested length and arm."""
    rows = unseen_lengths.view(grid).means.select("length", "tested_length", "arm", "mean").rows()
    return {(trained, tested, arm): 10**mean for trained, tested, arm, mean in rows}


def test_the_trained_and_the_unseen_lengths_are_drawn(exact: list[Grid]) -> None:
    assert not unseen_lengths.is_of(exact[0])
    grid = with_unseen(exact[0], LOSSES)
    assert unseen_lengths.is_of(grid)
    means = means_of(grid)
    assert {tested for _, tested, _ in means} == {*grid.lengths, 200}
    assert {arm: means[20, 200, arm] for arm in LOSSES} == {arm: pytest.approx(loss) for arm, loss in LOSSES.items()}
    own = grid.runs.filter(arm="gru", length=10)["test_loss"].log10().mean()
    assert means[10, 10, "gru"] == pytest.approx(10**own)  # type: ignore[operator]
    assert len(unseen_lengths.draw(grid).axes) == len(grid.lengths)


def test_who_beats_the_baseline_is_the_finding(exact: list[Grid]) -> None:
    title = unseen_lengths.view(with_unseen(exact[0], LOSSES)).title
    assert title == "Trained at T = 20, the LSTM and the GRU still beat that length's baseline at T = 200"
    title = unseen_lengths.view(with_unseen(exact[0], dict.fromkeys(LOSSES, 5.0))).title
    assert title == "Trained at T = 20, no network still beats that length's baseline at T = 200"
    unknown = exact[0].runs.with_columns(baseline_loss=pl.lit(0.5) + pl.col("seed"))
    title = unseen_lengths.view(with_unseen(changed(exact[0], runs=unknown), LOSSES)).title
    assert title == "Test loss of networks trained at T = 20, tested at T = 200"


def test_the_trained_length_is_hollow_and_shorter_unseen_ones_have_a_finding(exact: list[Grid]) -> None:
    grid = with_unseen(with_unseen(exact[0], LOSSES, 4), LOSSES, 5)
    grid = changed(grid, runs=grid.runs.with_columns(test_loss=0.5 + 1e-7 * pl.col("seed")))
    title = unseen_lengths.view(grid).title
    assert title == "Trained at T = 20, the LSTM and the GRU beat that length's baseline at T = 4"
    for ax in unseen_lengths.draw(grid).axes:
        hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white" and len(line.get_ydata())]  # type: ignore[arg-type]
        assert [line.get_ydata().tolist() for line in hollow] == [[pytest.approx(0.5)]] * len(LOSSES)  # type: ignore[union-attr]


def test_a_trained_length_among_anothers_unseen_ones_counts_each_seed_once(exact: list[Grid]) -> None:
    grid = with_unseen(exact[0], LOSSES, 20)
    row = unseen_lengths.view(grid).means.filter(length=20, tested_length=20, arm="gru").row(0, named=True)
    own = grid.runs.filter(arm="gru", length=20)["test_loss"].log10().mean()
    assert (row["num_seeds"], row["mean"]) == (3, pytest.approx(own))
    assert means_of(grid)[10, 20, "gru"] == pytest.approx(0.01)


def test_a_baseline_is_that_of_the_panels_trained_length(exact: list[Grid]) -> None:
    grid = with_unseen(exact[0], LOSSES)
    own = changed(grid, runs=grid.runs.with_columns(baseline_loss=pl.col("length") / 100))
    heights = [
        [float(line.get_ydata()[0]) for line in ax.lines if list(line.get_xdata()) == [0, 1]]  # type: ignore[arg-type,index]
        for ax in unseen_lengths.draw(own).axes
    ]
    assert heights == [[pytest.approx(length / 100)] for length in grid.lengths]


def test_a_study_that_diverged_has_a_figure_of_unseen_lengths(exact: list[Grid]) -> None:
    grid = with_unseen(exact[0], LOSSES)
    lost = pl.lit("diverged").alias("status")
    grid = changed(grid, runs=grid.runs.with_columns(lost), curves=grid["curves"].with_columns(lost))
    assert unseen_lengths.view(grid).title == "Inconclusive: no replica finished training"
    figure = unseen_lengths.draw(grid)
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts.count("no replica finished") == 2
    to_svg(figure)


def with_points(grid: Grid, points: dict[int, list[tuple[float, float]]]) -> Grid:
    rows = [
        {"arm": "gru", "length": 20, "seed": seed, "step": step, "status": "ok", "metric": metric, "value": value}
        for seed, own in points.items()
        for step, (norm, smooth) in enumerate(own)
        for metric, value in (("probe_grad_norm", norm), ("local_smoothness", smooth))
    ]
    return changed(grid, curves=rows)


def test_a_power_law_has_correlation_one(measured: Grid) -> None:
    view = smoothness.view(measured)
    expected = [math.log10(2.0) + 0.8 * norm for norm in view.rows["log10_norm"]]
    assert view.rows["log10_smoothness"].to_list() == pytest.approx(expected)
    found = smoothness_correlation.summary(smoothness_correlation.of(view.grid), ["arm", "kind"])
    assert found["mean"].to_list() == pytest.approx([1.0] * 6)
    assert found["num_seeds"].to_list() == [3] * 6
    assert "no correlation is established in the Elman network (r = 1.0)" in view.title  # seeds that are all alike


def test_seeds_that_disagree_are_inconclusive(exact: list[Grid]) -> None:
    line = [(0.1, 0.1), (1.0, 1.0), (10.0, 10.0)]
    grid = with_points(exact[0], {0: line, 1: [(x, 1 / y) for x, y in line]})
    assert smoothness.view(grid).title.endswith("no correlation is established in the GRU (r = 0 [-1.0, 1.0])")
    assert "no correlation is established" in smoothness.view(with_points(exact[0], {0: line})).title


def test_a_seed_with_two_points_has_no_correlation(exact: list[Grid]) -> None:
    title = smoothness.view(with_points(exact[0], {0: [(0.1, 0.2), (0.2, 0.3)]})).title
    assert title == "Inconclusive: too few measurements of smoothness for a correlation"


def test_points_that_are_zero_or_not_finite_are_left_out_and_counted(exact: list[Grid]) -> None:
    view = smoothness.view(with_points(exact[0], {0: [(0.1, 0.2), (0.0, 0.3), (0.2, math.nan)]}))
    assert view.rows.height == 1
    assert "2 points of zero or not finite left out." in view.caption


def test_points_far_from_the_others_lie_beyond_the_frame_and_are_counted(exact: list[Grid]) -> None:
    points = [(10 ** (i / 100), 10 ** (i / 100)) for i in range(99)] + [(1e30, 1e30)]
    view = smoothness.view(with_points(exact[0], {0: points}))
    assert "1 point far from the others" in view.caption


def test_at_most_six_arms_have_a_panel_of_smoothness(exact: list[Grid], many: Grid) -> None:
    assert sum(ax.get_visible() for ax in smoothness.draw(many).axes) == 6
    assert "6 of 12 arms are shown" in smoothness.view(many).caption
    assert not smoothness.is_of(exact[0])
