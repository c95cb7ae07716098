from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from pipeline.quantities import Effect, Grid
from tests.quantities.conftest import (
    assert_effect,
    assert_nothing,
    difference,
    geometric,
    grid,
    midp,
    runs,
    shares,
    student,
    value,
    within_one,
)

T = 8
COSINES = {"by value": [(1.0, 0.8), (0.7, 0.9), (0.6, 0.6)], "none": [(1.0, 1.0), (1.0, 1.0), (1.0, 0.8)]}
"""By arm and seed, of two steps."""

Curves = Mapping[str, Sequence[Sequence[float]]]


def frame(rows: Sequence[Mapping[str, object]], arm: str = "", broken: Sequence[tuple[str, int]] = ()) -> pl.DataFrame:
    """Return the rows of a long table, joined with `arm`, `length` and `status`."""
    full = [{"arm": arm} | row for row in rows]
    for row in full:
        row |= {"trial_id": f"{row['arm']} {T}", "length": T}
        row["status"] = "diverged" if (row["arm"], row["seed"]) in broken else "ok"
    return pl.DataFrame(full, infer_schema_length=None)


def curves(metric: str, values: Curves, broken: Sequence[tuple[str, int]] = (), **facts: str | int) -> Grid:
    rows = [
        {"arm": arm, "seed": seed, "step": step, "metric": name, "value": value, **facts}
        for arm, seeds in values.items()
        for seed, own in enumerate(seeds)
        for step, value in enumerate(own)
        for name in (metric, "another")
    ]
    baseline = {arm: [0.5 * (seed + 1) for seed in range(len(seeds))] for arm, seeds in values.items()}
    return grid(runs("baseline_loss", baseline, length=T), curves=frame(rows, broken=broken))


def cut(interval: tuple[float, float, float], low: float = -1.0, high: float = 1.0) -> tuple[float, float, float]:
    """Return an interval cut at what a cosine cannot leave."""
    return interval[0], max(low, interval[1]), min(high, interval[2])


def cosine(found: Grid, arm: str = "by value") -> Effect:
    return value(found, quantity="clip_cosine", arm=arm)


def clipped(cosines: Mapping[str, Sequence[Sequence[float]]]) -> Grid:
    """Return a grid whose every step is clipped, with these cosines by arm, seed and step."""
    norms = {"grad_norm": 2.0, "clipped_grad_norm": 1.0}
    cosine = curves("clip_cosine", cosines)
    parts = [cosine["curves"].with_columns(metric=pl.lit(name), value=pl.lit(norm)) for name, norm in norms.items()]
    parts = [part.unique(["arm", "seed", "step"], maintain_order=True) for part in parts]
    runs = cosine.runs.with_columns(num_steps=pl.lit(99, pl.Int64))
    return grid(runs, curves=pl.concat([cosine["curves"].filter(metric="clip_cosine"), *parts]))


def test_clip_cosine_is_a_mean_over_clipped_steps_and_then_over_seeds() -> None:
    found = clipped(COSINES)
    assert_effect(cosine(found), cut(student([0.9, 0.8, 0.6])), 3)
    assert_nothing(cosine(found, "AutoClip"))
    assert_effect(value(found, quantity="clipped_share", arm="by value"), midp(3, 3), 3)


def test_clip_cosine_leaves_out_steps_that_were_not_clipped_or_are_not_finite() -> None:
    found = clipped({"by value": [(1.0, math.nan), (math.nan, math.inf), (0.6, 0.6), (0.2, 0.4)]})
    is_free = (pl.col("seed") == 3) & (pl.col("step") == 0) & (pl.col("metric") == "clipped_grad_norm")
    values = pl.when(is_free).then(2.0).otherwise("value")
    free = grid(found.runs, curves=found["curves"].with_columns(value=values))
    assert_effect(cosine(free), cut(student([1.0, 0.6, 0.4])), 3, num_left_out=1)
    clipped_shares = value(free, quantity="clipped_share", arm="by value")
    assert_effect(clipped_shares, shares([1.0, 1.0, 1.0, 0.5]), 4)


