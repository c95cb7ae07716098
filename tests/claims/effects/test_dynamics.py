from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from pipeline.claims.effects.dynamics import (
    AttentionMean,
    CurveDifference,
    CurveMean,
    GateMean,
    RetentionFactor,
    ShrinkingShare,
    TruncationBias,
    UnseenOverBaseline,
)
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.quantities import GridTables
from tests.claims.effects.conftest import assert_effect, assert_nothing, geometric, grid, runs, student

T = 8
COSINES = {"by value": [(1.0, 0.8), (0.7, 0.9), (0.6, 0.6)], "none": [(1.0, 1.0), (1.0, 1.0), (1.0, 0.8)]}
"""By arm and seed, of two steps."""

Curves = Mapping[str, Sequence[Sequence[float]]]


def frame(rows: Sequence[Mapping[str, object]], arm: str = "", broken: Sequence[tuple[str, int]] = ()) -> pl.DataFrame:
    """Return the rows of a long table, joined with `arm`, `length` and `status`."""
    told = [{"arm": arm} | row for row in rows]
    for row in told:
        row |= {"trial_id": f"{row['arm']} {T}", "length": T}
        row["status"] = "diverged" if (row["arm"], row["seed"]) in broken else "ok"
    return pl.DataFrame(told, infer_schema_length=None)


def curves(metric: str, values: Curves, broken: Sequence[tuple[str, int]] = ()) -> GridTables:
    rows = [
        {"arm": arm, "seed": seed, "step": step, "metric": name, "value": value}
        for arm, seeds in values.items()
        for seed, own in enumerate(seeds)
        for step, value in enumerate(own)
        for name in (metric, "another")
    ]
    baseline = {arm: [0.5 * (seed + 1) for seed in range(len(seeds))] for arm, seeds in values.items()}
    return grid(runs("baseline_loss", baseline, length=T), curves=frame(rows, broken=broken))


def test_curve_mean_is_over_steps_and_then_over_seeds() -> None:
    effect = CurveMean("curve_mean", "by value", "clip_cosine")
    tables = curves("clip_cosine", COSINES)
    assert_effect(effect.of(tables), student([0.9, 0.8, 0.6]), 3)
    assert effect.said == "«by value»: clip cosine, mean over steps"
    assert_nothing(CurveMean("curve_mean", "AutoClip", "clip_cosine").of(tables))
    assert_nothing(CurveMean("curve_mean", "by value", "grad_norm").of(tables))


def test_curve_mean_leaves_out_and_counts_seeds_without_a_finite_step() -> None:
    values = {"by value": [(1.0, math.nan), (math.nan, math.inf), (0.6, 0.6), (9.0, 9.0)]}
    effect = CurveMean("curve_mean", "by value", "clip_cosine")
    tables = curves("clip_cosine", values, broken=[("by value", 3)])
    assert_effect(effect.of(tables), student([1.0, 0.6]), 2, num_left_out=2)


def test_curve_difference_is_paired_by_seed() -> None:
    effect = CurveDifference("curve_difference", "by value", "none", "test_error[right]")
    assert_effect(effect.of(curves("test_error[right]", COSINES)), student([-0.1, -0.2, -0.3]), 3)
    assert effect.said == "«by value» less none: test error (right), by seed"
    partial = curves("test_error[right]", COSINES, broken=[("none", 1)])
    assert_effect(effect.of(partial), student([-0.1, -0.3]), 2, num_left_out=1)
    alone = curves("test_error[right]", {"by value": COSINES["by value"]})
    assert_nothing(effect.of(alone), num_left_out=3)


def test_unseen_over_baseline_is_the_geometric_mean_over_seeds() -> None:
    effect = UnseenOverBaseline("unseen_over_baseline", "gru", "nearest")
    tables = curves("test_loss[T=200]", {"gru": [(0.1,), (0.5,), (3.0,)]})
    assert_effect(effect.of(tables), geometric([0.1 / 0.5, 0.5 / 1.0, 3.0 / 1.5]), 3)
    assert effect.said == "GRU: test loss at the nearest unseen length over the baseline (geometric mean)"
    assert_nothing(UnseenOverBaseline("unseen_over_baseline", "lstm", "nearest").of(tables))


