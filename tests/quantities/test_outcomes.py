from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pipeline.core.training.progress import Status, TrialResult
from pipeline.errors import TableError
from pipeline.quantities import QUANTITIES, Effect, Grid, grids_of, value_of
from pipeline.quantities.outcomes import baseline_of, has_criterion, longest_solved, median_criterion_step
from pipeline.quantities.quantity import Selection, from_log10
from pipeline.quantities.settings import settings_table
from pipeline.results import SCHEMAS, STATUSES
from tests.quantities.conftest import (
    T975,
    Z975,
    assert_effect,
    assert_nothing,
    difference,
    geometric,
    grid,
    midp,
    ratio,
    runs,
    shares,
    student,
    value,
    within_one,
)
from tests.synthetic_results import Shape, study_tables

BROKEN = {("lstm", 1): "diverged", ("lstm", 3): "timed_out", ("gru", 0): "error"}
ENDS = [{"length": "longest"}, {"length": "shortest"}]


def test_solved_counts_every_seed_that_answered() -> None:
    reached = {("elman", 10): [True, True, False], ("elman", 50): [False] * 3}
    reached |= {("lstm", 50): [True, None, True, False], ("gru", 50): [None, True, True, True]}
    found = grid(runs("reached_criterion", reached, broken=BROKEN))
    assert_effect(value(found, quantity="solved", arm="elman", length="shortest"), midp(2, 3), 3)
    assert_effect(value(found, quantity="solved", arm="elman", length=10), midp(2, 3), 3)
    assert_effect(value(found, quantity="solved", arm="elman"), midp(0, 3), 3)
    assert_effect(value(found, quantity="solved", arm="lstm"), midp(2, 4), 4)
    assert_effect(value(found, quantity="solved", arm="gru"), midp(3, 3), 3)


def test_of_several_arms_the_best_is_meant() -> None:
    found = grid(runs("reached_criterion", {"elman": [False] * 4, "gru": [True, True, True, False]}))
    assert_effect(value(found, quantity="solved", arm=["elman", "gru"]), midp(3, 4), 4)
    for arms in (["lstm", "gru"], "lstm"):  # one that was not run is not left out in silence
        assert_nothing(value(found, quantity="solved", arm=arms))
    losses = grid(runs("test_loss", {"elman": [0.5] * 3, "gru": [0.1, 0.2, 0.3]}))
    assert_effect(value(losses, quantity="test_loss", arm=["elman", "gru"]), geometric([0.1, 0.2, 0.3]), 3)


def test_a_seed_that_diverges_in_any_setting_of_its_arm_counts_selected_or_not() -> None:
    losses = {("sgd", 20): [1.0] * 3, ("adam", 20): [1.0] * 3}
    sound = runs("test_loss", losses)
    broken = {("sgd", 0): "diverged", ("sgd", 1): "diverged", ("adam", 0): "diverged"}
    both = pl.concat([sound, runs("test_loss", losses, broken=broken)])  # two learning rates, the first one selected
    found = grid(sound, all_runs=both)
    of = {"quantity": "outcome_of_any_setting", "status": "diverged"}
    assert_effect(value(found, arm="sgd", **of), midp(2, 3), 3)
    assert_effect(value(found, arm="adam", **of), midp(1, 3), 3)
    assert_nothing(value(found, arm="gru", **of))


def test_outcome_is_of_the_seeds_that_did_not_fail() -> None:
    losses = {("clip", 10): [1.0] * 5, ("clip", 20): [1.0] * 5, ("none", 20): [1.0] * 2}
    broken = {("clip", 0): "diverged", ("clip", 1): "diverged", ("clip", 2): "timed_out", ("clip", 3): "error"}
    found = grid(runs("test_loss", losses, broken=broken))
    for status, num_seeds in {"ok": 1, "diverged": 2, "timed_out": 1}.items():
        assert_effect(value(found, quantity="outcome", arm="clip", status=status), midp(num_seeds, 4), 4)
    assert_effect(value(found, quantity="outcome", arm="none", status="diverged"), midp(0, 2), 2)
    assert_nothing(value(found, quantity="outcome", arm="gru", status="ok"))
    assert_effect(value(found, quantity="failed", arm="clip"), midp(1, 5), 5)


