from __future__ import annotations

import pytest

from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.report.effects import DecayFactor, DecayFit, DecayRatio, SolvedShare
from tests.figures.conftest import grids
from tests.synthetic_results import Shape

TABLES = grids(Shape(noise=0.0, digits_length=None, broken={"lstm, T=20, lr=0.01#0": "diverged"}))[0]


def test_decay_factor_is_of_the_state_and_stage() -> None:
    start = DecayFactor("decay_factor", "lstm", "c", "initialisation").of(TABLES)
    end = DecayFactor("decay_factor", "lstm", "c", "end").of(TABLES)
    assert (start.value, end.value) == (pytest.approx(0.66), pytest.approx(0.985))
    assert (start.num_seeds, end.num_seeds) == (3, 2)


def test_decay_fit_is_one_for_a_geometric_decay() -> None:
    assert DecayFit("decay_fit", "elman", "h", "initialisation").of(TABLES).value == pytest.approx(1.0)


def test_decay_ratio_is_paired() -> None:
    effect = DecayRatio("decay_ratio", "lstm", "c", "elman", "end").of(TABLES)
    assert effect.value == pytest.approx(0.985 / 0.85)
    assert (effect.num_seeds, effect.num_left_out) == (2, 1)


def test_solved_share_is_of_the_best_arm() -> None:
    shares = {arm: SolvedShare("solved_share", (arm,), "longest").of(TABLES).value for arm in ("elman", "gru")}
    best = SolvedShare("solved_share", ("elman", "gru"), "longest")
    assert best.of(TABLES).value == max(shares.values())  # type: ignore[type-var]
    assert best.said == "best of Elman and GRU: share of seeds that reach the criterion at the longest length"


def test_solved_share_needs_an_arm() -> None:
    with pytest.raises(ConfigError, match="claim.arms: expected at least one arm"):
        build(SolvedShare, {"name": "solved_share", "arms": [], "length": "longest"}, "claim")
