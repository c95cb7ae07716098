"""The contenders train, each on the engine that its name says; nothing is timed."""

from __future__ import annotations

import pytest

from benchmarks.contenders import kernel, on_eager, ours
from benchmarks.plain import TORCH_NN, hand_unrolled, torch_nn
from pipeline.core.cells import recurrence

SIZE = (2, 3, 4)  # B, H, T


@pytest.mark.parametrize("cell", TORCH_NN)
def test_every_contender_makes_a_step(cell: str) -> None:
    for step in (torch_nn(cell, *SIZE), hand_unrolled(cell, *SIZE), ours(cell, *SIZE, 2, trace=True)):
        step()
        step()


@pytest.mark.parametrize("is_eager", [False, True])
def test_the_eager_contender_alone_runs_on_the_eager_engine(is_eager: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = []
    engine_of = recurrence.engine_of

    def noting(*args: object) -> recurrence.Engine:
        engines.append(engine_of(*args))  # type: ignore[arg-type]
        return engines[-1]

    monkeypatch.setattr(recurrence, "engine_of", noting)
    step = ours("lstm", *SIZE, 2, trace=True)
    (on_eager(step) if is_eager else step)()
    assert {engine.name for engine in engines} == {"eager" if is_eager else kernel("lstm")}
    assert not recurrence.USE_EAGER


def test_the_eager_engine_is_left_after_a_step_that_fails() -> None:
    def fail() -> None:
        assert recurrence.USE_EAGER
        raise ValueError("as a step may")

    with pytest.raises(ValueError, match="as a step may"):
        on_eager(fail)()
    assert not recurrence.USE_EAGER


@pytest.mark.parametrize("is_eager", [False, True])
def test_the_kernel_is_what_runs_a_step(is_eager: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "USE_EAGER", is_eager)
    assert kernel("gru") in ({"eager"} if is_eager else {"compiled", "eager"})