def test_unseen_over_baseline_chooses_among_lengths_beyond_the_longest_trained() -> None:
    tables = curves("test_loss[T=200]", {"gru": [(0.1,), (0.5,), (3.0,)]})
    farther = tables.curves.with_columns(metric=pl.lit("test_loss[T=1000]"), value=pl.col("value") * 10)
    shorter = tables.curves.with_columns(metric=pl.lit(f"test_loss[T={tables.lengths[-1]}]"), value=pl.lit(1e-9))
    many = grid(tables.runs, curves=pl.concat([shorter, farther, tables.curves]))
    nearest, farthest = (
        UnseenOverBaseline("unseen_over_baseline", "gru", end).of(many) for end in ("nearest", "farthest")
    )  # type: ignore[arg-type]
    assert_effect(nearest, geometric([0.1 / 0.5, 0.5 / 1.0, 3.0 / 1.5]), 3)
    assert_effect(farthest, geometric([1 / 0.5, 5 / 1.0, 30 / 1.5]), 3)
    assert_nothing(UnseenOverBaseline("unseen_over_baseline", "gru", "nearest").of(grid(tables.runs, curves=shorter)))


def test_unseen_over_baseline_counts_a_seed_that_overflowed_or_has_no_baseline() -> None:
    tables = curves("test_loss[T=200]", {"gru": [(0.1,), (math.inf,), (3.0,), (1.0,)]})
    known = pl.when(pl.col("seed") < 3).then(pl.col("baseline_loss"))
    tables = grid(tables.runs.with_columns(baseline_loss=known), curves=tables.curves)
    effect = UnseenOverBaseline("unseen_over_baseline", "gru", "nearest").of(tables)
    assert_effect(effect, geometric([0.2, 2.0]), 2, num_left_out=2)


START, END = (0.5, 0.55, 0.6), (0.9, 0.99, 0.95)
"""What the keeping gate keeps per timestep, by seed."""


def gates(broken: Sequence[tuple[str, int]] = ()) -> GridTables:
    rows = []
    for seed in range(3):
        for step, kept in ((0, START[seed]), (40, END[seed])):
            if step and ("lstm", seed) in broken:
                continue
            place = {"seed": seed, "step": step, "part": "recurrent", "layer": 1, "direction": "forward", "gate": "f"}
            rows += [place | {"quantity": "mean", "position": 0.0, "value": kept}]
            rows += [place | {"quantity": "left_saturated", "position": 0.0, "value": 0.3}]
            for k in range(1, T + 1):  # a tail that the whole product has and its parts have not
                tail = 0.1 if k == T else 0.0
                value = k * math.log10(kept) - tail
                rows += [place | {"quantity": "retention", "position": float(k), "value": value}]
            rows += [place | {"gate": "i", "quantity": "mean", "position": 0.0, "value": 0.2}]
            rows += [place | {"layer": 0, "quantity": "mean", "position": 0.0, "value": 0.1}]
            rows += [place | {"direction": "backward", "quantity": "mean", "position": 0.0, "value": 0.1}]
    return grid(runs("test_loss", {"lstm": [1.0] * 3}, length=T), gates=frame(rows, "lstm", broken))


def test_gate_mean_is_of_the_top_layer_forward_in_time() -> None:
    start, end = (GateMean("gate_mean", "lstm", "f", stage) for stage in ("initialisation", "end"))  # type: ignore[arg-type]
    assert_effect(start.of(gates()), student(START), 3)
    mean, low, high = student(END)
    assert high > 1  # no gate is
    assert_effect(end.of(gates()), (mean, low, 1.0), 3)
    assert start.said == "LSTM: mean of gate f, at initialisation"


def test_gates_of_a_replica_that_diverged_have_no_end() -> None:
    tables = gates(broken=[("lstm", 0)])
    assert_effect(GateMean("gate_mean", "lstm", "f", "initialisation").of(tables), student(START), 3)
    mean, *_ = student(END[1:])
    effect = GateMean("gate_mean", "lstm", "f", "end").of(tables)
    assert_effect(effect, (mean, max(0.0, student(END[1:])[1]), 1.0), 2)


