from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.__main__ import main
from pipeline.config import Params, Paths
from pipeline.core.training import TrialSpec
from pipeline.errors import SweepError
from pipeline.results.objects import Entry, FolderObjects
from pipeline.results.running import RunningTrial
from pipeline.results.store import TrialStore
from pipeline.sweep import plan_study, status, workers
from pipeline.sweep.progress import LineProgress, Tally
from pipeline.sweep.status import StudyStatus, describe, read_status, show

from .fakes import FakeTrain, grid, sweep, write_project

DRIVER = """
import sys
from pipeline.config import Paths, load_params
from pipeline.core.training import TrialSpec
from pipeline.sweep import plan_study, status, workers
from pipeline.sweep.progress import LineProgress, Tally
from tests.sweep.fakes import FakeTrain, sweep
workers.SILENT_S, workers.BEAT_S = 0.05, 0.1
paths = Paths.at(sys.argv[1])
sweep(paths, load_params(paths), FakeTrain(delay_s=0.25))
"""


def store_of(paths: Paths) -> TrialStore:
    return TrialStore.of(paths, None)


def eventually(read: Callable[[], StudyStatus], holds: Callable[[StudyStatus], bool]) -> StudyStatus:
    until = time.monotonic() + 120.0
    while time.monotonic() < until:
        try:
            if holds(found := read()):
                return found
        except SweepError:  # the driver has not said anything yet
            pass
        time.sleep(0.05)
    raise AssertionError(f"never: {read()}")