def test_a_seed_explodes_whether_it_recovers_or_not() -> None:
    steps = {"clip": [None, 100, 200, None, None]}
    found = grid(
        runs("exploded_step", steps, broken={("clip", 2): "diverged", ("clip", 3): "diverged", ("clip", 4): "error"})
    )
    assert_effect(value(found, quantity="exploded", arm="clip"), midp(3, 4), 4)


def test_only_what_trained_to_its_end_was_never_better_than_untrained() -> None:
    beat = {"clip": [True, False, False, False, None]}
    broken = {("clip", 2): "timed_out", ("clip", 3): "diverged", ("clip", 4): "error"}
    found = grid(runs("beat_untrained", beat, broken=broken))
    assert_effect(value(found, quantity="never_improved", arm="clip"), midp(2, 4), 4)


STOPPED = {("lstm", seed): "censored" for seed in (1, 2)} | {("lstm", 3): "diverged"}
"""Of four seeds one ended, two were stopped by a search, one diverged."""


@pytest.mark.parametrize(
    ("column", "values", "of", "events"),
    [
        ("reached_criterion", [True, False, True, False], {"quantity": "solved"}, (2, 3)),  # seed 1 might yet have
        ("exploded_step", [None, None, 100, None], {"quantity": "exploded"}, (2, 3)),  # seed 1 might yet
        ("beat_untrained", [False, False, True, False], {"quantity": "never_improved"}, (1, 3)),  # seed 1 might yet be
        ("test_loss", [1.0] * 4, {"quantity": "outcome", "status": "diverged"}, (1, 2)),
        ("test_loss", [1.0] * 4, {"quantity": "outcome", "status": "ok"}, (1, 2)),
        ("test_loss", [1.0] * 4, {"quantity": "outcome_of_any_setting", "status": "diverged"}, (1, 2)),
    ],
)
def test_of_what_a_search_stopped_only_what_happened_before_is_known(
    column: str, values: list[Any], of: dict[str, str], events: tuple[int, int]
) -> None:
    found = grid(runs(column, {"lstm": values}, broken=STOPPED))
    assert_effect(value(found, arm="lstm", **of), midp(*events), events[1], num_left_out=4 - events[1])


def test_what_a_search_stopped_is_no_end_of_a_training() -> None:
    found = grid(runs("test_loss", {"lstm": [1.0, 100.0, 100.0, 100.0], "gru": [2.0] * 4}, broken=STOPPED))
    one = value(found, quantity="test_loss", arm="lstm")
    assert (one.value, one.num_seeds, one.num_left_out) == (pytest.approx(1.0), 1, 3)


def test_a_column_is_averaged_over_the_seeds_that_did_not_diverge() -> None:
    losses = {("lstm", 10): [9.0] * 4, ("lstm", 20): [1.0, 100.0, 3.0, 8.0]}
    found = grid(runs("test_loss", losses, broken=BROKEN))
    assert_effect(value(found, quantity="test_loss", arm="lstm"), geometric([1.0, 3.0, 8.0]), 3, num_left_out=1)
    shortest = value(found, quantity="test_loss", arm="lstm", length="shortest")
    assert (shortest.value, shortest.low, shortest.num_seeds) == (pytest.approx(9.0), None, 3)  # alike: no interval
    assert_nothing(value(found, quantity="test_loss", arm="gru"))


def test_what_is_missing_or_not_finite_is_left_out_and_counted() -> None:
    found = grid(runs("test_loss", {"lstm": [1.0, None, 3.0, math.inf, math.nan]}))
    assert_effect(value(found, quantity="test_loss", arm="lstm"), geometric([1.0, 3.0]), 2, num_left_out=3)


def test_one_seed_has_a_value_and_no_interval() -> None:
    found = value(grid(runs("test_loss", {"lstm": [2.0]})), quantity="test_loss", arm="lstm")
    assert (found.value, found.low, found.high, found.num_seeds) == (pytest.approx(2.0), None, None, 1)


