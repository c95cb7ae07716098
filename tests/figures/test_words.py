from __future__ import annotations

import math

import polars as pl
import pytest
from pipeline.figures.words import count, few, left_out, listed, name_of, number, outcomes, seeds_of, series_name, the


@pytest.mark.parametrize(
    ("value", "said"),
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
def test_numbers_have_three_significant_digits(value: float | None, said: str) -> None:
    assert number(value) == said


def test_names_are_for_people() -> None:
    assert (name_of("lstm"), name_of("gru, threshold=1"), name_of("new")) == ("LSTM", "GRU, threshold=1", "new")
    assert (the("elman"), the("gru")) == ("the Elman network", "the GRU")
    assert (name_of("clip + Ω"), name_of("clip + Ω, lstm, length=5")) == ("clip + Ω", "clip + Ω, LSTM, length=5")
    assert (the("clip + Ω"), the("clip + Ω, gru"), the("gru, a=1")) == ("«clip + Ω»", "«clip + Ω, GRU»", "«GRU, a=1»")
    assert series_name("clip + Ω, lstm", "c") == "clip + Ω, LSTM c"
    assert (listed(["a"]), listed(["a", "b", "c"]), count(1, "seed"), count(2, "seed")) == (
        "a",
        "a, b and c",
        "1 seed",
        "2 seeds",
    )


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
    assert few(["a", "b", "c"]) == "a, b and c"
    assert few(["a", "b", "c", "d", "e"]) == "a, b and 3 others"
