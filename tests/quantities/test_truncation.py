from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.errors import ConfigError
from pipeline.quantities import Grid
from pipeline.quantities.truncation import (
    needed_backward_length,
    truncated_gradients,
    truncation_cosine,
    truncation_error,
)
from tests.quantities.conftest import value
from tests.synthetic_decoding import with_tables
from tests.synthetic_dynamics import BACKWARD_LENGTHS, FACTORS, T, dynamical_grid


def with_errors(tables: Grid, errors: dict[int, list[float]], bound: float = math.inf) -> Grid:
    """Return a grid in which only the GRU was measured, after training, with errors by backward length and seed."""
    rows = [
        {"arm": "gru", "length": T, "status": "ok", "seed": seed, "step": 9, "backward_length": K, "cosine": 1.0}
        | {"relative_error": error, "log10_phi": -1.0, "decay_factor": 0.5, "relative_bias_bound": bound}
        for K, own in errors.items()
        for seed, error in enumerate(own)
    ]
    return with_tables(tables, truncation=pl.DataFrame(rows))


def test_error_phi_bound_and_fit_are_powers_of_the_factor() -> None:
    factor, K = FACTORS["elman"][1], int(BACKWARD_LENGTHS[3])
    tables = dynamical_grid()
    row = truncated_gradients(tables).filter(stage="end", arm="elman", backward_length=K, seed=0).row(0, named=True)
    power = K * math.log10(factor)
    found = [row[name] for name in ("log10_error", "log10_phi", "log10_fit", "log10_bound")]
    assert found == pytest.approx([power, power, power, power - math.log10(1 - factor**K)])
    one = {"stage": "end", "arm": "elman", "backward_length": K, "seed": 0}
    assert truncation_error.of(tables).filter(**one)["value"].to_list() == pytest.approx([power])
    assert truncation_cosine.of(tables).filter(**one)["value"].to_list() == pytest.approx([1 - factor**K / 2])


def test_the_needed_length_is_the_first_from_which_on_errors_stay_small() -> None:
    row = needed_backward_length(dynamical_grid()).filter(stage="end", arm="elman").row(0, named=True)
    assert row["backward_length"] == next(K for K in BACKWARD_LENGTHS if FACTORS["elman"][1] ** K < 0.1) == 20
    assert (row["longest"], row["num_seeds"]) == (20, 3)


@pytest.mark.parametrize(
    ("errors", "needed"),
    [
        ({1: [0.5, 0.4], 5: [0.05, 0.05], 9: [0.01, 0.02]}, 5),
        ({1: [0.5, 0.4], 5: [0.05, 0.05], 9: [0.01, 0.2]}, None),  # the last one is wrong again
        ({1: [0.5], 5: [math.nan]}, None),
    ],
)
def test_every_seed_counts(errors: dict[int, list[float]], needed: int | None) -> None:
    assert needed_backward_length(with_errors(dynamical_grid(), errors))["backward_length"].to_list() == [needed]


def test_a_backward_length_is_compared_as_a_number_and_else_refused() -> None:
    of = {"quantity": "truncation_error", "arm": "gru", "stage": "end"}
    found = value(dynamical_grid(), **of, backward_length="5")
    assert found.num_seeds == 3
    assert found == value(dynamical_grid(), **of, backward_length=5)
    with pytest.raises(ConfigError, match=r"^truncation_error: backward_length: expected a number; got 'five'$"):
        value(dynamical_grid(), **of, backward_length="five")


def test_an_infinite_bound_says_nothing() -> None:
    silent = with_errors(dynamical_grid(), {1: [0.5, 0.4]})
    assert truncated_gradients(silent)["log10_bound"].is_null().all()