def test_error_by_group_is_paired_by_seed() -> None:
    of = {"quantity": "test_error_by_group", "arm": "by value", "group": "right"}
    facts = {"group": "right", "split": "test"}
    values = {arm: [seed[:1] for seed in seeds] for arm, seeds in COSINES.items()}
    first = [0.0, -0.3, -0.4]
    assert_effect(difference(curves("error", values, **facts), {"arm": "none"}, **of), student(first), 3)
    partial = curves("error", values, broken=[("none", 1)], **facts)
    assert_effect(difference(partial, {"arm": "none"}, **of), within_one(student([0.0, -0.4])), 2, num_left_out=1)
    alone = curves("error", {"by value": values["by value"]}, **facts)
    assert_nothing(difference(alone, {"arm": "none"}, **of), num_left_out=3)


def unseen(found: Grid, end: str = "nearest", arm: str = "gru") -> Effect:
    return value(found, quantity="unseen_over_baseline", arm=arm, unseen=end)


TESTED = {"split": "test", "tested_length": 200}


def test_unseen_over_baseline_is_the_geometric_mean_over_seeds() -> None:
    found = curves("loss", {"gru": [(0.1,), (0.5,), (3.0,)]}, **TESTED)
    assert_effect(unseen(found), geometric([0.1 / 0.5, 0.5 / 1.0, 3.0 / 1.5]), 3)
    assert_nothing(unseen(found, arm="lstm"))


def test_unseen_over_baseline_chooses_among_lengths_beyond_the_longest_trained() -> None:
    found = curves("loss", {"gru": [(0.1,), (0.5,), (3.0,)]}, **TESTED)
    farther = found["curves"].with_columns(tested_length=pl.lit(1000, pl.Int64), value=pl.col("value") * 10)
    shorter = found["curves"].with_columns(tested_length=pl.lit(found.lengths[-1], pl.Int64), value=pl.lit(1e-9))
    many = grid(found.runs, curves=pl.concat([shorter, farther, found["curves"]]))
    assert_effect(unseen(many), geometric([0.1 / 0.5, 0.5 / 1.0, 3.0 / 1.5]), 3)
    assert_effect(unseen(many, "farthest"), geometric([1 / 0.5, 5 / 1.0, 30 / 1.5]), 3)
    assert_nothing(unseen(grid(found.runs, curves=shorter)))


def test_unseen_over_baseline_counts_a_seed_that_overflowed_or_has_no_baseline() -> None:
    found = curves("loss", {"gru": [(0.1,), (math.inf,), (3.0,), (1.0,)]}, **TESTED)
    known = pl.when(pl.col("seed") < 3).then(pl.col("baseline_loss"))
    found = grid(found.runs.with_columns(baseline_loss=known), curves=found["curves"])
    assert_effect(unseen(found), geometric([0.2, 2.0]), 2, num_left_out=2)


START, END = (0.5, 0.55, 0.6), (0.9, 0.99, 0.95)
"""What the keeping gate keeps per timestep, by seed."""


def gates(broken: Sequence[tuple[str, int]] = ()) -> Grid:
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


def gate(found: Grid, stage: str, quantity: str = "gate_mean", gate: str = "f", arm: str = "lstm") -> Effect:
    return value(found, quantity=quantity, arm=arm, gate=gate, stage=stage)


def test_gate_mean_is_of_the_top_layer_forward_in_time() -> None:
    assert_effect(gate(gates(), "initialisation"), shares(START), 3)
    assert_effect(gate(gates(), "end"), shares(END), 3)


def test_gates_of_a_replica_that_diverged_have_no_end() -> None:
    found = gates(broken=[("lstm", 0)])
    assert_effect(gate(found, "initialisation"), shares(START), 3)
    assert_effect(gate(found, "end"), shares(END[1:]), 2, num_left_out=1)


def test_retention_factor_is_the_root_of_the_whole_product() -> None:
    tail = 10 ** (-0.1 / T)
    found = gate(gates(), "end", "retention_factor")
    assert_effect(found, geometric([kept * tail for kept in END]), 3)


