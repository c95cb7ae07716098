from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PathCollection

from pipeline.figures.outcomes import criterion_by_length, error_by_cell, error_by_token, loss_by_length, outcome_by_arm
from pipeline.quantities import Grid
from pipeline.quantities.intervals import share_limits
from pipeline.quantities.words import interval
from tests import synthetic_attention
from tests.figures.conftest import changed, grids, legend, panels
from tests.quantities.conftest import difference
from tests.synthetic_results import Shape, Variant


def with_runs(
    grid: Grid,
    losses: dict[str, list[float]],
    *,
    solved: dict[str, int] | None = None,
    status: dict[str, str] | None = None,
    classes: bool = False,
    untrained: Sequence[str] = (),
    exploded: Sequence[str] = (),
) -> Grid:
    rows = [
        {"arm": arm, "length": 20, "seed": seed, "status": (status or {}).get(arm, "ok"), "baseline_loss": 1 / 6}
        | {"test_loss": loss, "test_error": loss if classes else None, "dataset.name": "adding", "model.cell": "gru"}
        | {"reached_criterion": seed < (solved or {}).get(arm, 0), "training.stop_below": 0.1 if solved else None}
        | {"dataset.length": 20, "beat_untrained": arm not in untrained}
        | {"exploded_step": 10 if arm in exploded else None}
        for arm, own in losses.items()
        for seed, loss in enumerate(own)
    ]
    schema = {"test_error": pl.Float64, "training.stop_below": pl.Float64, "exploded_step": pl.Int64}
    return changed(grid, runs=pl.DataFrame(rows, schema_overrides=schema))


@pytest.mark.parametrize(
    ("errors", "title"),
    [
        ({"gru": [0.1, 0.2, 0.3], "lstm": [0.11, 0.21, 0.312]}, "Fewest test errors: the GRU"),  # paired: tight
        ({"gru": [0.1, 0.2, 0.3], "lstm": [0.3, 0.2, 0.12]}, "Inconclusive: no difference in test error"),
        ({"gru": [0.1], "lstm": [0.2]}, "One pair of seeds, no interval"),
        ({"gru": [0.1, 0.3]}, r"Only the GRU (20.0 %)"),
    ],
)
def test_the_best_cell_rests_on_the_paired_difference(
    exact: list[Grid], errors: dict[str, list[float]], title: str
) -> None:
    runs = with_runs(exact[1], errors, classes=True).runs.with_columns(pl.col("arm").alias("model.cell"))
    assert error_by_cell.view(changed(exact[1], runs=runs)).title.startswith(title)


@pytest.mark.parametrize(
    "errors",
    [
        {"gru": [0.02] * 5, "lstm": [0.9] * 5},  # alike in every seed: Newcombe's, not no interval
        {"gru": [0.0, 0.1, 0.3], "lstm": [1.0, 0.7, 0.95]},  # Student's, which would go beyond 100 points
    ],
)
def test_a_caption_and_a_claim_have_the_same_interval_of_a_difference(
    exact: list[Grid], errors: dict[str, list[float]]
) -> None:
    runs = with_runs(exact[1], errors, classes=True).runs.with_columns(pl.col("arm").alias("model.cell"))
    grid = changed(exact[1], runs=runs)
    effect = difference(grid, {"arm": "gru"}, quantity="test_error", arm="lstm")
    assert effect.high is not None
    assert 0.8 < effect.high <= 1
    shown = interval({"mean": effect.value, "low": effect.low, "high": effect.high}, 3, scale=100)
    assert f"LSTM minus GRU {shown}." in error_by_cell.view(grid).caption
    assert "ahead" in error_by_cell.view(grid).title


def test_only_grids_of_cells_with_classes_have_error_by_cell(exact: list[Grid]) -> None:
    assert [error_by_cell.is_of(grid) for grid in exact] == [False, True]


ERRORS = {("elman", "left"): 0.02, ("elman", "right"): 0.7, ("lstm", "left"): 0.01, ("lstm", "right"): 0.1}


def with_errors(grid: Grid, errors: dict[tuple[str, str], float], step: float = 0.01) -> Grid:
    """The grid with an error per kind of token: the one given, plus `step` times the seed."""
    runs = grid.at("longest").runs.select("trial_id", "seed", "arm", "length", "status")
    facts = {"step": pl.lit(40, pl.Int64), "metric": pl.lit("error"), "split": pl.lit("test")}
    parts = [
        runs.filter(arm=arm).with_columns(
            **facts, group=pl.lit(group), value=error * (1 + 1e-6 * pl.col("seed")) + step * pl.col("seed")
        )
        for (arm, group), error in errors.items()
    ]
    return changed(grid, curves=pl.concat([grid["curves"], *parts], how="diagonal_relaxed"))