def test_a_sweep_is_seen_from_another_process_and_so_is_its_death(project: tuple[Paths, Params]) -> None:
    paths, params = project
    command = [sys.executable, "-c", DRIVER, str(paths.root)]
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    store = store_of(paths)
    try:
        found = eventually(lambda: read_status(store, "cells"), lambda found: found.num_done == 1 and found.running)
        assert found.num_planned == 4
        assert found.driver is not None
        assert f"pid {driver.pid} on" in found.driver
        (running,) = found.running
        assert (running.pid, running.max_steps) == (driver.pid, 6)
        assert running.title.startswith("cells: ")
        assert found.trials_per_minute is not None
        assert found.left_s is not None
        os.kill(driver.pid, signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    dead = read_status(store, "cells")
    assert dead.driver is None
    assert dead.num_done >= 1
    assert "nobody sweeps it now" in describe(dead)
    sweep(paths, params, FakeTrain())
    ended = read_status(store, "cells")
    assert (ended.num_done, ended.statuses, ended.running, ended.num_halted) == (4, {"ok": 4}, [], 0)
    assert describe(ended) == "cells: 4 of 4 done, 0 running, 0 to go, 0 failed"


def test_numbers_equal_those_of_the_end(project: tuple[Paths, Params]) -> None:
    paths, params = project
    with pytest.raises(SweepError, match="2 of 4 settings failed"):
        sweep(paths, params, FakeTrain(fails_on="elman", diverges_on="lstm"))
    found = read_status(store_of(paths), "cells")
    assert found.statuses == {"diverged": 2, "error": 2}
    assert found.num_done == 2
    assert set(found.failed.values()) == {"RuntimeError: no kernel for elman"}
    line, *failed = describe(found).splitlines()
    assert line == "cells: 2 of 4 done (2 diverged), 0 running, 0 to go, 2 failed"
    assert failed[0] == "  failed   cells: elman, lr=0.1: RuntimeError: no kernel for elman"
    sweep(paths, params, FakeTrain())
    assert read_status(store_of(paths), "cells").statuses == {"ok": 2, "diverged": 2}


def test_how_far_a_trial_is_comes_from_its_checkpoint(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params = project
    monkeypatch.setattr(workers, "SILENT_S", 0.01)
    monkeypatch.setattr(workers, "BEAT_S", 0.01)
    seen: list[str] = []

    def checkpointed(store: TrialStore, trial_id: str) -> RunningTrial:
        rows = [(0, "train", 9.0), (0, "validation", 8.0), (3, "validation", 0.5), (3, "train", 7.0)]
        columns = ["trial_id", "seed", "step", "metric", "split", "value"]
        values = [(trial_id, 0, step, "loss", split, value) for step, split, value in rows]
        curves = pl.DataFrame(values, schema=columns, orient="row")
        return RunningTrial(trial_id, 5, None, {"curves": curves})

    class Look(FakeTrain):
        def __call__(self, spec: TrialSpec, *args: object, **kwargs: object) -> object:
            until = time.monotonic() + 60.0
            while time.monotonic() < until:
                if "step" in (line := describe(read_status(store_of(paths), "cells"))):
                    seen.append(line)
                    break
                time.sleep(0.02)
            return super().__call__(spec, *args, **kwargs)

    monkeypatch.setattr(status, "read_running", checkpointed)
    tally = Tally(plan_study(paths, params, "cells"))
    tally.wants_reached = True
    monkeypatch.setattr("pipeline.sweep.run.follow", lambda plan, stream: LineProgress(tally, stream))
    sweep(paths, params, Look())
    assert len(seen) == 4
    assert ", step 5 of 6, validation loss 0.5  on " in seen[0]
    assert set(tally.reached.values()) == {(5, 0.5)}  # what the live table shows
    assert not list((paths.root / ".trials" / status.FOLDER).glob("*.worker"))


def test_a_worker_that_was_lost_is_not_running_and_is_forgotten(project: tuple[Paths, Params]) -> None:
    paths, params = project
    sweep(paths, params, FakeTrain())
    store = store_of(paths)
    (gone, *_) = store.summaries()
    (paths.root / ".trials" / f"{gone}.zip").unlink()
    (paths.root / ".trials" / f"{gone}.checkpoint").write_bytes(b"half way")
    said = {"host": "node-9", "pid": 7, "since": "2026-01-01T00:00:00+00:00", "trials": [gone]}
    word = paths.root / ".trials" / status.FOLDER / "lost.worker"
    word.write_text(json.dumps(said))
    assert [running.host for running in read_status(store, "cells").running] == ["node-9"]
    assert "no progress" not in describe(read_status(store, "cells"))
    word.write_text(json.dumps(said | {"signs": 3, "silent_s": 700.0}))
    line = describe(read_status(store, "cells")).splitlines()[1]
    assert line.endswith("on node-9 (pid 7) since 2026-01-01T00:00:00+00:00, no progress for 12 min")
    os.utime(word, (1, 1))
    found = read_status(store, "cells")
    assert (found.running, found.num_halted) == ([], 1)
    assert "1 begun and halted" in describe(found)
    (paths.root / ".trials" / f"{gone}.checkpoint").unlink()
    sweep(paths, params, FakeTrain())
    assert not word.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_bucket_says_how_far_a_study_is(project: tuple[Paths, Params], bucket: str) -> None:
    paths, params = project
    sweep(paths, params.__class__(**{**vars(params), "trial_store": bucket}), FakeTrain())
    assert read_status(TrialStore(bucket), "cells").statuses == {"ok": 4}


@pytest.mark.parametrize("damage", [b"", b"[]", b"{"])
def test_a_damaged_word_is_none(project: tuple[Paths, Params], damage: bytes) -> None:
    paths, params = project
    sweep(paths, params, FakeTrain())
    folder = paths.root / ".trials" / status.FOLDER
    (folder / "cells.json").write_bytes(damage)
    (folder / "x.worker").write_bytes(damage)
    assert read_status(store_of(paths), "cells").num_done == 4
    (folder / "cells.plan.json").write_bytes(damage)
    with pytest.raises(SweepError, match="unknown study 'cells'"):
        read_status(store_of(paths), "cells")


def test_the_command(
    project: tuple[Paths, Params], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params = project
    url = str(paths.root / ".trials")
    assert main(["status", "--store", url]) == 0
    assert "nothing has been swept into this trial store" in capsys.readouterr().out
    sweep(paths, params, FakeTrain())
    monkeypatch.chdir(paths.root)
    assert main(["status", "--watch"]) == 0  # nobody sweeps: once is enough
    assert capsys.readouterr().out == "cells: 4 of 4 done, 0 running, 0 to go, 0 failed\n"
    assert main(["status", "cells", "--json", "--store", url]) == 0
    assert json.loads(capsys.readouterr().out)["num_done"] == 4
    assert main(["status", "cels", "--store", url]) == 2
    assert "unknown study 'cels'; did you mean 'cells'?" in capsys.readouterr().err


def test_a_trial_that_ends_while_the_store_is_read_counts_the_next_time(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params = project
    sweep(paths, params, FakeTrain())
    store = store_of(paths)
    last = store.read(max(store.ids()))
    (paths.root / ".trials" / f"{last.trial_id}.zip").unlink()
    listing = FolderObjects.listing

    def ends_afterwards(objects: FolderObjects) -> dict[str, Entry]:
        found = listing(objects)
        if objects.folder == paths.root / ".trials":
            store.put(last)
        return found

    monkeypatch.setattr(FolderObjects, "listing", ends_afterwards)
    assert read_status(store, "cells").num_done == 3
    assert read_status(store, "cells").num_done == 4


def test_watching_goes_on_until_the_sweep_ends(project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    paths, params = project
    sweep(paths, params, FakeTrain())
    drivers = iter(["pid 1 on node-3", None])
    monkeypatch.setattr(status, "driver_of", lambda *_: next(drivers))
    monkeypatch.setattr(workers, "BEAT_S", 0.01)
    shown = io.StringIO()
    show(store_of(paths), [], watches=True, as_json=False, stream=shown)
    assert len(shown.getvalue().splitlines()) == 2


def test_of_settings_with_one_title_each_that_failed_counts(tmp_path: Path) -> None:
    """Their labels name the optimiser, not the rate that sets them apart."""
    optimisers = [{"name": "sgd", "learning_rate": rate} for rate in (0.1, 0.2)]
    paths, params = write_project(
        tmp_path, grids=grid(optimiser=optimisers, model__cell=["elman", "lstm"]), select=None
    )
    with pytest.raises(SweepError, match="2 of 4 settings failed"):
        sweep(paths, params, FakeTrain(fails_on="elman"))
    found = read_status(store_of(paths), "cells")
    assert (found.statuses, len(found.failed)) == ({"ok": 2, "error": 2}, 2)
    assert "0 to go, 2 failed" in describe(found)