def test_a_column_may_be_a_whole_number() -> None:
    found = grid(runs("num_parameters", {"lstm": [1000, 1000], "gru": [750, 750]}))
    assert_effect(value(found, quantity="num_parameters", arm="lstm"), (1000.0, 1000.0, 1000.0), 2)
    exact = ratio(found, {"arm": "lstm"}, quantity="num_parameters", arm="gru")
    assert_effect(exact, (0.75, 0.75, 0.75), 2)
    assert exact.is_exact
    assert not exact.is_tested(2)


def test_what_is_exact_may_not_differ_between_seeds() -> None:
    found = grid(runs("num_parameters", {"lstm": [1000, 1002]}))
    with pytest.raises(TableError, match="one value of what is exact by construction; seeds differ"):
        value(found, quantity="num_parameters", arm="lstm")


def test_a_share_has_an_interval_from_0_to_1() -> None:
    found = grid(runs("test_error", {"dot": [0.0, 0.1, 0.05], "none": [0.25] * 3, "all": [1.0] * 3}))
    assert_effect(value(found, quantity="test_error", arm="dot"), shares([0.0, 0.1, 0.05]), 3)
    assert_effect(value(found, quantity="test_error", arm="none"), midp(0.75, 3), 3)
    assert_effect(value(found, quantity="test_error", arm="all"), midp(3, 3), 3)


@pytest.mark.parametrize("quantity", ["test_loss", "test_perplexity"])
def test_a_ratio_is_the_geometric_mean_of_the_paired_ratios(quantity: str) -> None:
    losses = {"lstm": [2.0, 3.0, 10.0, 8.0], "gru": [1.0, 1.0, 4.0, 2.0]}
    if quantity == "test_perplexity":
        losses = {arm: [math.log(loss) for loss in own] for arm, own in losses.items()}
    of = {"quantity": quantity, "arm": "lstm"}
    found = ratio(grid(runs("test_loss", losses)), {"arm": "gru"}, **of)
    assert_effect(found, geometric([2.0, 3.0, 2.5, 4.0]), 4)
    broken = {("lstm", 1): "diverged", ("gru", 3): "error", ("lstm", 0): "timed_out"}
    partial = ratio(grid(runs("test_loss", losses, broken=broken)), {"arm": "gru"}, **of)
    assert_effect(partial, geometric([2.0, 2.5]), 2, num_left_out=2)


def test_a_ratio_counts_a_seed_that_diverged_on_both_sides() -> None:
    losses = {"lstm": [2.0, 3.0, 10.0], "gru": [1.0, 1.0, 4.0]}
    found = grid(runs("test_loss", losses, broken={("lstm", 2): "diverged", ("gru", 2): "diverged"}))
    effect = ratio(found, {"arm": "gru"}, quantity="test_loss", arm="lstm")
    assert_effect(effect, geometric([2.0, 3.0]), 2, num_left_out=1)


def test_a_ratio_leaves_out_what_has_no_logarithm() -> None:
    losses = {"lstm": [2.0, 0.0, 4.0, None], "gru": [1.0, 1.0, 1.0, 1.0]}
    found = ratio(grid(runs("test_loss", losses)), {"arm": "gru"}, quantity="test_loss", arm="lstm")
    assert_effect(found, geometric([2.0, 4.0]), 2, num_left_out=2)


def test_a_ratio_of_what_can_be_zero_has_no_interval_where_a_seed_is() -> None:
    errors = {"dot": [0.0] * 7 + [0.2, 0.21, 0.22], "none": [0.1] * 10}
    of = {"quantity": "test_error", "arm": "dot"}
    found = ratio(grid(runs("test_error", errors)), {"arm": "none"}, **of)  # in truth below 1, of three seeds above
    assert (found.low, found.high, found.num_seeds, found.num_left_out) == (None, None, 3, 7)
    assert ratio(grid(runs("test_error", errors)), {"arm": "dot"}, **of | {"arm": "none"})[1:3] == (None, None)
    positive = {arm: own[7:] for arm, own in errors.items()}
    assert_effect(ratio(grid(runs("test_error", positive)), {"arm": "none"}, **of), geometric([2.0, 2.1, 2.2]), 3)
    unpaired = {"dot": [None, 0.2, 0.21, 0.22], "none": [0.0, 0.1, 0.1, 0.1]}
    assert_effect(ratio(grid(runs("test_error", unpaired)), {"arm": "none"}, **of), geometric([2.0, 2.1, 2.2]), 3, 1)


