"""The study of many settings is what it is said to be; its sweep is run by `make bench-sweep` alone."""

from __future__ import annotations

from pathlib import Path

from benchmarks import many
from pipeline.config import load_params
from pipeline.sweep.estimate import packs_of
from pipeline.sweep.plan import plan_study


def test_settings_are_one_step_and_make_few_programs(tmp_path: Path) -> None:
    workspace = many.lay_out(tmp_path / "work", num_settings=70, packed=many.PACKED)
    params = load_params(workspace)
    plan = plan_study(workspace, params, many.STUDY)
    assert len(plan.trials) == 70
    assert {setting.spec.training.max_steps for setting in plan.trials} == {1}
    assert len({setting.spec.optimiser.learning_rate for setting in plan.trials}) > 60
    packs = packs_of(plan.missing, params.resources.settings_per_program, 1, None)
    assert [len(pack) for pack in packs] == [32, 32, 6]
