from __future__ import annotations

import polars as pl
import pytest

from pipeline.figures.findings import NOTHING_FINISHED, best_and_next, by_sign, contrast, extremes
from pipeline.quantities import QUANTITIES

GAP, ERROR, LOSS = (QUANTITIES[name] for name in ("layer_gap", "test_error", "test_loss"))
"""A quantity on a linear scale, a share, and one whose rows are logarithms."""

VALUES = {("a", 0): 1.0, ("a", 1): 1.2, ("b", 0): 3.0, ("b", 1): 3.21, ("c", 0): 9.0, ("c", 1): 9.22}


def frame(values: dict[tuple[str, int], float | None]) -> pl.DataFrame:
    rows = [(arm, seed, value) for (arm, seed), value in values.items()]
    return pl.DataFrame(rows, schema={"arm": pl.String, "seed": pl.Int64, "value": pl.Float64}, orient="row")


def test_a_kind_is_the_mean_over_its_arms_seed_by_seed() -> None:
    kinds = contrast(GAP, frame(VALUES), ["a", "b"])
    assert kinds.select("kind", "mean", "num_seeds", "apart").rows() == [
        ("first", pytest.approx(2.1025), 2, True),
        ("other", pytest.approx(9.11), 2, True),
    ]


def test_arms_that_cross_are_not_apart_nor_is_one_seed() -> None:
    crossing = {("a", 0): 1.0, ("a", 1): 9.0, ("c", 0): 8.0, ("c", 1): 2.0}
    assert contrast(GAP, frame(crossing), ["a"])["apart"].to_list() == [False, False]
    one = {key: value for key, value in VALUES.items() if key[1] == 0}
    assert contrast(GAP, frame(one), ["a"])["apart"].to_list() == [False, False]


def test_what_is_not_finite_is_in_no_kind() -> None:
    kinds = contrast(GAP, frame(VALUES | {("c", 0): float("-inf"), ("c", 1): float("nan")}), ["a", "b"])
    assert kinds.select("kind", "apart").rows() == [("first", False)]


WORDS = {"below": "falls in {arms}", "above": "rises in {arms}", "within": "stays in {arms}", "unsure": "? {arms}"}


@pytest.mark.parametrize(
    ("interval", "finding"),
    [
        ((-3.0, -2.0), "falls in a"),
        ((2.0, 3.0), "rises in a"),
        ((-0.5, 0.5), "stays in a"),
        ((-2.0, 0.0), "? a"),
        ((-2.0, 2.0), "? a"),
        ((None, None), "? a"),
    ],
)
def test_the_whole_interval_says_on_which_side_an_arm_is(
    interval: tuple[float | None, float | None], finding: str
) -> None:
    means = pl.DataFrame({"arm": ["a"], "mean": [0.0], "low": interval[:1], "high": interval[1:]})
    assert by_sign(means, WORDS, bounds=(-1.0, 1.0)) == finding


def test_arms_of_a_side_are_joined_and_counted_and_one_without_a_mean_is_not_named() -> None:
    means = pl.DataFrame({"arm": list("abcde"), "mean": [1.0, 1.0, 1.0, 1.0, None], "low": 0.5, "high": 1.5})
    assert by_sign(means, WORDS) == "rises in a, b and 2 others"
    assert by_sign(means, {"unsure": "? {arms}"}, most=4) == "? a, b, c and d"  # a side without words counts as unsure


def test_ties_are_no_lead_and_the_first_arm_is_named_first() -> None:
    rows = frame({("b", 0): 1.0, ("b", 1): 2.0, ("a", 0): 1.0, ("a", 1): 2.0})
    finding = best_and_next(GAP, rows, "loss", str, lead="Lowest")
    assert finding == "Inconclusive: no difference in loss is established between b (1.5) and a (1.5)"


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ({("a", 0): None}, NOTHING_FINISHED),
        ({("a", 0): 1.0, ("b", 0): None}, "Only a (1.0) has a loss"),
        ({("a", 0): 1.0, ("b", 0): 2.0}, "One pair of seeds, no interval: a (1.0) against b (2.0) in loss"),
        (VALUES, "Lowest: a (1.1), ahead of b (3.1) in a comparison paired by seed"),
    ],
)
def test_a_lead_needs_an_interval(values: dict[tuple[str, int], float | None], finding: str) -> None:
    rows = frame(values)
    text = "{:.1f}".format
    assert best_and_next(GAP, rows, "loss", text, lead="Lowest") == finding


def test_extremes_are_apart_where_their_paired_difference_is() -> None:
    rows = frame(VALUES)
    low, high, is_apart = extremes(GAP, rows) or ({}, {}, False)
    assert (low["arm"], high["arm"], is_apart) == ("a", "c", True)
    alone = frame({("a", 0): 1.0})
    low, high, is_apart = extremes(GAP, alone) or ({}, {}, True)
    assert (low["arm"], high["arm"], is_apart) == ("a", "a", False)
    nothing = frame({("a", 0): None})
    assert extremes(GAP, nothing) is None


ALIKE = {("a", seed): 0.02 for seed in range(5)} | {("b", seed): 0.9 for seed in range(5)}


def test_shares_that_differ_alike_in_every_seed_are_apart_by_newcombes_interval() -> None:
    rows = frame(ALIKE)
    assert best_and_next(ERROR, rows, "error", "{:.2f}".format, lead="Fewest").startswith(
        "Fewest: a (0.02), ahead of b"
    )
    assert (extremes(ERROR, rows) or ({}, {}, False))[2]
    assert contrast(ERROR, rows, ["a"])["apart"].all()
    means = frame({key: 10 * value for key, value in ALIKE.items()})
    assert best_and_next(GAP, means, "gap", str, lead="Lowest").startswith("Inconclusive")  # seeds alike: no interval


def test_a_lead_of_logarithms_is_said_in_geometric_means() -> None:
    rows = frame({("a", 0): 0.0, ("a", 1): 2.0, ("b", 0): 3.0, ("b", 1): 5.0001})
    finding = best_and_next(LOSS, rows, "loss", "{:.0f}".format, lead="Lowest")
    assert finding == "Lowest: a (10), ahead of b (10001) in a comparison paired by seed"
