from __future__ import annotations

import math
import re
from collections.abc import Callable

import polars as pl
import pytest

from pipeline.core.clipping import Ledger
from pipeline.publish.media import MAX_STEPS
from pipeline.publish.views import MAX_POINTS
from pipeline.publish.views import history as history_of
from pipeline.quantities.settings import OF_METRIC
from pipeline.results import SCHEMAS
from tests.publish.conftest import curve
from tests.quantities.conftest import geometric, shares, student
from tests.test_architecture import ROOT


def curves(points: list[tuple[int, int, str, float]]) -> pl.DataFrame:
    rows = [{"trial_id": "id"} | curve(*point) for point in points]
    return pl.DataFrame(rows, schema=SCHEMAS["curves"])


def history(curves: pl.DataFrame, max_steps: int = 100, until: int | None = None) -> list[dict[str, float]]:
    """The history without the lines of single seeds, of which a test of its own is."""
    training = {"max_steps": max_steps, "evaluate_every": 10}
    spec = {"training": training, "diagnostics": {"num_traces": 3}, "seeds": curves["seed"].unique().to_list()}
    rows = history_of(curves, spec, until)
    return [{name: value for name, value in row.items() if not name.startswith("seeds/")} for row in rows]


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("loss", [1.0, 2.0, 4.0, 9.0], geometric),
        ("grad_norm", [1e-3, 2.0, 4.0, 9e3], geometric),
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


@pytest.mark.parametrize("num_steps", [1, MAX_POINTS, MAX_POINTS + 1, 2 * MAX_POINTS, 1500, 20_000])
def test_long_curves_are_thinned_with_first_and_last_kept(num_steps: int) -> None:
    rows = history(curves([(0, step, "a", 0.0) for step in range(1, num_steps + 1)]), num_steps)
    steps = [row["step"] for row in rows]
    assert len(steps) <= 2 * MAX_POINTS + MAX_STEPS + 2
    assert (steps[0], steps[-1]) == (1, num_steps)
    gaps = [after - before for before, after in zip(steps, steps[1:], strict=False)]
    assert max(gaps, default=0) <= math.ceil(num_steps / MAX_POINTS)


@pytest.mark.parametrize("until", [1, 2, 7, 500, 1499])
@pytest.mark.parametrize("ended", [1500, 1203])
def test_what_is_seen_of_a_trial_under_way_is_the_beginning_of_what_is_seen_in_the_end(until: int, ended: int) -> None:
    """Also where it ends early, at its criterion."""
    values = [
        (seed, step, "grad_norm", math.exp(seed - step / 50)) for seed in (2, 0, 1) for step in range(1, ended + 1)
    ]
    whole = curves([*values, *((seed, step, "loss", 1.0 + seed) for seed in range(3) for step in range(0, ended, 10))])
    beginning = history(whole.filter(pl.col("step") < until), 1500, until)
    in_the_end = history(whole.sort("metric", "seed", "step"), 1500)
    assert beginning == in_the_end[: len(beginning)]
    assert [row["step"] for row in in_the_end[len(beginning) :]][0] >= min(until, ended)


def test_evaluations_keep_every_point_beside_updates() -> None:
    long = [(0, step, "grad_norm", 0.0) for step in range(1, 1001)]
    rows = history(curves([*long, *((0, step, "validation_loss", 1.0) for step in range(0, 1001, 10))]), 1000)
    assert [row["step"] for row in rows if "validation_loss/mean" in row] == list(range(0, 1001, 10))


def test_each_seed_has_a_line_of_its_validation_loss() -> None:
    rows = [curve(seed, 10, "loss", 1.0 + seed, split="validation") for seed in (0, 4)]
    rows += [curve(0, 10, "loss", 1.0, split="train"), curve(0, 10, "grad_norm", math.nan)]
    frame = pl.DataFrame([{"trial_id": "id"} | row for row in rows], schema=SCHEMAS["curves"])
    spec = {"training": {"max_steps": 10, "evaluate_every": 10}, "diagnostics": {"num_traces": 2}, "seeds": [0, 4]}
    (row,) = history_of(frame, spec)
    lines = {name: value for name, value in row.items() if name.startswith("seeds/")}
    assert lines == {"seeds/loss/validation/0": 1.0, "seeds/loss/validation/4": 5.0}


def test_spectra_have_a_mean_alone_and_gates_no_spectral_radius() -> None:
    about = {"part": "recurrent", "layer": 0, "direction": "forward"}
    rows = [curve(seed, 0, name, 2.0**seed, gate=gate, **about) for seed in (0, 2) for name, gate in SPECTRA]
    (row,) = history(pl.DataFrame([{"trial_id": "id"} | row for row in rows], schema=SCHEMAS["curves"]))
    assert row == pytest.approx({"step": 0} | {f"sigma_max/recurrent/0/forward/{gate}/mean": 2.0 for gate in "rz"})
    (row,) = history(pl.DataFrame([{"trial_id": "id"} | rows[2]], schema=SCHEMAS["curves"]))
    assert row == {"step": 0, "spectral_radius/recurrent/0/forward/r/mean": 1.0}


SPECTRA = [(name, gate) for name in ("sigma_max", "spectral_radius") for gate in "rz"]


def test_a_chart_is_named_by_all_that_its_rows_say() -> None:
    about = {"part": "recurrent", "layer": 0, "direction": "forward", "gate": "h"}
    rows = [curve(0, 0, "sigma_max", 1.0, **about), curve(0, 0, "loss", 2.0, split="validation", mode="free_running")]
    (row,) = history(pl.DataFrame([{"trial_id": "id"} | row for row in rows], schema=SCHEMAS["curves"]))
    assert row == pytest.approx(
        {"step": 0, "sigma_max/recurrent/0/forward/h/mean": 1.0, "loss/validation/free_running/mean": 2.0}
    )
