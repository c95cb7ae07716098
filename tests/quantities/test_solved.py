from __future__ import annotations

import polars as pl
import pytest

from pipeline.quantities.solved import has_criterion, longest_solved, solved_share


def runs(won: dict[int, list[bool | None]]) -> pl.DataFrame:
    rows = [("gru", length, seed, reached) for length, own in won.items() for seed, reached in enumerate(own)]
    schema = {"arm": pl.String, "length": pl.Int64, "seed": pl.Int64, "reached_criterion": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(status=pl.lit("ok"))


@pytest.mark.parametrize(
    ("won", "longest"),
    [
        ({10: [True, True, False], 20: [True, True, True], 40: [False, False, True]}, 20),
        ({10: [True, True, True], 20: [False, False, False], 40: [True, True, True]}, 10),  # a gap ends it
        ({10: [True, False, None, False]}, None),
        ({10: [True, False]}, None),  # half is not most
    ],
)
def test_longest_length_that_most_seeds_solve(won: dict[int, list[bool | None]], longest: int | None) -> None:
    assert longest_solved(runs(won)).rows() == [("gru", longest)]


def test_shares_are_by_length() -> None:
    shares = solved_share(runs({20: [True, False], 10: [True, True]}))
    assert shares.select("length", "share").rows() == [(10, 1.0), (20, 0.5)]


def test_a_program_that_failed_says_nothing_about_its_cell() -> None:
    failed = pl.when(pl.col("length") == 10).then(pl.lit("error")).otherwise("status")
    shares = solved_share(runs({10: [None, None], 20: [True, False]}).with_columns(status=failed))
    assert shares.select("length", "share", "num_seeds").rows() == [(20, 0.5, 2)]


def test_criterion_is_known_from_the_spec() -> None:
    assert has_criterion(pl.DataFrame({"training.stop_below": [None, 0.1]}))
    assert not has_criterion(pl.DataFrame({"training.stop_below": [None]}, schema={"training.stop_below": pl.Float64}))
    assert not has_criterion(pl.DataFrame({"seed": [0]}))
