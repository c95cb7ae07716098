from __future__ import annotations

import math
import re
from collections.abc import Callable

import polars as pl
import pytest

from pipeline.core.clipping import Ledger
from pipeline.publish.views import MAX_POINTS, history
from pipeline.quantities.settings import OF_METRIC
from pipeline.results import SCHEMAS
from tests.publish.conftest import curve
from tests.quantities.conftest import geometric, shares, student
from tests.test_architecture import ROOT


def curves(points: list[tuple[int, int, str, float]]) -> pl.DataFrame:
    rows = [{"trial_id": "id"} | curve(*point) for point in points]
    return pl.DataFrame(rows, schema=SCHEMAS["curves"])


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("loss", [1.0, 2.0, 4.0, 9.0], geometric),
        ("grad_norm", [1e-3, 2.0, 4.0, 9e3], geometric),
        ("sigma_max", [0.9, 1.0, 1.1, 8.0], geometric),
        ("local_smoothness", [0.1, 1.0, 3.0, 80.0], geometric),
        ("error", [0.0, 0.0, 0.01, 0.2], shares),
        ("token_error", [0.0, 0.0, 0.0, 0.0], shares),
        ("attention_entropy_nats", [1.0, 1.2, 0.8, 1.1], student),
    ],
)
def test_mean_and_interval_are_of_the_kind_of_the_metrics_quantity(
    metric: str, values: list[float], expected: Callable[[list[float]], tuple[float, float, float]]
) -> None:
    (row,) = history(curves([(seed, 5, metric, value) for seed, value in enumerate(values)]))
    found = [row[f"{metric}/{part}"] for part in ("mean", "low", "high")]
    assert row["step"] == 5
    assert found == pytest.approx(expected(values), rel=1e-9)


def test_the_interval_of_a_cosine_ends_at_1() -> None:
    (row,) = history(curves([(seed, 1, "clip_cosine", value) for seed, value in enumerate([0.4, 1.0, 1.0])]))
    assert row["clip_cosine/high"] == 1.0


def test_a_loss_of_zero_has_no_logarithm_and_is_counted_as_missing() -> None:
    (row,) = history(curves([(0, 1, "loss", 2.0), (1, 1, "loss", 0.0)]))
    assert row == {"step": 1, "loss/mean": pytest.approx(2.0), "loss/num_seeds": 1}


def test_every_metric_that_training_writes_has_a_kind() -> None:
    """Those named where the core writes a curve, and those that clipping and attention leave."""
    text = "".join(path.read_text() for path in (ROOT / "pipeline" / "core").rglob("*.py"))
    named = re.findall(r'\.curve\(\w+, "(\w+)"', text) + re.findall(r'measured = \{"(\w+)"|measured\["(\w+)"\]', text)
    written = {name for found in named for name in ([found] if isinstance(found, str) else filter(None, found))}
    assert written == OF_METRIC.keys() - {*Ledger._fields, "teacher_forcing_probability"}
    assert OF_METRIC.keys() >= {*Ledger._fields}


def test_what_no_quantity_says_the_kind_of_has_no_interval() -> None:
    (row,) = history(curves([(0, 1, "a", 1.0), (1, 1, "a", 2.0)]))
    assert row == {"step": 1, "a/mean": 1.5}


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert history(curves([(7, 1, "grad_norm", 3.0)])) == [{"step": 1, "grad_norm/mean": pytest.approx(3.0)}]


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
    assert row == pytest.approx({"step": 0, "sigma_max/recurrent/0/forward/h/mean": 1.0, "loss/test/200/mean": 2.0})
