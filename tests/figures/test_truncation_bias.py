from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import truncation_bias
from pipeline.quantities import GridTables
from tests.synthetic_results import END_FACTORS


def test_error_phi_bound_and_fit_are_powers_of_the_factor(measured: GridTables) -> None:
    factor = END_FACTORS["elman/h"]
    drawn = truncation_bias.table(measured).filter(stage="end", arm="elman")
    K = drawn["backward_length"].unique().sort().to_list()[3]
    found = dict(drawn.filter(backward_length=K).select("quantity", "mean").iter_rows())
    power = K * math.log10(factor)
    assert found == pytest.approx(
        {
            "log10_error": power,
            "log10_phi": power,
            "log10_fit": power,
            "cosine": 1 - factor**K / 2,
            "log10_bound": power - math.log10(1 - factor**K),
        }
    )


def test_needed_length_is_the_first_that_stays_sound(measured: GridTables) -> None:
    needed = truncation_bias.needed(measured).filter(stage="end", arm="elman").row(0, named=True)
    lengths = measured.truncation.filter(length=20)["backward_length"].unique().sort().to_list()
    assert needed["backward_length"] == next(K for K in lengths if END_FACTORS["elman/h"] ** K < 0.1)
    assert (needed["longest"], needed["num_seeds"]) == (20, 3)


def with_errors(tables: GridTables, errors: dict[int, list[float]], bound: float = math.inf) -> GridTables:
    rows = [
        {"arm": "gru", "length": 20, "status": "ok", "seed": seed, "step": 9, "backward_length": K, "cosine": 1.0}
        | {"relative_error": error, "log10_phi": -1.0, "decay_factor": 0.5, "relative_bias_bound": bound}
        for K, own in errors.items()
        for seed, error in enumerate(own)
    ]
    return replace(tables, truncation=pl.DataFrame(rows))


@pytest.mark.parametrize(
    ("errors", "title"),
    [
        (
            {1: [0.5, 0.4], 5: [0.05, 0.05], 9: [0.01, 0.02]},
            "After training a gradient wrong by less than 10 % in every seed takes a backward length of at least 5 "
            "in the GRU",
        ),
        (
            {1: [0.5, 0.4], 5: [0.05, 0.05], 9: [0.01, 0.2]},  # the last one is wrong again
            "After training no truncation up to K = 9 gives a gradient wrong by less than 10 % in every seed",
        ),
        (
            {1: [0.5], 5: [math.nan]},
            "After training no truncation up to K = 5 gives a gradient wrong by less than 10 % in the only seed",
        ),
    ],
)
def test_title_says_what_is_long_enough(exact: list[GridTables], errors: dict[int, list[float]], title: str) -> None:
    assert truncation_bias.title(with_errors(exact[0], errors)) == title


def test_the_bound_is_checked_where_it_says_something(exact: list[GridTables]) -> None:
    errors = {1: [0.5, 0.4], 5: [0.05, 0.3]}
    assert "The bound holds in 1 of 4 measurements." in truncation_bias.caption(with_errors(exact[0], errors, 0.1))
    silent = with_errors(exact[0], errors)
    assert "The bound holds" not in truncation_bias.caption(silent)
    assert truncation_bias.table(silent).filter(quantity="log10_bound")["mean"].to_list() == [None, None]


def test_an_error_of_zero_is_in_no_mean(exact: list[GridTables]) -> None:
    tables = with_errors(exact[0], {5: [0.1, 0.0]})
    row = truncation_bias.table(tables).filter(quantity="log10_error").row(0, named=True)
    assert (row["mean"], row["num_seeds"], row["num_nonfinite"]) == (pytest.approx(-1.0), 1, 1)


def test_every_row_says_what_it_shows(measured: GridTables) -> None:
    titles = [ax.get_title(loc="left") for ax in truncation_bias.draw(measured).axes]
    assert titles == [
        "a  At initialisation",
        "b  At the end of training",
        "c  Cosine with the full gradient",
        "d",
        "e  Norm of the gradient K timesteps back",
        "f",
    ]
