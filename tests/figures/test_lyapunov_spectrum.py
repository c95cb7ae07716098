from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import lyapunov_spectrum
from pipeline.quantities import GridTables
from tests.synthetic_results import END_FACTORS, START_FACTORS


def test_the_spectrum_is_of_all_timesteps_and_counts_from_one(measured: GridTables) -> None:
    drawn = lyapunov_spectrum.table(measured).filter(stage="end", arm="gru")
    assert drawn["index"].to_list() == [1, 2, 3, 4]
    largest = math.log(END_FACTORS["gru/h"]) + 0.1 / 20
    assert drawn["mean"].to_list() == pytest.approx([largest - 0.1 * index for index in range(4)])
    assert drawn["standard_error"].to_list() == pytest.approx([0.02 / math.sqrt(20)] * 4)


def test_the_trace_approaches_the_exponent(measured: GridTables) -> None:
    trace = lyapunov_spectrum.convergence(measured).filter(stage="initialisation", arm="elman")
    expected = [math.log(START_FACTORS["elman/h"]) + 0.1 / t for t in trace["timestep"]]
    assert trace["mean"].to_list() == pytest.approx(expected)


def test_title_says_a_sign_where_the_interval_has_one(measured: GridTables) -> None:
    assert lyapunov_spectrum.title(measured).startswith(
        "After training the largest Lyapunov exponent is negative in the Elman network (-0.16), the LSTM (-0.010) and "
    )
    value = pl.col("lyapunov_nats_per_timestep")
    signs = pl.when(pl.col("arm") == "gru").then(-value).when(pl.col("arm") == "lstm").then(pl.col("seed") - 1.0)
    mixed = measured.lyapunov.with_columns(lyapunov_nats_per_timestep=signs.otherwise(value))
    assert lyapunov_spectrum.title(replace(measured, lyapunov=mixed)) == (
        "After training the largest Lyapunov exponent is negative in the Elman network (-0.16), positive in the GRU "
        "(0.020), of undecided sign in the LSTM (0)"
    )


def test_one_seed_has_no_sign(measured: GridTables) -> None:
    one = measured.lyapunov.filter(pl.col("seed") == 0, pl.col("arm") == "gru")
    assert "of undecided sign in the GRU" in lyapunov_spectrum.title(replace(measured, lyapunov=one))
