from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import polars as pl
import pytest

from pipeline.errors import ConfigError
from pipeline.quantities import Effect, Grid, Selection
from pipeline.quantities.gradients import decay_rates
from tests.quantities.conftest import (
    assert_effect,
    assert_nothing,
    geometric,
    grid,
    midp,
    ratio,
    runs,
    shares,
    value,
)

Norms = Mapping[tuple[str, str, int], Mapping[int, Sequence[float]]]
START = {"elman": {"h": (0.5, 0.6, 0.8)}, "lstm": {"h": (0.6, 0.6, 0.7), "c": (0.7, 0.75, 0.9)}}
"""Factors per timestep by arm, state and seed, at step 0; after training each is its square root."""


def traced(norms: Norms, *, diverged: Sequence[tuple[str, int]] = ()) -> Grid:
    """Return a grid with log10 norms by arm, quantity, seed and step: from lag 0 back, at ever earlier timesteps."""
    rows = []
    for (arm, quantity, seed), steps in norms.items():
        for step, heights in steps.items():
            for lag, height in enumerate(heights):
                place = {"trial_id": arm, "seed": seed, "step": step, "layer": 0, "direction": "forward"}
                place["part"] = "recurrent"
                row = place | {"timestep": len(heights) - lag, "quantity": quantity, "log10_norm": height}
                status = "diverged" if (arm, seed) in diverged else "ok"
                rows.append(row | {"arm": arm, "length": len(heights), "status": status})
    arms = {arm: [None] * 3 for arm, _, _ in norms}
    length = max(row["length"] for row in rows)
    return grid(runs("test_loss", arms, length=length), traces=pl.DataFrame(rows, infer_schema_length=None))


def geometric_decay(diverged: Sequence[tuple[str, int]] = ()) -> Grid:
    norms = {}
    for arm, states in START.items():
        for quantity, factors in states.items():
            for seed, factor in enumerate(factors):
                line = [-3.0 + lag * math.log10(factor) for lag in range(12)]
                steps = {0: line, 50: [height / 2 for height in line]}
                norms[arm, quantity, seed] = {0: line} if (arm, seed) in diverged else steps
    return traced(norms, diverged=diverged)


TABLES = geometric_decay()


def factor(found: Grid, arm: str, state: str, stage: str) -> Effect:
    return value(found, quantity="decay_factor", arm=arm, state=state, stage=stage)


fit = partial(value, quantity="decay_fit", state="h", stage="initialisation")


def test_decay_factor_is_the_geometric_mean_of_the_seeds_factors() -> None:
    assert_effect(factor(TABLES, "lstm", "c", "initialisation"), geometric(START["lstm"]["c"]), 3)
    ends = [kept**0.5 for kept in START["lstm"]["c"]]
    assert_effect(factor(TABLES, "lstm", "c", "end"), geometric(ends), 3)


def test_a_replica_that_diverged_has_no_end_of_training() -> None:
    tables = geometric_decay(diverged=[("lstm", 2)])
    assert_effect(factor(tables, "lstm", "c", "initialisation"), geometric((0.7, 0.75, 0.9)), 3)
    assert_effect(factor(tables, "lstm", "c", "end"), geometric([0.7**0.5, 0.75**0.5]), 2, num_left_out=1)


def test_norms_of_zero_are_on_no_line_and_a_seed_without_a_line_is_left_out() -> None:
    lines = {seed: [math.log10(factor) * lag for lag in range(5)] for seed, factor in enumerate((0.5, 0.25))}
    lines[0][4] = -math.inf
    lines[2] = [0.0, *[-math.inf] * 4]
    tables = traced({("elman", "h", seed): {0: line} for seed, line in lines.items()})
    assert_effect(factor(tables, "elman", "h", "initialisation"), geometric((0.5, 0.25)), 2, num_left_out=1)


def test_decay_is_of_the_longest_length() -> None:
    short = traced({("elman", "h", seed): {0: [0.0, -5.0, -10.0]} for seed in range(3)})
    both = pl.concat([TABLES["traces"], short["traces"]])
    mixed = grid(pl.concat([TABLES.runs, short.runs]), traces=both)
    of = ("elman", "h", "initialisation")
    assert factor(mixed, *of) == factor(TABLES, *of) != factor(short, *of)


def test_decay_fit_is_r_squared_averaged_as_a_share() -> None:
    assert_effect(fit(TABLES, arm="elman"), midp(3, 3), 3)
    bent = [0.0, -1.0, -1.0]  # s_xy² / (s_xx s_yy) = 1 / (2 · 2/3)
    tables = traced({("elman", "h", 0): {0: bent}, ("elman", "h", 1): {0: [0.0, -1.0, -2.0]}})
    assert_effect(fit(tables, arm="elman"), shares([0.75, 1.0]), 2)


def test_a_gradient_that_keeps_its_size_has_no_fit() -> None:
    tables = traced({("elman", "h", 0): {0: [0.0, 0.0, 0.0]}, ("elman", "h", 1): {0: [0.0, -1.0, -2.0]}})
    effect = fit(tables, arm="elman")
    assert (effect.value, effect.low, effect.num_seeds, effect.num_left_out) == (pytest.approx(1.0), None, 1, 1)