def test_errors_by_kind_of_token_are_means_over_seeds(exact: list[Grid]) -> None:
    assert not error_by_token.is_of(exact[0])
    view = error_by_token.view(with_errors(exact[0], ERRORS))
    means = {
        (row["arm"], row["group"].removesuffix(" tokens")): row["mean"] for row in view.means.iter_rows(named=True)
    }
    assert means == {key: pytest.approx(error + 0.01) for key, error in ERRORS.items()}  # seeds 0, 1, 2
    assert view.means["num_seeds"].to_list() == [3] * 4
    assert panels(error_by_token.draw(view.grid)) == ["a  left tokens", "b  right tokens"]
    assert "left tokens: Elman: 3.0 [" in view.caption


def test_the_kinds_of_texts_of_images_are_kinds_of_texts() -> None:
    described = synthetic_attention.grid(["dot"], synthetic_attention.describing({"dot": 0.5}), num_seeds=3)
    view = error_by_token.view(with_errors(described, {("dot", "place"): 0.2, ("dot", "relation"): 0.4}))
    assert {*view.rows["group"]} == {"place texts", "relation texts"}
    assert "relation texts: dot: 41 [" in view.caption


def test_the_kind_of_token_where_arms_differ_most_is_the_finding(exact: list[Grid]) -> None:
    title = error_by_token.view(with_errors(exact[0], ERRORS)).title
    assert title == "Of the answers on right tokens 11.0 % with the LSTM are wrong, 71.0 % with the Elman network"
    same = dict.fromkeys(ERRORS, 0.3)
    assert error_by_token.view(with_errors(exact[0], same)).title.startswith("Inconclusive: for no kind of token")
    one = {key: error for key, error in ERRORS.items() if key[0] == "elman"}
    title = error_by_token.view(with_errors(exact[0], one)).title
    assert title == "Most errors of the Elman network are on right tokens"


LOSSES = {"a, ×1": [0.1, 0.2, 0.3], "b": [0.11, 0.22, 0.3301], "c": [0.3, 0.3, 0.3]}


def test_shares_of_ends_have_intervals_of_shares(exact: list[Grid]) -> None:
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, solved={"b": 2}, status={"c": "diverged"}))
    shares = view.means.filter(panel="ends")
    found = {(row["arm"], row["end"]): row["mean"] for row in shares.iter_rows(named=True)}
    nothing = dict.fromkeys([("a, ×1", "solved"), ("a, ×1", "diverged"), ("b", "diverged"), ("c", "solved")], 0.0)
    assert found == nothing | {("b", "solved"): pytest.approx(2 / 3), ("c", "diverged"): 1.0}
    expected = share_limits(np.array([2.0]), np.array([3.0]))
    row = shares.filter(arm="b", end="solved").row(0, named=True)
    assert (row["low"], row["high"]) == pytest.approx((expected[0][0], expected[1][0]))
    assert legend(outcome_by_arm.draw(view.grid)) == ["reached the criterion", "diverged"]


def test_losses_are_geometric_means_of_those_that_did_not_diverge(exact: list[Grid]) -> None:
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, status={"c": "diverged"}))
    means = dict(view.means.filter(panel="loss").select("arm", "mean").iter_rows())
    assert 10 ** means["a, ×1"] == pytest.approx(math.prod(LOSSES["a, ×1"]) ** (1 / 3))
    assert means["c"] is None


@pytest.mark.parametrize(
    ("solved", "status", "finding"),
    [
        ({"b": 2}, {"c": "diverged"}, "most seeds reach the criterion with b, not with «a, ×1» and c; "),
        ({"b": 1}, {}, "no arm reaches the criterion with most of its seeds"),
        ({"a, ×1": 3, "b": 3, "c": 2}, {}, "every arm reaches the criterion with most of its seeds"),
        ({}, {"c": "diverged"}, "Lowest test loss: «a, ×1» (0.182), ahead of b (0.200)"),
    ],
)
def test_the_finding_follows_the_shares(
    exact: list[Grid], solved: dict[str, int], status: dict[str, str], finding: str
) -> None:
    title = outcome_by_arm.view(with_runs(exact[0], LOSSES, solved=solved, status=status)).title
    assert finding in title
    assert title.endswith("most seeds of c diverge") == bool(status)


