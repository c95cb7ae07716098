from __future__ import annotations

from typing import get_args, get_type_hints

import polars as pl
import pytest

from pipeline.claims.effects import AnyEffect, Effect
from pipeline.claims.effects.effect import NOTHING, as_effect, as_factor, as_share, named
from pipeline.config import build
from pipeline.errors import ConfigError

ROW = {"mean": 1.0, "low": 0.0, "high": 2.0, "num_seeds": 4, "num_nonfinite": 1, "num_missing": 2}


def test_what_is_not_finite_and_what_is_missing_is_left_out_and_counted() -> None:
    assert as_effect(pl.DataFrame([ROW])) == Effect(1.0, 0.0, 2.0, 4, 3)


def test_logarithms_become_factors() -> None:
    assert as_factor(pl.DataFrame([ROW])) == Effect(10.0, 1.0, 100.0, 4, 3)


def test_a_share_is_of_every_seed() -> None:
    assert as_share(pl.DataFrame([ROW]).rename({"mean": "share"})) == Effect(1.0, 0.0, 2.0, 4, 0)


def test_one_seed_has_a_value_and_no_interval() -> None:
    alone = pl.DataFrame([ROW | {"low": None, "high": None}], schema_overrides={"low": pl.Float64, "high": pl.Float64})
    assert as_factor(alone) == Effect(10.0, None, None, 4, 3)


@pytest.mark.parametrize("of", [as_effect, as_share])
def test_no_row_is_nothing(of: object) -> None:
    assert of(pl.DataFrame([ROW | {"share": 1.0}]).clear()) == NOTHING  # type: ignore[operator]


def test_arms_of_several_words_are_quoted() -> None:
    assert [named(arm) for arm in ("gru", "full", "ReLU, identity", "elman, gain=0.4")] == [
        "GRU",
        "full",
        "«ReLU, identity»",
        "«Elman, gain=0.4»",
    ]


def test_every_effect_has_a_name_of_its_own() -> None:
    names = [get_args(get_type_hints(effect)["name"])[0] for effect in get_args(AnyEffect)]
    assert len(set(names)) == len(names)


def test_an_unknown_effect_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"effect.name: unknown name 'decay_facto'; did you mean 'decay_factor'\?"):
        build(AnyEffect, {"name": "decay_facto"}, "effect")