def test_ratio_of_decay_factors_is_paired_by_seed() -> None:
    start = {"quantity": "decay_factor", "arm": "lstm", "state": "c", "stage": "initialisation"}
    to = {"arm": "elman", "state": "h"}
    assert_effect(ratio(TABLES, to, **start), geometric([0.7 / 0.5, 0.75 / 0.6, 0.9 / 0.8]), 3)
    tables = geometric_decay(diverged=[("elman", 0)])
    ended = geometric([(0.75 / 0.6) ** 0.5, (0.9 / 0.8) ** 0.5])
    assert_effect(ratio(tables, to, **start | {"stage": "end"}), ended, 2, num_left_out=1)


def test_of_an_arm_or_state_that_is_not_there_is_nothing() -> None:
    assert_nothing(factor(TABLES, "gru", "h", "end"))
    assert_nothing(factor(TABLES, "elman", "c", "end"))
    assert_nothing(fit(TABLES, arm="gru"))
    for arm, other in (("gru", "elman"), ("elman", "gru")):
        of = {"quantity": "decay_factor", "arm": arm, "state": "h", "stage": "end"}
        assert_nothing(ratio(TABLES, {"arm": other}, **of), num_left_out=3)


def line(norms: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"arm": "a", "seed": 0, "lag": range(len(norms)), "value": norms})


def test_scalar_linear_network_loses_its_weight_per_timestep() -> None:
    norms = [math.log10(3.0 * abs(-0.9) ** lag) for lag in range(40)]
    row = decay_rates(line(norms), ["arm"]).row(0, named=True)
    assert 10 ** row["slope"] == pytest.approx(0.9, rel=1e-12)
    assert row["r_squared"] == pytest.approx(1.0)
    assert (row["num_zero"], row["num_nonfinite"]) == (0, 0)


def test_norms_of_zero_and_nan_are_left_out_and_counted() -> None:
    norms = [0.0, -1.0, -2.0, -math.inf, math.nan, math.inf, -math.inf]
    row = decay_rates(line(norms), ["arm"]).row(0, named=True)
    assert row["slope"] == pytest.approx(-1.0)
    assert (row["num_zero"], row["num_nonfinite"]) == (2, 2)


@pytest.mark.parametrize("norms", [[0.0], [0.0, -math.inf], [math.nan, math.nan]])
def test_no_line_through_fewer_than_two_points(norms: list[float]) -> None:
    assert decay_rates(line(norms), ["arm"])["slope"].to_list() == [None]


def placed(norms: Mapping[tuple[int, str, int], float], *, part: str = "recurrent", quantity: str = "h") -> Grid:
    """Return a grid of one seed with log10 norms by layer, direction and timestep (of three), at initialisation."""
    rows = [
        {"arm": "deep", "seed": 0, "step": 0, "part": part, "layer": layer, "direction": direction, "timestep": t}
        | {"quantity": quantity, "log10_norm": norm, "trial_id": "deep", "length": 3, "status": "ok"}
        for (layer, direction, t), norm in norms.items()
    ]
    return grid(runs("test_loss", {"deep": [1.0]}, length=3), traces=pl.DataFrame(rows))


def test_layer_gap_is_the_last_layers_mean_minus_the_firsts_where_both_are_finite() -> None:
    norms = {(layer, "forward", t): -1.0 - (2 - layer) * t for layer in range(3) for t in (1, 2, 3)}
    norms[0, "forward", 3] = -math.inf
    gap = value(placed(norms), quantity="layer_gap", arm="deep", stage="initialisation")
    assert (gap.value, gap.num_seeds) == (pytest.approx((2 * 1 + 2 * 2) / 2), 1)
    unknown = dict.fromkeys(norms, math.nan)
    assert_nothing(value(placed(unknown), quantity="layer_gap", arm="deep", stage="initialisation"), num_left_out=1)


def test_direction_gap_is_forward_minus_backward() -> None:
    norms = {
        (0, direction, t): float(-t * factor)
        for direction, factor in (("forward", 1), ("backward", 3))
        for t in (1, 2, 3)
    }
    norms[0, "backward", 3] = math.nan
    gap = value(placed(norms), quantity="direction_gap", arm="deep", stage="initialisation")
    assert gap.value == pytest.approx(-2.0 + 4.5)


def test_far_input_gradient_is_of_the_farther_half_relative_to_the_largest() -> None:
    norms = {(0, "forward", t): norm for t, norm in ((1, -7.0), (2, -5.0), (3, -1.0))}
    lost = value(
        placed(norms, part="input", quantity="x"), quantity="far_input_gradient", arm="deep", stage="initialisation"
    )
    assert lost.value == pytest.approx(6.0)  # lag 2 of 0, 1, 2; the largest norm is -1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantity": "decay_facto"}, r"^here: unknown quantity 'decay_facto'; did you mean 'decay_factor'\?"),
        ({"stage": "ending"}, r"^here: unknown stage 'ending'; did you mean 'end'\?"),
        ({"state": None}, "^here: decay_factor: expected a value of 'state'; got None"),
        ({"stat": "c"}, r"^here: unknown facet of decay_factor 'stat'; did you mean 'state'\?"),
        ({"length": "long"}, "^here: length: expected longest, shortest or a number; got 'long'"),
    ],
)
def test_what_cannot_be_selected_is_refused(changes: dict[str, object], message: str) -> None:
    content = {"quantity": "decay_factor", "arm": "lstm", "state": "c", "stage": "end"}
    with pytest.raises(ConfigError, match=message):
        Selection.of(content | changes, "here")
