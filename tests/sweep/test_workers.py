from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.results.store import TrialStore
from pipeline.sweep import workers
from pipeline.sweep.workers import Silence


class Looks:
    """A trial in a store, a worker that says how far it is, and a driver that looks once a minute."""

    def __init__(self, folder: Path) -> None:
        self.store, self.now = TrialStore(folder), 0.0
        self.objects = self.store.objects.below(workers.FOLDER)
        self.silence = Silence(self.store, 1200.0, lambda: self.now)
        self.silence.begun("a")

    def say(self, worker: str, signs: int, silent_s: float = 0.0) -> None:
        word = {"host": "node-3", "pid": 7, "since": "2026-01-01", "trials": ["a", "b"]}
        self.objects.write(f"{worker}.worker", json.dumps(word | {"signs": signs, "silent_s": silent_s}).encode())

    def look(self, minutes: int) -> dict[str, str]:
        for _ in range(minutes):
            self.now += 60.0
            self.silence.look()
        return self.silence.found()


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(tmp_path)


def test_a_worker_without_progress_is_found_and_named(looks: Looks) -> None:
    assert looks.silence.every_s == 60.0
    for signs in range(1, 30):
        looks.say("w", signs)
        assert looks.look(1) == {}
    for minute in range(1, 20):
        looks.say("w", 29, 60.0 * minute)  # its thread lives, and says the same
        assert looks.look(1) == {}
    assert looks.look(1) == {"a": "no progress for 20 min, pid 7 on node-3"}
    looks.silence.lost("a")
    assert looks.objects.names() == []  # what is gone says nothing
    looks.silence.begun("a")
    assert looks.look(20) == {}


@pytest.mark.parametrize("says", [True, False])
def test_a_slow_start_is_not_a_silence(looks: Looks, says: bool) -> None:
    if says:
        looks.say("w", 0)
    assert looks.look(80) == {}
    where = ", pid 7 on node-3" if says else ""
    assert looks.look(1) == {"a": f"no progress for 80 min{where}"}
    looks.say("w", 1)
    looks.look(1)
    looks.silence.ended("a")
    assert looks.silence.found() == {}


def test_time_in_which_the_driver_could_not_look_does_not_count(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    looks.say("w", 5)
    assert looks.look(15) == {}
    looks.now += 36_000.0  # the driver was frozen, and its workers perhaps, too
    assert looks.look(1) == {}
    with monkeypatch.context() as away:
        away.setattr(workers, "_words", lambda *_: (_ for _ in ()).throw(StoreError("away")))
        for _ in range(60):
            with pytest.raises(StoreError, match="away"):
                looks.look(1)
    assert looks.look(3) == {}
    assert looks.look(1) != {}


def test_damaged_words_say_nothing(looks: Looks) -> None:
    for name, content in {"x": b"", "y": b"[]", "z": b"{}"}.items():
        looks.objects.write(f"{name}.worker", content)
    assert looks.look(80) == {}
    assert looks.look(1) == {"a": "no progress for 80 min"}