def test_retention_factor_is_the_root_of_the_whole_product() -> None:
    effect = RetentionFactor("retention_factor", "lstm", "f", "end")
    tail = 10 ** (-0.1 / T)
    assert_effect(effect.of(gates()), geometric([kept * tail for kept in END]), 3)
    assert effect.said == "LSTM: share that gate f keeps per timestep, after training"


def test_of_a_gate_that_is_not_there_is_nothing() -> None:
    for effect in (GateMean("gate_mean", "lstm", "z", "end"), RetentionFactor("retention_factor", "lstm", "i", "end")):
        assert_nothing(effect.of(gates()))
    assert_nothing(GateMean("gate_mean", "gru", "f", "end").of(gates()))
    assert_nothing(RetentionFactor("retention_factor", "gru", "f", "end").of(gates()))


LOOKED = {"dot": [(0.9, 0.02), (0.8, 0.1), (0.7, 0.0)]}
"""By arm and seed, at initialisation and after training."""


def test_attention_mean_is_that_of_one_stage() -> None:
    start = AttentionMean("attention_mean", "dot", "alignment_error", "initialisation")
    end = AttentionMean("attention_mean", "dot", "alignment_error", "end")
    tables = curves("alignment_error", LOOKED)
    mean, low, high = student([0.9, 0.8, 0.7])
    assert high > 1  # no share is
    assert_effect(start.of(tables), (mean, low, 1.0), 3)
    mean, low, high = student([0.02, 0.1, 0.0])
    assert low < 0
    assert_effect(end.of(tables), (mean, 0.0, high), 3)
    assert end.said == "dot: alignment error, after training"
    assert_nothing(AttentionMean("attention_mean", "general", "alignment_error", "end").of(tables))
    assert_nothing(end.of(curves("alignment_share", LOOKED)))


def test_attention_of_a_replica_that_diverged_has_no_end() -> None:
    tables = curves("alignment_error", {"dot": [*LOOKED["dot"], (0.9, 0.06)]}, broken=[("dot", 2)])
    effect = AttentionMean("attention_mean", "dot", "alignment_error", "end").of(tables)
    mean, low, high = student([0.02, 0.1, 0.06])
    assert_effect(effect, (mean, max(0.0, low), high), 3)


@pytest.mark.parametrize(
    ("metric", "lowest", "highest", "said"),
    [
        ("similarity_rank_correlation", -1.0, 1.0, "rank correlation of weight and similarity"),
        ("within_class_share", 0.0, math.inf, "weight within the class over chance"),
    ],
)
def test_measures_of_attention_have_bounds_of_their_own(metric: str, lowest: float, highest: float, said: str) -> None:
    effect = AttentionMean("attention_mean", "self-attention", metric, "end")  # type: ignore[arg-type]
    far = student([3.0, 0.2, 0.1])
    assert far[1] < -1.0 < 1.0 < far[2]
    tables = curves(metric, {"self-attention": [(0.0, 3.0), (0.0, 0.2), (0.0, 0.1)]})
    assert_effect(effect.of(tables), (far[0], lowest, min(far[2], highest)), 3)
    assert effect.said == f"self-attention: {said}, after training"


def truncated(cosines: Sequence[float]) -> GridTables:
    rows = [
        {"seed": seed, "step": step, "backward_length": K, "cosine": cosine - step / 100, "relative_error": K * cosine}
        for seed, cosine in enumerate(cosines)
        for step in (0, 10)
        for K in (3, 6)
    ]
    return grid(runs("test_loss", {"full": [1.0] * len(cosines)}, length=T), truncation=frame(rows, "full"))


def test_truncation_bias_is_at_its_own_backward_length() -> None:
    values = [0.9, 0.8, 0.85]
    error = TruncationBias("truncation_bias", "full", 6, "relative_error", "end")
    cosine = TruncationBias("truncation_bias", "full", 3, "cosine", "initialisation")
    assert_effect(error.of(truncated(values)), student([6 * value for value in values]), 3)
    assert_effect(cosine.of(truncated(values)), student(values), 3)
    assert error.said == "full: relative error of the 6-timestep gradient, after training"
    assert_effect(cosine.of(truncated([0.9, math.nan, 0.8])), student([0.9, 0.8]), 2, num_left_out=1)


