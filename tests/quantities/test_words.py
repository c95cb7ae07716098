from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.quantities.words import (
    capitalised,
    count,
    interval,
    join,
    join_first,
    left_out,
    name_of,
    number,
    outcomes,
    seeds_of,
    with_article,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (1234.5, "1234"),
        (2.1e-6, "2.10e-06"),
        (0, "0"),
        (None, "n/a"),
        (math.nan, "n/a"),
        (math.inf, "inf"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_names_are_for_people() -> None:
    assert (name_of("lstm"), name_of("gru, threshold=1"), name_of("new")) == ("LSTM", "GRU, threshold=1", "new")
    assert (name_of("clip + Ω"), name_of("clip + Ω, lstm, length=5")) == ("clip + Ω", "clip + Ω, LSTM, length=5")
    assert (with_article("elman"), with_article("gru")) == ("the Elman network", "the GRU")
    labels = ("clip + Ω", "clip + Ω, gru", "gru, a=1")
    assert tuple(map(with_article, labels)) == ("«clip + Ω»", "«clip + Ω, GRU»", "«GRU, a=1»")


def test_counts_and_lists_are_english() -> None:
    assert (join(["a"]), join(["a", "b", "c"])) == ("a", "a, b and c")
    assert (count(1, "seed"), count(2, "seed")) == ("1 seed", "2 seeds")


def test_outcomes_are_counted_by_status() -> None:
    runs = pl.DataFrame({"status": ["ok", "diverged", "error", "diverged"]})
    assert outcomes(runs, "left out") == "Of 4 replicas, 2 diverged and 1 failed with an error: left out."
    assert outcomes(runs.head(1), "left out") == "The only replica ended ok."
    assert outcomes(pl.concat([runs.head(1)] * 3), "left out") == "All 3 replicas ended ok."


def test_seeds_and_values_left_out_are_said() -> None:
    drawn = pl.DataFrame({"num_seeds": [3, 5], "num_nonfinite": [0, 2]})
    assert (seeds_of(drawn), seeds_of(drawn.tail(1)), seeds_of(drawn.clear())) == (
        "3 to 5 seeds",
        "5 seeds",
        "no seeds",
    )
    assert left_out(drawn) == " 2 values that are not finite left out of means."
    assert left_out(drawn.head(1)) == ""


def test_long_lists_are_cut() -> None:
    assert join_first(["a", "b", "c"]) == "a, b and c"
    assert join_first(["a", "b", "c", "d", "e"]) == "a, b and 3 others"


def test_an_interval_of_one_seed_is_a_number() -> None:
    assert interval({"mean": 0.5, "low": None, "high": None}) == "0.50"
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.50 [0.25, 0.75]"
    assert interval({"mean": 0.5, "low": 0.25, "high": 0.75}, 3, scale=100) == "50.0 [25.0, 75.0]"


def test_a_sentence_begins_with_a_large_letter_and_keeps_the_others() -> None:
    assert capitalised("the GRU") == "The GRU"
    assert capitalised("") == ""


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"mean": 0.5, "low": 0.5, "high": 0.5}, "0.50 (exact)"),
        ({"mean": 0.5, "low": None, "high": None}, "0.50"),
        ({"mean": 0.99999, "low": 0.4, "high": 1.0}, "1.0 [0.40, 1.0]"),
    ],
)
def test_an_interval_of_width_zero_is_called_exact(row: dict[str, float | None], text: str) -> None:
    assert interval(row) == text