def test_a_ratio_to_a_missing_arm_is_nothing() -> None:
    found = grid(runs("test_loss", {"lstm": [1.0, 2.0]}))
    assert_nothing(ratio(found, {"arm": "gru"}, quantity="test_loss", arm="lstm"), num_left_out=2)
    assert_nothing(ratio(found, {"arm": "gru"}, quantity="test_loss", arm="elman"))


def test_a_difference_is_paired_by_seed() -> None:
    errors = {("dot", 20): [0.0, 0.1, 0.25, 0.5], ("none", 20): [0.5, 0.8, 0.75, 1.0], ("none", 10): [0.0] * 4}
    of = {"quantity": "test_error", "arm": "dot"}
    found = difference(grid(runs("test_error", errors)), {"arm": "none"}, **of)
    assert_effect(found, student([-0.5, -0.7, -0.5, -0.5]), 4)
    broken = {("dot", 1): "diverged", ("none", 3): "error", ("dot", 0): "timed_out"}
    partial = difference(grid(runs("test_error", errors, broken=broken)), {"arm": "none"}, **of)
    assert partial == Effect(-0.5, pytest.approx(-0.887, abs=1e-3), pytest.approx(0.4215, abs=1e-3), 2, 2)  # alike
    assert_nothing(difference(grid(runs("test_error", {"general": [0.5] * 3})), {"arm": "none"}, **of))


def test_lengths_are_compared_by_seed() -> None:
    errors = {("none", 5): [0.0, 0.1, 0.2], ("none", 10): [0.9] * 3, ("none", 30): [0.7, 1.0, 0.5]}
    longest, shortest = ENDS
    of = {"quantity": "test_error", "arm": "none"} | longest
    grown = difference(grid(runs("test_error", errors)), shortest, **of)
    assert_effect(grown, within_one(student([0.7, 0.9, 0.3])), 3)
    errors[("none", 5)] = [0.0, None, 0.2]
    partial = difference(grid(runs("test_error", errors)), shortest, **of)
    assert_effect(partial, within_one(student([0.7, 0.3])), 2, num_left_out=1)
    assert_nothing(difference(grid(runs("test_error", errors)), shortest, **of | {"arm": "dot"}))
    losses = {("gru", 10): [1.0, 2.0, 4.0], ("gru", 20): [9.0] * 3, ("gru", 30): [3.0, 4.0, 16.0]}
    over = ratio(grid(runs("test_loss", losses)), shortest, quantity="test_loss", arm="gru", **longest)
    assert_effect(over, geometric([3.0, 2.0, 4.0]), 3)


def test_the_ratio_of_a_constant_is_one_with_no_doubt() -> None:
    numbers = {("gru", 10): [1185] * 3, ("gru", 30): [1185] * 3}
    found = grid(runs("num_parameters", numbers))
    assert_effect(ratio(found, ENDS[1], quantity="num_parameters", arm="gru"), (1.0, 1.0, 1.0), 3)


def test_a_single_length_is_not_compared_with_itself() -> None:
    found = grid(runs("num_parameters", {"gru": [1185] * 3}))
    assert_nothing(ratio(found, ENDS[1], quantity="num_parameters", arm="gru"))
    assert_nothing(difference(found, ENDS[1], quantity="num_parameters", arm="gru"))


NUM_PORTIONS = {"5 timesteps": 4, "full": 3}


