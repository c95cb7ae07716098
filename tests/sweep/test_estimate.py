from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config import Params, Paths
from pipeline.core.attention.score import Additive, Dot
from pipeline.core.models import Interface
from pipeline.core.models.architecture import AttentionSpec, SelfAttention
from pipeline.core.training import TrialSpec
from pipeline.sweep import plan_study
from pipeline.sweep.estimate import Workload, available_memory_bytes, duration_s, memory_bytes

WORK = Workload(
    10,
    Interface(input_kind="real", input_size=2, target_at="last", target_kind="value", output_size=1),
    num_data_bytes=100,
)


@pytest.fixture
def spec(project: tuple[Paths, Params]) -> TrialSpec:
    return plan_study(*project, "cells").settings[0].spec


def test_memory_grows_with_everything_that_is_held(spec: TrialSpec) -> None:
    small = memory_bytes(spec, WORK)
    more_seeds = replace(spec, seeds=tuple(range(20)))
    larger = replace(spec, training=replace(spec.training, batch_size=256))
    for changed, work in ((more_seeds, WORK), (larger, WORK), (spec, replace(WORK, num_timesteps=1000))):
        assert memory_bytes(changed, work) > 2 * small
    assert memory_bytes(spec, replace(WORK, num_data_bytes=200)) == small + 100


def test_memory_grows_with_the_attention_that_is_kept(spec: TrialSpec) -> None:
    long = replace(WORK, num_timesteps=2000, num_written=1000)
    plain = memory_bytes(spec, long)

    def with_attention(attention: AttentionSpec, work: Workload = long) -> int:
        return memory_bytes(replace(spec, model=replace(spec.model, attention=attention)), work) - plain

    dot, additive = Dot(feeds="nothing"), Additive(feeds="context", size=50)
    pairs = 1000 * 1000 * spec.training.batch_size * len(spec.seeds)
    assert with_attention(dot) > 4 * 3 * pairs
    assert with_attention(additive) > 40 * with_attention(dot)
    assert with_attention(SelfAttention(num_heads=1)) > 2 * with_attention(dot)


def test_longer_wider_and_more_steps_take_longer(spec: TrialSpec) -> None:
    steps = replace(spec, training=replace(spec.training, max_steps=2 * spec.training.max_steps))
    wider = replace(spec, model=replace(spec.model, hidden_size=64))
    assert duration_s(steps, WORK) == pytest.approx(2 * duration_s(spec, WORK))
    assert duration_s(spec, replace(WORK, num_timesteps=20)) == pytest.approx(2 * duration_s(spec, WORK))
    assert duration_s(wider, WORK) > duration_s(spec, WORK)


def test_this_machine_has_some_memory() -> None:
    assert 2**20 < available_memory_bytes() < 2**50
