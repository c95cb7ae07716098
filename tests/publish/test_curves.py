from __future__ import annotations

import math

import polars as pl
import pytest
from scipy.stats import t as student_t

from pipeline.publish.views import MAX_POINTS, history
from pipeline.results import SCHEMAS
from tests.publish.conftest import curve


def curves(points: list[tuple[int, int, str, float]]) -> pl.DataFrame:
    rows = [{"trial_id": "id"} | curve(*point) for point in points]
    return pl.DataFrame(rows, schema=SCHEMAS["curves"])


def test_interval_is_students_t_over_seeds() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    (row,) = history(curves([(seed, 5, "validation_loss", value) for seed, value in enumerate(values)]))
    low, high = student_t.interval(0.95, df=3, loc=4.0, scale=pl.Series(values).std() / 2)
    assert row["step"] == 5
    assert row["validation_loss/mean"] == 4.0
    assert row["validation_loss/low"] == pytest.approx(low, rel=1e-12)
    assert row["validation_loss/high"] == pytest.approx(high, rel=1e-12)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert history(curves([(7, 1, "grad_norm", 3.0)])) == [{"step": 1, "grad_norm/mean": 3.0}]


def test_metrics_of_a_step_share_a_row_and_steps_are_in_order() -> None:
    rows = history(curves([(0, 10, "a", 1.0), (0, 2, "a", 2.0), (0, 10, "b", 3.0)]))
    assert rows == [{"step": 2, "a/mean": 2.0}, {"step": 10, "a/mean": 1.0, "b/mean": 3.0}]


def test_number_of_seeds_is_told_only_where_one_is_missing() -> None:
    first, second = history(curves([(0, 1, "a", 1.0), (1, 1, "a", 1.0), (0, 2, "a", 1.0)]))
    assert "a/num_seeds" not in first
    assert second["a/num_seeds"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_counted_as_missing(bad: float) -> None:
    assert history(curves([(0, 1, "a", 2.0), (1, 1, "a", bad)])) == [{"step": 1, "a/mean": 2.0, "a/num_seeds": 1}]
    assert history(curves([(0, 1, "a", bad)])) == [{"step": 1, "a/num_seeds": 0}]


@pytest.mark.parametrize("num_steps", [1, MAX_POINTS, MAX_POINTS + 1, 2 * MAX_POINTS, 1500])
def test_long_curves_are_thinned_with_first_and_last_kept(num_steps: int) -> None:
    steps = [row["step"] for row in history(curves([(0, step, "a", 0.0) for step in range(1, num_steps + 1)]))]
    assert len(steps) == min(num_steps, MAX_POINTS)
    assert (steps[0], steps[-1]) == (1, num_steps)
    gaps = {after - before for before, after in zip(steps, steps[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_sparse_metrics_keep_every_point_beside_long_ones() -> None:
    long = [(0, step, "grad_norm", 0.0) for step in range(1, 1001)]
    rows = history(curves([*long, *((0, step, "validation_loss", 1.0) for step in range(0, 1001, 100))]))
    assert [row["step"] for row in rows if "validation_loss/mean" in row] == list(range(0, 1001, 100))


def test_a_chart_is_named_by_all_that_its_rows_say() -> None:
    about = {"part": "recurrent", "layer": 0, "direction": "forward", "gate": "h"}
    rows = [curve(0, 0, "sigma_max", 1.0, **about), curve(0, 0, "loss", 2.0, split="test", tested_length=200)]
    (row,) = history(pl.DataFrame([{"trial_id": "id"} | row for row in rows], schema=SCHEMAS["curves"]))
    assert row == {"step": 0, "sigma_max/recurrent/0/forward/h/mean": 1.0, "loss/test/200/mean": 2.0}