def clocks(*, error_s: float | None = 0.01, criterion_s: Mapping[str, Sequence[float | None]] | None = None) -> Grid:
    """Two arms at two lengths: a step takes .3 s ± .01 s and .2 s ± `error_s` at the longest, 1 s at the shortest.

    Over four portions, and over three; `criterion_s` is by arm and seed.
    """
    times = {("5 timesteps", 20): (0.3, 0.01), ("full", 20): (0.2, error_s)}
    times |= {("5 timesteps", 10): (1.0, 0.5), ("full", 10): (1.0, 0.5)}
    frame = runs("step_time_s", {key: [time] * 4 for key, (time, _) in times.items()}, broken={("full", 3): "diverged"})
    errors = {f"{arm} {length}": error for (arm, length), (_, error) in times.items()}
    error = pl.col("trial_id").replace_strict(errors, return_dtype=pl.Float64)
    reached = runs("criterion_time_s", criterion_s or dict.fromkeys(NUM_PORTIONS, [None] * 4))
    frame = frame.join(reached.select("arm", "length", "seed", "criterion_time_s"), on=["arm", "length", "seed"])
    num_portions = pl.col("arm").replace_strict(NUM_PORTIONS, return_dtype=pl.Int64)
    return grid(frame.with_columns(step_time_error_s=error, num_timed_portions=num_portions))


def welch(confidence: float = 0.95) -> float:
    """Return half of the interval of the logarithm of the ratio of these clocks, as scipy has it of the portions."""
    portions = [np.linspace(-1.0, 1.0, num) for num in NUM_PORTIONS.values()]  # scaled to the standard errors
    errors = (0.01 / 0.3, 0.01 / 0.2)
    scaled = [part * error / stats.sem(part) for part, error in zip(portions, errors, strict=True)]
    found = stats.ttest_ind(*scaled, equal_var=False).confidence_interval(confidence)
    return float(found.high)


def test_the_ratio_of_step_times_has_welchs_interval_over_the_timed_portions() -> None:
    found = ratio(clocks(), {"arm": "full"}, quantity="step_time_s", arm="5 timesteps")
    half = welch()
    assert half > 1.2 * Z975 * math.hypot(0.01 / 0.3, 0.01 / 0.2)  # five portions fewer than infinitely many
    assert_effect(found, (1.5, 1.5 * math.exp(-half), 1.5 * math.exp(half)), 3)  # seeds that both arms have


def test_without_both_clocks_there_is_no_ratio_of_step_times() -> None:
    assert_nothing(ratio(clocks(error_s=None), {"arm": "full"}, quantity="step_time_s", arm="5 timesteps"))
    assert_nothing(ratio(clocks(), {"arm": "10 timesteps"}, quantity="step_time_s", arm="5 timesteps"))


REACHED = {"5 timesteps": [6.0, 3.0, 12.0, 6.0], "full": [4.0, 4.0, 4.0, None]}


def test_seeds_of_a_setting_are_no_clocks_of_their_own() -> None:
    """What differs between seeds and what their clocks do are independent: half-widths join as √(a² + b²)."""
    of = {"quantity": "criterion_time_s", "arm": "5 timesteps"}
    found = ratio(clocks(criterion_s=REACHED), {"arm": "full"}, **of)
    mean, _, high = student([math.log(ratio) for ratio in (6 / 4, 3 / 4, 12 / 4)])
    half = math.hypot(high - mean, welch())
    assert half > high - mean
    assert_effect(found, (math.exp(mean), math.exp(mean - half), math.exp(mean + half)), 3, num_left_out=1)


def test_a_time_to_the_criterion_has_no_interval_where_the_clock_or_the_seeds_say_nothing() -> None:
    of = {"quantity": "criterion_time_s", "arm": "5 timesteps"}
    found = ratio(clocks(criterion_s=REACHED, error_s=None), {"arm": "full"}, **of)
    assert (found.value, found.low, found.high, found.num_seeds) == (pytest.approx(1.5), None, None, 3)
    alike = {"5 timesteps": [6.0] * 4, "full": [4.0] * 4}
    assert ratio(clocks(criterion_s=alike), {"arm": "full"}, **of)[:3] == (pytest.approx(1.5), None, None)
    assert_nothing(ratio(clocks(), {"arm": "full"}, **of), num_left_out=4)


