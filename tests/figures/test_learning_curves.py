from __future__ import annotations

from dataclasses import replace

import polars as pl

from pipeline.figures import learning_curves
from pipeline.quantities import GridTables


def curves_of(tables: GridTables, values: dict[int, list[float]], status: dict[int, str]) -> GridTables:
    rows = [
        {"arm": "gru", "length": 20, "seed": seed, "step": 10 * i, "metric": "validation_loss", "value": value}
        | {"status": status.get(seed, "ok")}
        for seed, own in values.items()
        for i, value in enumerate(own)
    ]
    return replace(tables, curves=pl.DataFrame(rows))


def test_a_frozen_replica_keeps_its_loss_and_a_diverged_one_counts_as_infinite(exact: list[GridTables]) -> None:
    values = {0: [4.0, 2.0, 1.0], 1: [4.0, 0.5], 2: [4.0]}
    drawn = learning_curves.table(curves_of(exact[0], values, {2: "diverged"}))
    assert drawn["median"].to_list() == [4.0, 2.0, 1.0]
    assert drawn["num_nonfinite"].to_list() == [0, 1, 1]


def test_no_median_where_most_replicas_diverged(exact: list[GridTables]) -> None:
    values = {0: [4.0, 2.0], 1: [4.0], 2: [4.0]}
    drawn = learning_curves.table(curves_of(exact[0], values, {1: "diverged", 2: "diverged"}))
    assert drawn["median"].to_list() == [4.0, None]


def test_title_says_who_reaches_the_criterion_and_who_does_not(exact: list[GridTables]) -> None:
    steps = pl.col("arm").replace_strict({"elman": None, "lstm": 30, "gru": 20}, return_dtype=pl.Int64)
    runs = exact[0].runs.with_columns(criterion_step=steps, num_steps=pl.lit(40, pl.Int64))
    assert learning_curves.title(replace(exact[0], runs=runs)) == (
        "Steps until the median seed reaches the criterion at T = 20: the GRU after 20 and the LSTM after 30; "
        "the Elman network not within 40 steps"
    )
    assert learning_curves.title(exact[1]).startswith("Median validation loss after training: ")


def test_of_many_arms_only_medians_and_crosses_are_drawn(many: GridTables) -> None:
    figure = learning_curves.draw(many)
    assert "lines are medians" in learning_curves.caption(many)
    longest = figure.axes[1]
    assert len(longest.get_lines()) == 12 + 3 + 2  # medians, diverged seeds, baseline and criterion


def test_title_of_many_arms_names_the_ends(many: GridTables) -> None:
    runs = many.runs.with_columns(criterion_step=pl.col("arm").rank("dense").cast(pl.Int64))
    said = learning_curves.title(replace(many, runs=runs))
    assert said.endswith("from «tanh, orthogonal ×1.00» after 1 to «tanh, orthogonal ×1.11» after 12")