def test_half_life_change_is_that_of_each_seed_and_null_without_an_end() -> None:
    found = gates()
    rows = (
        found["gates"]
        .filter(quantity="left_saturated")
        .with_columns(
            quantity=pl.lit("half_life"), value=pl.when(pl.col("step") == 0).then(2.0).otherwise(pl.col("seed") + 4.0)
        )
    )
    changed = grid(found.runs, gates=rows)
    assert_effect(value(changed, quantity="half_life_change", arm="lstm"), geometric([2.0, 2.5, 3.0]), 3)
    start = grid(found.runs, gates=rows.filter(step=0))
    assert_nothing(value(start, quantity="half_life_change", arm="lstm"), num_left_out=3)


def test_a_facet_is_compared_as_its_column_has_it() -> None:
    named = gates()["gates"].with_columns(gate=pl.col("gate").replace({"f": "1"}))  # as LEM calls its gates
    found = grid(gates().runs, gates=named)
    of = {"quantity": "gate_mean", "arm": "lstm", "stage": "end"}
    assert_effect(value(found, **of, gate=1), shares(END), 3)
    assert value(found, **of, gate=1) == value(found, **of, gate="1")


def test_of_a_gate_that_is_not_there_is_nothing() -> None:
    assert_nothing(gate(gates(), "end", gate="z"))
    assert_nothing(gate(gates(), "end", "retention_factor", gate="i"))
    assert_nothing(gate(gates(), "end", arm="gru"))
    assert_nothing(gate(gates(), "end", "retention_factor", arm="gru"))


LOOKED = {"dot": [(0.9, 0.02), (0.8, 0.1), (0.7, 0.0)]}
"""By arm and seed, at initialisation and after training."""


def attention(found: Grid, stage: str = "end", quantity: str = "alignment_error", arm: str = "dot") -> Effect:
    return value(found, quantity=quantity, arm=arm, stage=stage)


def test_attention_is_that_of_one_stage() -> None:
    found = curves("alignment_error", LOOKED)
    assert_effect(attention(found, "initialisation"), shares([0.9, 0.8, 0.7]), 3)
    assert_effect(attention(found), shares([0.02, 0.1, 0.0]), 3)
    assert_nothing(attention(found, arm="general"))
    assert_nothing(attention(curves("alignment_share", LOOKED)))


def test_attention_of_a_replica_that_diverged_has_no_end() -> None:
    found = curves("alignment_error", {"dot": [*LOOKED["dot"], (0.9, 0.06)]}, broken=[("dot", 2)])
    assert_effect(attention(found), shares([0.02, 0.1, 0.06]), 3, num_left_out=1)


@pytest.mark.parametrize(
    ("metric", "lowest", "highest"),
    [("similarity_rank_correlation", -1.0, 1.0), ("within_class_share", 0.0, math.inf)],
)
def test_measures_of_attention_have_bounds_of_their_own(metric: str, lowest: float, highest: float) -> None:
    far = student([3.0, 0.2, 0.1])
    assert far[1] < -1.0 < 1.0 < far[2]
    found = curves(metric, {"self-attention": [(0.0, 3.0), (0.0, 0.2), (0.0, 0.1)]})
    effect = attention(found, quantity=metric, arm="self-attention")
    expected = geometric([3.0, 0.2, 0.1]) if highest == math.inf else (far[0], lowest, highest)
    assert_effect(effect, expected, 3)


def truncated(cosines: Sequence[float]) -> Grid:
    rows = [
        {"seed": seed, "step": step, "backward_length": K, "cosine": cosine - step / 100, "relative_error": K * cosine}
        for seed, cosine in enumerate(cosines)
        for step in (0, 10)
        for K in (3, 6)
    ]
    return grid(runs("test_loss", {"full": [1.0] * len(cosines)}, length=T), truncation=frame(rows, "full"))


def bias(found: Grid, quantity: str, K: int, stage: str, arm: str = "full") -> Effect:  # noqa: N803
    return value(found, quantity=quantity, arm=arm, backward_length=K, stage=stage)


