"""How many programs share a GPU: the rule on measurements that are given, and the measurement on a CPU in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import Params, Paths, Resources
from pipeline.data import load_dataset
from pipeline.errors import SweepError
from pipeline.sweep import executor_ray, plan_study
from pipeline.sweep.gpu_share import Measured, Share, choose, measure
from pipeline.sweep.trial import Job

GIB = 2**30


@pytest.mark.parametrize(
    ("rates", "used", "chosen", "tried"),
    [
        ({1: 100, 2: 105}, 1, 1, [1, 2]),  # taking turns gains nothing
        ({1: 100, 2: 119, 4: 124}, 1, 2, [1, 2, 4]),  # under MPS
        ({1: 100, 2: 190, 4: 350, 8: 600}, 1, 8, [1, 2, 4, 8]),  # small programs
        ({1: 100, 2: 190, 4: 350}, 6, 2, [1, 2]),  # four need 24 of 16 GiB
        ({1: 100}, 12, 1, [1]),
        ({1: 100, 2: None}, 7, 1, [1, 2]),  # two need more together than alone
    ],
)
def test_as_many_as_fit_and_pay(rates: dict[int, float | None], used: int, chosen: int, tried: list[int]) -> None:
    asked: list[int] = []

    def given(number: int) -> Measured:
        asked.append(number)
        if (rate := rates[number]) is None:
            raise SweepError("out of memory")
        return Measured(rate, number * used * GIB, 16 * GIB)

    assert choose(given).num_programs == chosen
    assert asked == tried


def test_one_program_that_does_not_run_is_an_error() -> None:
    def fails(number: int) -> Measured:
        raise SweepError("1 programs on a GPU: out of memory")

    with pytest.raises(SweepError, match="out of memory"):
        choose(fails)


def test_a_share_says_what_was_measured() -> None:
    share = Share(2, {1: Measured(120.0, GIB, 16 * GIB), 2: Measured(190.4, 2 * GIB, 16 * GIB)})
    assert str(share) == "2 programs share a GPU (1: 120 updates/s, 2: 190; 2.0 of 16.0 GiB with 2)"


def test_programs_are_measured_side_by_side_and_their_errors_are_told(project: tuple[Paths, Params]) -> None:
    paths, params = project
    setting = plan_study(paths, params, "cells").trials[0]
    spec = replace(setting.spec, training=replace(setting.spec.training, max_steps=10**6, evaluate_every=10**6))
    dataset = load_dataset(paths.dataset("adding"), 4)
    measured = measure([spec], dataset, "cpu", 1, 2, probe_s=0.5)
    assert measured.updates_per_s > 0
    with pytest.raises(SweepError, match="1 programs on a GPU: AttributeError: 'NoneType'"):
        measure([spec], None, "cpu", 1, 1, probe_s=0.5)  # type: ignore[arg-type]


def test_the_executor_asks_for_the_share_that_pays(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, params = project
    settings = plan_study(paths, params, "cells").trials
    share = Share(4, {4: Measured(1.0, 1, 2)})
    asked: dict[str, Any] = {}

    class Remote:
        def remote(self, specs: list[Any], *rest: object) -> Share:
            asked["specs"] = specs
            return share

    def remote(**resources: float) -> Any:
        asked.update(resources)
        return lambda function: Remote()

    monkeypatch.setattr(executor_ray.ray, "remote", remote)
    monkeypatch.setattr(executor_ray.ray, "get", lambda found: found)
    monkeypatch.setattr(executor_ray.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    refs = {settings[0].spec.dataset: "data"}
    found = executor_ray._shared(Resources(1.0, 1.0), settings, Job("", None, "cuda", 1, 60.0), refs)
    assert found == Resources(1.0, 0.25)
    assert (asked["num_gpus"], asked["num_cpus"]) == (1, 1.0)
    assert asked["specs"][0] in [setting.spec for setting in settings]
    assert "resources.gpus_per_trial: auto: 4 programs share a GPU" in capsys.readouterr().err
    assert Resources(1.0, "auto").uses_gpus
    assert not Resources(1.0, 0).uses_gpus
