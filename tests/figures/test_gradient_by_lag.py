from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import gradient_by_lag
from pipeline.quantities import GridTables
from tests.figures.conftest import grids
from tests.synthetic_results import END_FACTORS, START_FACTORS, Shape, Variant


def test_known_factors_are_recovered(exact: list[GridTables]) -> None:
    rates = gradient_by_lag.rates(exact[0])
    for stage, factors in (("initialisation", START_FACTORS), ("end", END_FACTORS)):
        for series, factor in factors.items():
            arm, quantity = series.split("/")
            row = rates.filter(stage=stage, arm=arm, quantity=quantity).row(0, named=True)
            assert 10 ** row["mean"] == pytest.approx(factor, rel=1e-9)
            assert row["num_seeds"] == 3


def test_norms_are_relative_to_lag_zero_at_the_longest_length(exact: list[GridTables]) -> None:
    drawn = gradient_by_lag.table(exact[0]).filter(stage="end", arm="lstm", quantity="c")
    assert drawn["lag"].to_list() == list(range(20))
    assert drawn["mean"].to_list() == pytest.approx([lag * math.log10(0.985) for lag in range(20)], abs=1e-12)


def test_title_states_the_fastest_and_the_slowest_decay(exact: list[GridTables]) -> None:
    fast, slow = (f"{-1 / math.log10(END_FACTORS[series]):.0f}" for series in ("elman/h", "lstm/c"))
    assert gradient_by_lag.title(exact[0]) == (
        f"After training at T = 20 the gradient loses a factor 10 every {fast} timesteps in the Elman network's h, "
        f"every {slow} in the LSTM's c"
    )


def test_title_names_states_without_an_established_decay() -> None:
    shape = Shape(cells=("elman", "gru"), digits_length=None, end_factors={"elman/h": 0.85, "gru/h": 1.02})
    assert gradient_by_lag.title(grids(shape)[0]).endswith("; no decay is established in the GRU's h")


def test_title_names_states_that_keep_the_gradient() -> None:
    shape = Shape(cells=("elman", "gru"), digits_length=None, end_factors={"elman/h": 0.85, "gru/h": 1.001}, noise=0.0)
    assert gradient_by_lag.title(grids(shape)[0]).endswith("; it keeps its size in the GRU's h")


def test_title_of_growth_says_that_no_decay_is_shown() -> None:
    shape = Shape(cells=("elman",), digits_length=None, end_factors={"elman/h": 1.1})
    assert gradient_by_lag.title(grids(shape)[0]) == (
        "After training at T = 20 no gradient is shown to decay with lag (every interval contains zero or growth)"
    )


def test_title_of_one_seed_is_inconclusive() -> None:
    assert "one seed has no interval" in gradient_by_lag.title(grids(Shape(num_seeds=1, digits_length=None))[0])


def test_diverged_replica_is_in_the_first_panel_only(broken: list[GridTables]) -> None:
    drawn = gradient_by_lag.table(broken[0]).filter(arm="elman", lag=3)
    assert dict(drawn.select("stage", "num_seeds").iter_rows()) == {"initialisation": 3, "end": 2}
    assert "1 diverged and 1 ran out of time" in gradient_by_lag.caption(broken[0])


def test_zero_and_nan_are_counted(exact: list[GridTables]) -> None:
    adding = exact[0]
    seed, at = pl.col("seed") == 0, pl.col("timestep") == 5
    norm = pl.when(seed & at).then(-math.inf).when((pl.col("seed") == 1) & at).then(math.nan)
    traces = adding.traces.with_columns(log10_norm=norm.otherwise(pl.col("log10_norm")))
    drawn = gradient_by_lag.table(replace(adding, traces=traces)).filter(lag=15, stage="end", arm="gru")
    assert drawn.select("num_seeds", "num_nonfinite").rows() == [(1, 2)]


def test_many_arms_are_drawn_by_one_state_each(many: GridTables) -> None:
    figure = gradient_by_lag.draw(many)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "tanh, orthogonal ×1.00 h  ×0.800 → ×0.800"
    assert labels[3] == "tanh, orthogonal ×1.03 h  ×0.800 → no fit"  # every seed diverged
    assert len(labels) == 12
    variants = {f"bias {i}": Variant("lstm", 0.5, 0.9) for i in range(5)}
    slopes = gradient_by_lag.rates(grids(Shape(variants=variants, digits_length=None))[0])
    assert gradient_by_lag.drawn_series(slopes)["quantity"].unique().to_list() == ["c"]


def test_title_of_many_arms_is_short(many: GridTables) -> None:
    fast, slow = (f"{-1 / math.log10(factor):.0f}" for factor in (0.80, 0.91))
    assert gradient_by_lag.title(many) == (
        f"After training at T = 20 the gradient loses a factor 10 every {fast} timesteps in "
        f"«tanh, orthogonal ×1.00»'s h, every {slow} in «tanh, orthogonal ×1.11»'s h"
    )