def test_truncation_bias_is_at_its_own_backward_length() -> None:
    values = [0.9, 0.8, 0.85]
    found = truncated(values)
    assert_effect(bias(found, "truncation_error", 6, "end"), geometric([6 * value for value in values]), 3)
    assert_effect(bias(found, "truncation_cosine", 3, "initialisation"), student(values), 3)
    partial = bias(truncated([0.9, math.nan, 0.8]), "truncation_cosine", 3, "initialisation")
    assert_effect(partial, cut(student([0.9, 0.8])), 2, num_left_out=1)


def test_truncation_bias_where_it_was_not_measured_is_nothing() -> None:
    assert_nothing(bias(truncated([0.9, 0.8]), "truncation_cosine", 5, "end"))
    assert_nothing(bias(truncated([0.9, 0.8]), "truncation_cosine", 6, "end", arm="10 timesteps"))


def growing(points: Mapping[str, Sequence[tuple[float, float]]]) -> Grid:
    """Return a grid with (σ_max, factor of the gradient per timestep of lag) by arm and seed, both at step 0."""
    traces, sigmas = [], []
    for arm, seeds in points.items():
        for seed, (sigma, factor) in enumerate(seeds):
            place = {"arm": arm, "seed": seed, "step": 0}
            sigmas.append(
                place
                | {
                    "metric": "sigma_max",
                    "part": "recurrent",
                    "layer": 0,
                    "direction": "forward",
                    "gate": "h",
                    "value": sigma,
                }
            )
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
    found = growing(points)
    above = value(found, quantity="shrinking_share", sigma_max="above_1")
    assert_effect(above, shares([0.5, 0.5, 0.0]), 3)
    below = value(found, quantity="shrinking_share", sigma_max="below_1")
    assert_effect(below, shares([1.0, 1.0, 0.5]), 3)


def test_the_largest_growth_is_of_each_seeds_gradient_that_vanishes_least() -> None:
    points = {
        "gain=0.5": [(0.9, 0.8), (0.95, 0.9), (0.9, 0.85)],
        "gain=0.7": [(0.99, 0.7), (0.9, 0.95), (0.8, 0.6)],
        "gain=2": [(2.0, 1.5), (2.1, 0.8), (2.2, 1.7)],
    }
    found = growing(points)
    below = value(found, quantity="largest_growth", sigma_max="below_1")
    assert_effect(below, geometric([0.8, 0.95, 0.85]), 3)
    assert_effect(value(found, quantity="largest_growth", sigma_max="above_1"), geometric([1.5, 0.8, 1.7]), 3)


def test_shrinking_share_of_a_side_without_points_is_nothing() -> None:
    found = growing({"gain=0.5": [(0.9, 0.8), (0.95, 0.9)]})
    assert_effect(value(found, quantity="shrinking_share", sigma_max="below_1"), midp(2, 2), 2)
    assert_nothing(value(found, quantity="shrinking_share", sigma_max="above_1"), num_left_out=2)


def test_an_update_whose_parameters_overflowed_was_not_made() -> None:
    found = clipped({"by value": [(1.0, 1.0), (1.0, 0.5)]})
    free = pl.when((pl.col("step") == 0) & (pl.col("metric") == "clipped_grad_norm")).then(2.0).otherwise("value")
    stopped = found.runs.with_columns(num_steps=pl.lit(0, pl.Int64))  # only the first, which was not clipped
    of = {"quantity": "clipped_share", "arm": "by value"}
    assert value(grid(stopped, curves=found["curves"].with_columns(value=free)), **of).value == 0.0
    assert value(grid(found.runs, curves=found["curves"].with_columns(value=free)), **of).value == 0.5


def test_without_gates_there_is_no_gap_between_gradient_and_gate() -> None:
    found = growing({"gain=0.5": [(0.9, 0.8), (0.95, 0.9)]})
    assert value(found, quantity="retention_gap", stage="end", arm="gain=0.5").value is None