def test_without_a_difference_the_outcome_is_inconclusive(exact: list[Grid]) -> None:
    near = {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.11]}
    title = outcome_by_arm.view(with_runs(exact[0], near, classes=True)).title
    assert title.startswith("Inconclusive: no difference in test error")
    assert "a (20.0 %) and b (20.3 %)" in title
    title = outcome_by_arm.view(with_runs(exact[0], {"a": [0.1], "b": [0.2]})).title
    assert title == "One pair of seeds, no interval: a (0.100) against b (0.200) in test loss"
    gone = with_runs(exact[0], near, status={"a": "diverged", "b": "diverged"})
    title = outcome_by_arm.view(gone).title
    assert title.startswith("Inconclusive: no replica finished training; most seeds of a and b")


def test_bare_cells_have_their_own_figures(exact: list[Grid], many: Grid) -> None:
    assert not outcome_by_arm.is_of(exact[0])
    assert not outcome_by_arm.is_of(exact[1])
    assert outcome_by_arm.is_of(many)
    assert "most seeds of «tanh, orthogonal ×1.03» diverge" in outcome_by_arm.view(many).title
    assert not outcome_by_arm.is_of(with_runs(exact[0], {"a": [0.1, 0.2]}))


@pytest.mark.parametrize("solved", [None, {"b": 2}])
def test_the_baselines_name_lies_above_every_row(exact: list[Grid], solved: dict[str, int] | None) -> None:
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


def test_seeds_that_never_beat_their_untrained_network_are_shown_where_there_are_any(exact: list[Grid]) -> None:
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, solved={"b": 2}, untrained=["b"]))
    ends = view.means.filter(panel="ends", end="untrained")
    assert dict(ends.select("arm", "mean").iter_rows()) == {arm: float(arm == "b") for arm in LOSSES}
    assert "never better than untrained" in legend(outcome_by_arm.draw(view.grid))
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, solved={"b": 2}))
    assert view.means.filter(panel="ends", end="untrained").is_empty()


def test_seeds_that_exploded_and_recovered_are_shown_where_there_are_any(exact: list[Grid]) -> None:
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, status={"c": "diverged"}, exploded=["b"]))
    ends = view.means.filter(panel="ends", end="exploded")
    assert dict(ends.select("arm", "mean").iter_rows()) == {"a, ×1": 0.0, "b": 1.0, "c": 1.0}
    assert legend(outcome_by_arm.draw(view.grid)) == ["diverged", "exploded, recovering or not"]
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, status={"c": "diverged"}, exploded=["c"]))
    assert view.means.filter(panel="ends")["end"].unique().to_list() == ["diverged"]


def test_seeds_that_a_search_stopped_have_a_mark_of_their_own(exact: list[Grid]) -> None:
    view = outcome_by_arm.view(with_runs(exact[0], LOSSES, solved={"b": 2}, status={"c": "censored"}))
    ends = view.means.filter(panel="ends")
    stopped = dict(ends.filter(end="censored").select("arm", "mean").iter_rows())
    assert stopped == {arm: float(arm == "c") for arm in LOSSES}
    assert ends.filter(arm="c", end="solved")["mean"].to_list() == [None]  # it might yet have been
    assert legend(outcome_by_arm.draw(view.grid)) == ["reached the criterion", "stopped by the search"]
    assert "Seeds that the search stopped have no test loss" in view.caption
    assert "stopped" not in outcome_by_arm.view(with_runs(exact[0], LOSSES, solved={"b": 2})).caption


def test_only_two_panels_have_a_left_one(exact: list[Grid]) -> None:
    assert outcome_by_arm.view(with_runs(exact[0], LOSSES)).caption.startswith("Test loss on adding")
    both = with_runs(exact[0], LOSSES, solved={"b": 2})
    assert outcome_by_arm.view(both).caption.startswith("Left: test loss on adding")


def test_losses_by_length_are_geometric_means_of_those_that_did_not_diverge(broken: list[Grid]) -> None:
    view = loss_by_length.view(broken[0])
    row = view.means.filter(panel="loss", arm="elman", length=20).row(0, named=True)
    sound = broken[0].runs.filter(arm="elman", length=20, status="ok")
    assert 10 ** row["mean"] == pytest.approx(math.prod(sound["test_loss"]) ** (1 / 2))
    assert row["num_seeds"] == 2
    assert "1 diverged, 1 ran out of time and 3 failed with an error" in view.caption


@pytest.mark.parametrize(
    ("patience", "title"),
    [
        ({"elman": 25, "lstm": 5}, "Most seeds solve up to T = 100 with the LSTM, up to T = 20 with the Elman network"),
        ({"elman": 90, "lstm": 5}, "Most seeds solve up to T = 100 with the LSTM, no length with the Elman network"),
        ({"elman": 5, "lstm": 5}, "Every cell solves every length that was tried, up to T = 100"),
        ({"elman": 90, "lstm": 90}, "No cell reaches the criterion with most of its seeds, not even at T = 20"),
    ],
)
def test_the_reach_follows_the_shares(patience: dict[str, float], title: str) -> None:
    shape = Shape(lengths=(20, 100), cells=("elman", "lstm"), digits_length=None, patience=patience)
    assert loss_by_length.view(grids(shape)[0]).title == title