@pytest.mark.parametrize("name", ["criterion_time_s", "step_time_s"])
def test_what_seeds_share_has_no_interval_over_seeds(name: str) -> None:
    found = grid(runs(name, {"gru": [1.0, 2.0, 4.0], "lstm": [3.0, 1.0, 9.0]}))
    quantity = QUANTITIES[name]
    rows = quantity.of(found)
    for table in (quantity.summary(rows), quantity.difference(rows, "gru", "lstm")):
        assert table["mean"].is_not_null().all()
        assert table.select("low", "high").unique().rows() == [(None, None)]


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    times = {("gru", T): [0.002 * T**0.7] * 3 for T in (10, 20, 50, 100)}
    effect = value(grid(runs("step_time_s", times)), quantity="step_time_exponent", arm="gru")
    assert effect.value == pytest.approx(0.7, rel=1e-12)
    assert effect.low is not None
    assert effect.high is not None
    assert effect.high - effect.low < 1e-6  # √(1 - r²) of a rounded r
    assert (effect.num_seeds, effect.num_left_out) == (3, 0)


def test_the_exponent_has_the_interval_of_the_line() -> None:
    decades = {10: 0.0, 100: 1.3, 1000: 2.0}  # slope 1; residuals -.1, .2, -.1: s² = .06 / 1, s_xx = 2
    times = {("gru", T): [10.0**y] * 5 for T, y in decades.items()}
    half = T975[1] * math.sqrt(0.06 / 2)
    effect = value(grid(runs("step_time_s", times)), quantity="step_time_exponent", arm="gru")
    assert_effect(effect, (1.0, 1.0 - half, 1.0 + half), 5)


def test_an_exponent_needs_three_lengths() -> None:
    found = grid(runs("step_time_s", {("gru", 10): [0.1] * 3, ("gru", 20): [0.2] * 3, ("lstm", 30): [0.3] * 3}))
    assert_nothing(value(found, quantity="step_time_exponent", arm="gru"))
    assert_nothing(value(found, quantity="step_time_exponent", arm="elman"))


@pytest.mark.parametrize(
    ("won", "longest"),
    [
        ({10: [True, True, False], 20: [True, True, True], 40: [False, False, True]}, 20),
        ({10: [True, True, True], 20: [False, False, False], 40: [True, True, True]}, 10),  # a gap ends it
        ({10: [True, False], 20: [True, True]}, None),  # half is not more than half
        ({10: [None, True, True]}, 10),
    ],
)
def test_longest_solved_needs_most_seeds_at_every_shorter_length(
    won: dict[int, list[bool | None]], longest: int | None
) -> None:
    found = grid(runs("reached_criterion", {("gru", length): list(own) for length, own in won.items()}))
    assert longest_solved(found).rows() == [("gru", longest)]


@pytest.mark.parametrize("status", ["error", "censored"])
def test_a_length_of_which_nothing_is_known_is_not_passed_over(status: str) -> None:
    won = {("gru", length): [None if length == 20 else True] * 3 for length in (10, 20, 50)}
    frame = runs("reached_criterion", won)
    lost = pl.when(pl.col("length") == 20).then(pl.lit(status)).otherwise("status")
    assert longest_solved(grid(frame.with_columns(status=lost))).rows() == [("gru", 10)]


def test_a_failed_program_solves_nothing_and_fails_nothing() -> None:
    found = grid(runs("reached_criterion", {"gru": [True, None, False]}, broken={("gru", 1): "error"}))
    assert_effect(value(found, quantity="solved", arm="gru"), midp(1, 2), 2)


def test_a_criterion_is_one_that_some_study_sets() -> None:
    frame = runs("test_loss", {"gru": [1.0]})
    assert not has_criterion(frame)
    assert not has_criterion(frame.with_columns(pl.lit(None, pl.Float64).alias("training.stop_below")))
    assert has_criterion(frame.with_columns(pl.lit(0.01).alias("training.stop_below")))


