from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from pipeline.claims.effects.decay import DecayFactor, DecayFit, DecayRatio
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.quantities import GridTables
from tests.claims.effects.conftest import assert_effect, assert_nothing, geometric, grid, runs, student

Norms = Mapping[tuple[str, str, int], Mapping[int, Sequence[float]]]
START = {"elman": {"h": (0.5, 0.6, 0.8)}, "lstm": {"h": (0.6, 0.6, 0.7), "c": (0.7, 0.75, 0.9)}}
"""Factors per timestep by arm, state and seed, at step 0; after training each is its square root."""


def traced(norms: Norms, *, diverged: Sequence[tuple[str, int]] = ()) -> GridTables:
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


def geometric_decay(diverged: Sequence[tuple[str, int]] = ()) -> GridTables:
    norms = {}
    for arm, states in START.items():
        for quantity, factors in states.items():
            for seed, factor in enumerate(factors):
                line = [-3.0 + lag * math.log10(factor) for lag in range(12)]
                steps = {0: line, 50: [height / 2 for height in line]}
                norms[arm, quantity, seed] = {0: line} if (arm, seed) in diverged else steps
    return traced(norms, diverged=diverged)


TABLES = geometric_decay()


def test_decay_factor_is_the_geometric_mean_of_the_seeds_factors() -> None:
    start = DecayFactor("decay_factor", "lstm", "c", "initialisation")
    end = DecayFactor("decay_factor", "lstm", "c", "end")
    assert_effect(start.of(TABLES), geometric(START["lstm"]["c"]), 3)
    assert_effect(end.of(TABLES), geometric([factor**0.5 for factor in START["lstm"]["c"]]), 3)
    assert start.said == "LSTM c: factor per timestep of lag, at initialisation"
    assert end.said == "LSTM c: factor per timestep of lag, after training"


def test_a_replica_that_diverged_has_no_end_of_training() -> None:
    tables = geometric_decay(diverged=[("lstm", 2)])
    assert_effect(DecayFactor("decay_factor", "lstm", "c", "initialisation").of(tables), geometric((0.7, 0.75, 0.9)), 3)
    ended = geometric([0.7**0.5, 0.75**0.5])
    assert_effect(DecayFactor("decay_factor", "lstm", "c", "end").of(tables), ended, 2)


def test_norms_of_zero_are_on_no_line_and_a_seed_without_a_line_is_left_out() -> None:
    lines = {seed: [math.log10(factor) * lag for lag in range(5)] for seed, factor in enumerate((0.5, 0.25))}
    lines[0][4] = -math.inf
    lines[2] = [0.0, *[-math.inf] * 4]
    tables = traced({("elman", "h", seed): {0: line} for seed, line in lines.items()})
    effect = DecayFactor("decay_factor", "elman", "h", "initialisation").of(tables)
    assert_effect(effect, geometric((0.5, 0.25)), 2, num_left_out=1)


def test_decay_is_of_the_longest_length() -> None:
    short = {("elman", "h", seed): {0: [0.0, -5.0, -10.0]} for seed in range(3)}
    tables = traced(short)
    both = pl.concat([TABLES.traces, tables.traces.select(TABLES.traces.columns)])
    mixed = grid(pl.concat([TABLES.runs, tables.runs]), traces=both)
    effect = DecayFactor("decay_factor", "elman", "h", "initialisation")
    assert effect.of(mixed) == effect.of(TABLES)


def test_decay_fit_is_r_squared_averaged_and_cut_at_its_bounds() -> None:
    fit = DecayFit("decay_fit", "elman", "h", "initialisation")
    assert_effect(fit.of(TABLES), (1.0, 1.0, 1.0), 3)
    bent = [0.0, -1.0, -1.0]  # s_xy² / (s_xx s_yy) = 1 / (2 · 2/3)
    tables = traced({("elman", "h", 0): {0: bent}, ("elman", "h", 1): {0: [0.0, -1.0, -2.0]}})
    mean, low, high = student([0.75, 1.0])
    assert low < 0 < 1 < high
    assert_effect(fit.of(tables), (mean, 0.0, 1.0), 2)
    assert fit.said == "Elman h: R² of log norm on lag, at initialisation"


def test_a_gradient_that_keeps_its_size_has_no_fit() -> None:
    tables = traced({("elman", "h", 0): {0: [0.0, 0.0, 0.0]}, ("elman", "h", 1): {0: [0.0, -1.0, -2.0]}})
    effect = DecayFit("decay_fit", "elman", "h", "initialisation").of(tables)
    assert (effect.value, effect.low, effect.num_seeds, effect.num_left_out) == (pytest.approx(1.0), None, 1, 1)


def test_states_of_arms_of_several_words_are_told_apart() -> None:
    ratio = DecayRatio("decay_ratio", "ReLU, identity", "h", "tanh, identity", "end")
    told = "«ReLU, identity» h over «tanh, identity» h: ratio of factors per timestep of lag, after training"
    assert ratio.said == told


def test_decay_ratio_is_paired_by_seed() -> None:
    ratio = DecayRatio("decay_ratio", "lstm", "c", "elman", "initialisation")
    assert_effect(ratio.of(TABLES), geometric([0.7 / 0.5, 0.75 / 0.6, 0.9 / 0.8]), 3)
    assert ratio.said == "LSTM c over Elman h: ratio of factors per timestep of lag, at initialisation"
    tables = geometric_decay(diverged=[("elman", 0)])
    ended = geometric([(0.75 / 0.6) ** 0.5, (0.9 / 0.8) ** 0.5])
    end = DecayRatio("decay_ratio", "lstm", "c", "elman", "end")
    assert_effect(end.of(tables), ended, 2, num_left_out=1)


def test_of_an_arm_or_state_that_is_not_there_is_nothing() -> None:
    assert_nothing(DecayFactor("decay_factor", "gru", "h", "end").of(TABLES))
    assert_nothing(DecayFactor("decay_factor", "elman", "c", "end").of(TABLES))
    assert_nothing(DecayFit("decay_fit", "gru", "h", "end").of(TABLES))
    assert_nothing(DecayRatio("decay_ratio", "gru", "h", "elman", "end").of(TABLES), num_left_out=3)
    assert_nothing(DecayRatio("decay_ratio", "lstm", "c", "gru", "end").of(TABLES), num_left_out=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "ending"}, r"check.stage: unknown value 'ending'; did you mean 'end'\? known: end, initialisation"),
        ({"quantity": "r"}, r"check.quantity: unknown value 'r'; known: c, h"),
        ({"than": "gru"}, r"check: unknown key 'than'"),
    ],
)
def test_stage_and_state_are_checked(changes: dict[str, str], message: str) -> None:
    content = {"name": "decay_factor", "arm": "lstm", "quantity": "c", "stage": "end"}
    with pytest.raises(ConfigError, match=message):
        build(DecayFactor, content | changes, "check")
