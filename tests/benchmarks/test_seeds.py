from __future__ import annotations

import sys

import pytest

from benchmarks import seeds


def test_libraries_that_processes_share_count_once() -> None:
    held = [{"peak_bytes": 300, "shared_bytes": 100}, {"peak_bytes": 250, "shared_bytes": 90}]
    assert seeds.together(held) == 200 + 160 + 100


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
@pytest.mark.parametrize("who", ["ours", "torch_nn"])
def test_seeds_are_measured_in_processes_of_their_own(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "SHAPE", (2, 3, 4))
    monkeypatch.setattr(seeds, "REPLICA_STEPS", 6)
    started = []
    start = seeds._start
    monkeypatch.setattr(seeds, "_start", lambda arguments: started.append(arguments) or start(arguments))
    found = seeds.measure(who, 2)
    replicas, processes = ("2", 1) if who == "ours" else ("1", 2)
    assert started == processes * [[who, "lstm", "2", "3", "4", replicas, "3"]]
    assert found["ms"] > 0
    assert found["peak_bytes"] > 50 * 2**20
