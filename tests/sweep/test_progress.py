from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.config import Params, Paths
from pipeline.sweep import Plan, plan_study
from pipeline.sweep import progress as progress_module
from pipeline.sweep.progress import LineProgress, LiveProgress, Tally, duration_text, follow, title
from pipeline.sweep.trial import Outcome


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def plan(project: tuple[Paths, Params]) -> Plan:
    plan = plan_study(*project, "cells")
    plan = plan.with_stored({plan.settings[3].trial_id})
    return replace(plan, settings=tuple(replace(setting, duration_s=1.0) for setting in plan.settings))


def outcome(identity: str, status: str = "ok", loss: float | None = 0.00123) -> Outcome:
    return Outcome(trial_id=identity, status=status, validation_loss=loss, wall_time_s=12.34)


def test_lines_say_what_ended_and_how_long_it_may_take(plan: Plan) -> None:
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress(Tally(plan, clock), stream)
    first, second, third = plan.missing
    progress.started(first)
    progress.started(second)  # a moment later: not worth a line
    clock.now = 30.0
    progress.finished(first, outcome(first.trial_id))
    progress.finished(second, outcome(second.trial_id, "diverged", None))
    progress.finished(third, outcome(third.trial_id, "error", None))
    progress.close()
    assert stream.getvalue().splitlines() == [
        f"[1/4] training {title(first)} | 1 running, 0 failed, 1 from the store",
        f"[2/4] done {title(first)}  ok  val 0.00123  12.3 s | 1 running, 0 failed, 1 from the store, about 60 s left",
        f"[3/4] done {title(second)}  diverged  12.3 s | 0 running, 0 failed, 1 from the store, about 15.0 s left",
        f"[4/4] done {title(third)}  error  12.3 s | 0 running, 1 failed, 1 from the store",
        "4 settings: 1 from the store, 1 trained, 1 diverged, 1 failed, 30.0 s",
    ]


def test_a_long_silence_is_broken(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SIGN_OF_LIFE_S", 0.01)
    stream = io.StringIO()
    progress = LineProgress(Tally(plan), stream)
    progress.started(plan.missing[0])
    until = time.monotonic() + 60.0
    while (line := "[1/4] 1 running, 0 failed, 1 from the store") not in stream.getvalue().splitlines():
        assert time.monotonic() < until, f"no {line} in {stream.getvalue()}"
        time.sleep(0.01)
    progress.close()


def test_a_terminal_gets_a_live_table(plan: Plan) -> None:
    stream = io.StringIO()
    progress = LiveProgress(Tally(plan), Console(file=stream, force_terminal=True, width=100))
    first, second, _ = plan.missing
    progress.started(first)
    progress.started(second)
    progress.lost(second, "no progress for 30 min, pid 7 on node-3")
    assert second.trial_id not in progress.tally.running
    progress.started(second)
    progress.finished(first, outcome(first.trial_id))
    assert progress.tally.wants_reached
    progress.tally.reached[second.trial_id] = (3, 0.25)
    progress.close()
    of = f"3 of {second.spec.training.max_steps}"
    assert f"lost the worker of {title(second)} (no progress for 30 min, pid 7 on node-3)" in stream.getvalue()
    for text in (first.label, second.label, "0.00123", "training", of, "0.25", "1 trained"):
        assert text in stream.getvalue()


def test_a_log_gets_lines(plan: Plan) -> None:
    assert isinstance(follow(plan, io.StringIO()), LineProgress)


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (141.2, "141 s"), (420.0, "7 min"), (11520.0, "3.2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_brackets_in_a_label_are_letters(plan: Plan) -> None:
    stream = io.StringIO()
    odd = replace(
        plan, settings=tuple(replace(each, label=f"clip [/norm] {i}") for i, each in enumerate(plan.settings))
    )
    progress = LiveProgress(Tally(odd), Console(file=stream, force_terminal=True, width=100))
    first, second, _ = odd.missing
    progress.started(first)
    progress.lost(first)
    progress.started(second)
    progress.close()
    assert f"lost the worker of {title(first)}" in stream.getvalue()
    assert second.label in stream.getvalue()