def test_the_baseline_is_one_that_all_settings_share() -> None:
    assert baseline_of(grid(runs("baseline_loss", {"gru": [0.5, 0.5], "lstm": [0.5, None]}))) == 0.5
    assert baseline_of(grid(runs("baseline_loss", {"gru": [0.5, 0.4]}))) is None
    assert baseline_of(grid(runs("baseline_loss", {"gru": [None]}))) is None


def test_every_column_that_is_a_quantity_is_one_of_the_trials_table() -> None:
    columns = {"test_loss", "test_error", "num_parameters", "activation_bytes", "criterion_step", "criterion_time_s"}
    assert columns <= set(QUANTITIES) & set(SCHEMAS["trials"])


def test_words_name_arm_facets_and_length() -> None:
    of = {"quantity": "outcome", "arm": ["elman", "ReLU, identity"], "status": "timed_out", "length": 10}
    words = Selection.of(of, "check").words
    assert words == "best of Elman and «ReLU, identity»: share of seeds whose outcome is timed out, at T = 10"


def test_values_are_computed_once() -> None:
    found = grid(runs("test_loss", {"gru": [1.0, 2.0]}))
    of = Selection.of({"quantity": "test_loss", "arm": "gru"}, "check")
    assert value_of(of, found) == value_of(of, found)
    assert of.quantity.of(found) is of.quantity.of(found)


def test_the_worst_seed_speaks_for_a_setting_in_one_order_of_severity() -> None:
    label, shape = "elman, T=10, lr=0.01", Shape(lengths=(10,), cells=("elman",), digits_length=None)
    assert list(STATUSES) == [*Status]  # the sweep's order is that of the tables, of the page and of W&B
    for ends, worst in {
        ("ok", "timed_out"): "timed_out",
        ("diverged", "timed_out"): "diverged",
        ("timed_out", "diverged", "ok"): "diverged",
    }.items():
        broken = {f"{label}#{seed}": status for seed, status in enumerate(ends)}
        found = grids_of("cells", study_tables(replace(shape, broken=broken)), ["optimiser.learning_rate"])[0]
        row = settings_table(found).filter(label=label).row(0, named=True)
        assert row["status"] == worst == TrialResult([{"status": status} for status in ends]).status
        assert (row["num_ok"], row["num_exploded"]) == (3 - sum(end != "ok" for end in ends), 0)


def test_an_interval_on_a_log_scale_that_leaves_what_a_float_holds_ends_at_infinity_and_at_zero() -> None:
    """With two seeds t is 12.7: losses of 1e-300 and 1e300 have an interval over some 7000 decades."""
    found = grid(runs("test_loss", {"elman": [1e-300, 1e300], "lstm": [1e-300, 1e-299], "gru": [1e300, 1e-300]}))
    effect = value(found, quantity="test_loss", arm="elman")
    assert (effect.value, effect.low, effect.high) == (pytest.approx(1.0), 0.0, math.inf)
    compared = ratio(found, {"arm": "gru"}, quantity="test_loss", arm="elman")
    assert (compared.value, compared.low, compared.high) == (pytest.approx(1.0), 0.0, math.inf)
    huge = ratio(
        grid(runs("test_loss", {"a": [1e300] * 2, "b": [1e-300] * 2})), {"arm": "b"}, quantity="test_loss", arm="a"
    )
    assert huge.value == math.inf


def test_ten_to_a_power_is_infinite_beyond_a_float_for_numbers_and_arrays_alike() -> None:
    assert [from_log10(log) for log in (400.0, -400.0, 1.0)] == [math.inf, 0.0, 10.0]
    assert math.isnan(from_log10(math.nan))
    assert from_log10(np.array([400.0, -400.0, 1.0])).tolist() == [math.inf, 0.0, 10.0]
    assert from_log10(np.float64(400.0)) == math.inf


def test_a_failed_program_is_no_seed_that_never_reached_the_criterion() -> None:
    found = runs("criterion_step", {"gru": [100, None, 300], "lstm": [None, 100, None]}, broken={("gru", 1): "error"})
    steps = found.group_by("arm", maintain_order=True).agg(step=median_criterion_step())
    assert dict(steps.iter_rows()) == {"gru": 200.0, "lstm": math.inf}