def test_truncation_bias_where_it_was_not_measured_is_nothing() -> None:
    tables = truncated([0.9, 0.8])
    assert_nothing(TruncationBias("truncation_bias", "full", 5, "cosine", "end").of(tables))
    assert_nothing(TruncationBias("truncation_bias", "10 timesteps", 6, "cosine", "end").of(tables))


def growing(points: Mapping[str, Sequence[tuple[float, float]]]) -> GridTables:
    """Return a grid with (σ_max, factor of the gradient per timestep of lag) by arm and seed, both at step 0."""
    traces, sigmas = [], []
    for arm, seeds in points.items():
        for seed, (sigma, factor) in enumerate(seeds):
            place = {"arm": arm, "seed": seed, "step": 0}
            sigmas.append(place | {"metric": "sigma_max[h]", "value": sigma})
            for lag in range(T):
                norm = lag * math.log10(factor) if factor else (0.0 if lag == 0 else -math.inf)
                row = place | {"part": "recurrent", "layer": 0, "direction": "forward", "quantity": "h"}
                traces.append(row | {"timestep": T - lag, "log10_norm": norm})
    arms = {arm: [1.0] * len(seeds) for arm, seeds in points.items()}
    return grid(runs("test_loss", arms, length=T), traces=frame(traces), curves=frame(sigmas))


def test_shrinking_share_is_each_seeds_over_all_arms() -> None:
    points = {
        "gain=0.5": [(0.9, 0.8), (0.95, 0.9), (0.9, 1.1)],
        "gain=1": [(1.1, 0.9), (1.2, 1.1), (0.8, 0.7)],
        "gain=2": [(2.0, 1.5), (2.1, 0.8), (2.2, 1.7)],
        "none": [(2.0, 0.0), (0.5, 0.0), (1.0, 0.9)],  # all but one norm zero: no line; σ_max = 1: on no side
    }
    above, below = (ShrinkingShare("shrinking_share", side) for side in ("above", "below"))  # type: ignore[arg-type]
    mean, low, high = student([0.5, 0.5, 0.0])
    assert_effect(above.of(growing(points)), (mean, max(0.0, low), min(1.0, high)), 3)
    mean, low, high = student([1.0, 1.0, 0.5])
    assert_effect(below.of(growing(points)), (mean, max(0.0, low), min(1.0, high)), 3)
    assert above.said == "share of gradients that shrink where σ_max is above 1"
    assert below.said == "share of gradients that shrink where σ_max is below 1"


def test_shrinking_share_of_a_side_without_points_is_nothing() -> None:
    tables = growing({"gain=0.5": [(0.9, 0.8), (0.95, 0.9)]})
    assert_effect(ShrinkingShare("shrinking_share", "below").of(tables), (1.0, 1.0, 1.0), 2)
    assert_nothing(ShrinkingShare("shrinking_share", "above").of(tables))


@pytest.mark.parametrize(
    ("effect", "content", "message"),
    [
        (ShrinkingShare, {"name": "shrinking_share", "side": "beside"}, "check.side: unknown value 'beside'"),
        (
            TruncationBias,
            {"name": "truncation_bias", "arm": "full", "backward_length": 6, "quantity": "bias", "stage": "end"},
            "check.quantity: unknown value 'bias'",
        ),
        (
            TruncationBias,
            {"name": "truncation_bias", "arm": "full", "backward_length": "K", "quantity": "cosine", "stage": "end"},
            "check.backward_length: expected an integer",
        ),
        (
            GateMean,
            {"name": "gate_mean", "arm": "lstm", "gate": "f", "stage": "middle"},
            "check.stage: unknown value 'middle'",
        ),
        (
            AttentionMean,
            {"name": "attention_mean", "arm": "dot", "metric": "alignment_eror", "stage": "end"},
            r"check.metric: unknown value 'alignment_eror'; did you mean 'alignment_error'\?",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(effect: type, content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(effect, content, "check")