def test_without_a_criterion_the_loss_decides_and_there_is_one_panel(exact: list[Grid]) -> None:
    runs = exact[0].runs.with_columns(pl.lit(None, pl.Float64).alias("training.stop_below"))
    runs = runs.with_columns(
        test_loss=pl.when(pl.col("arm") == "lstm").then(1e-4).otherwise(0.1 + 1e-6 * pl.col("seed"))
    )
    view = loss_by_length.view(changed(exact[0], runs=runs))
    assert (
        view.title == "Lowest test loss at T = 20: the LSTM (1.00e-04), ahead of the Elman network (0.100) "
        "in a comparison paired by seed"
    )
    assert view.caption.startswith("Test loss on adding")
    assert panels(loss_by_length.draw(view.grid)) == ["Test loss"]


def test_of_many_reaches_the_ends_are_named() -> None:
    patience = {"elman": 90.0, "lstm": 60.0, "gru": 18.0}
    variants = {f"v{i}": Variant("elman") for i in range(4)}
    (grid,) = grids(Shape(lengths=(5, 10, 20, 40), digits_length=None, variants=variants, patience=patience))
    reach = pl.col("arm").replace_strict({"v0": 5, "v1": 10, "v2": 20, "v3": 0}, return_dtype=pl.Int64)
    view = loss_by_length.view(changed(grid, runs=grid.runs.with_columns(reached_criterion=pl.col("length") <= reach)))
    assert view.title == "Most seeds solve up to T = 20 with v2 to no length with v3; 2 arms lie between"


@pytest.mark.parametrize(
    ("stop_on", "judged"),
    [
        (pl.lit("validation_loss"), "whose validation loss fell below"),
        (pl.lit("validation_error"), "whose validation error fell below"),
        (
            pl.when(pl.col("arm") == "gru").then(pl.lit("validation_error")).otherwise(pl.lit("validation_loss")),
            "whose validation loss or validation error fell below",
        ),
    ],
)
def test_the_caption_says_what_the_criterion_is_about(exact: list[Grid], stop_on: pl.Expr, judged: str) -> None:
    runs = exact[0].runs.with_columns(stop_on.alias("training.stop_on"))
    assert judged in loss_by_length.view(changed(exact[0], runs=runs)).caption


def test_steps_are_compared_at_the_longest_length_that_every_arm_learns() -> None:
    (grid,) = grids(Shape(lengths=(5, 10, 20), cells=("elman", "lstm"), digits_length=None, num_seeds=4))
    is_slow, is_longest = pl.col("arm") == "elman", pl.col("length") == 20
    steps = pl.when(is_slow).then(400 + 20 * pl.col("seed")).otherwise(100 + pl.col("seed")) * pl.col("length") // 5
    found = pl.when(is_slow & is_longest).then(None).otherwise(steps)
    view = criterion_by_length.view(changed(grid, runs=grid.runs.with_columns(criterion_step=found)))
    assert view.title == "The criterion at T = 10 takes 203 training steps with the LSTM, 859 with the Elman network"
    assert "are in no mean: 4 of the Elman network at T = 20." in view.caption
    alike = grid.runs.with_columns(criterion_step=100 + (pl.col("seed") * pl.when(is_slow).then(3).otherwise(1)) % 4)
    at_longest = "Inconclusive: at T = 20 no difference in the steps to the criterion is established"
    assert criterion_by_length.view(changed(grid, runs=alike)).title == at_longest
    never = grid.runs.with_columns(criterion_step=pl.when(is_slow).then(None).otherwise(steps))
    of_none = "Inconclusive: at no length does every arm reach the criterion"
    assert criterion_by_length.view(changed(grid, runs=never)).title == of_none
    (alone,) = grids(Shape(lengths=(5, 10), cells=("lstm",), digits_length=None, num_seeds=4))
    own = alone.runs.with_columns(criterion_step=100 + pl.col("seed"))
    title = "The criterion at T = 10 takes 101 training steps with the LSTM"
    assert criterion_by_length.view(changed(alone, runs=own)).title == title


def test_every_seed_is_a_point_and_a_diverged_one_a_cross(broken: list[Grid]) -> None:
    clouds = loss_by_length.draw(broken[0]).axes[0].collections
    num_points = sum(np.shape(cloud.get_offsets())[0] for cloud in clouds if isinstance(cloud, PathCollection))
    assert num_points == broken[0].runs["test_loss"].drop_nulls().len()
