from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import error_by_token
from pipeline.quantities import GridTables

ERRORS = {("elman", "left"): 0.02, ("elman", "right"): 0.7, ("lstm", "left"): 0.01, ("lstm", "right"): 0.1}


def with_errors(tables: GridTables, errors: dict[tuple[str, str], float], step: float = 0.01) -> GridTables:
    """The grid with an error for each kind of token: the one given, plus `step` for each seed."""
    runs = tables.at_longest(tables.runs).select("trial_id", "seed", "arm", "length", "status")
    parts = [
        runs.filter(arm=arm).with_columns(
            step=pl.lit(40, pl.Int64), metric=pl.lit(f"test_error[{group}]"), value=error + step * pl.col("seed")
        )
        for (arm, group), error in errors.items()
    ]
    rows = pl.concat(parts).select(tables.curves.columns)
    return replace(tables, curves=pl.concat([tables.curves, rows]))


def test_it_applies_where_errors_were_told_by_kind_of_token(exact: list[GridTables]) -> None:
    assert not error_by_token.applies(exact[0])
    assert error_by_token.applies(with_errors(exact[0], ERRORS))
    lengths = with_errors(exact[0], {("elman", "T=200"): 0.1})  # another length is no kind of token
    assert not error_by_token.applies(lengths)


def test_means_are_over_seeds_by_kind_and_arm(exact: list[GridTables]) -> None:
    drawn = error_by_token.table(with_errors(exact[0], ERRORS))
    means = {(row["arm"], row["group"]): row["mean"] for row in drawn.iter_rows(named=True)}
    assert means == {key: pytest.approx(error + 0.01) for key, error in ERRORS.items()}  # seeds 0, 1, 2
    assert drawn["num_seeds"].to_list() == [3] * 4


def test_the_title_names_the_kind_where_arms_differ_most(exact: list[GridTables]) -> None:
    tables = with_errors(exact[0], ERRORS)
    assert (
        error_by_token.title(tables)
        == "The LSTM is ahead on right tokens: 11.0 % against 71.0 % of the Elman network are wrong"
    )
    same = dict.fromkeys(ERRORS, 0.3)
    assert error_by_token.title(with_errors(exact[0], same)).startswith("Inconclusive: for no kind of token")
    one = {key: error for key, error in ERRORS.items() if key[0] == "elman"}
    assert error_by_token.title(with_errors(exact[0], one)) == "Most errors of the Elman network are on right tokens"


def test_a_panel_for_each_kind(exact: list[GridTables]) -> None:
    figure = error_by_token.draw(with_errors(exact[0], ERRORS))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a  left tokens", "b  right tokens"]
    caption = error_by_token.caption(with_errors(exact[0], ERRORS))
    assert "means over 3 seeds with 95 % Student-t interval" in caption
    assert "left, Elman 0.030" in caption
