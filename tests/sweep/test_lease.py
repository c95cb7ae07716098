"""Two drivers are two processes here; on another machine, or killed, as a driver may be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Params, Paths
from pipeline.errors import StoreError, SweepError
from pipeline.results.objects import open_objects
from pipeline.results.store import TrialStore
from pipeline.sweep import lease
from pipeline.sweep.lease import FOLDER, sweep_lease

from .fakes import NUM_STEPS, FakeTrain, sweep, write_project

Project = tuple[Paths, Params]

HOLD = """
import sys, time
from pipeline.results.store import TrialStore
from pipeline.sweep import lease
lease.HEARTBEAT_S = 0.1
if sys.argv[2] == "elsewhere":
    lease.this_machine = lambda: "another machine"
with lease.sweep_lease(TrialStore(sys.argv[1]), "cells"):
    print("held", flush=True)
    time.sleep(120)
"""
DRIVE = """
import sys
from dataclasses import replace
from pathlib import Path
from pipeline.config import Paths, load_params
from pipeline.sweep import executor_named, lease, run_sweep
from tests.sweep.fakes import FakeTrain
lease.HEARTBEAT_S = 0.1
lease.this_machine = lambda: "another machine"
paths = Paths.at(sys.argv[1])
params = replace(load_params(paths), trial_store=sys.argv[2])
train = FakeTrain(delay_s=0.3, journal=Path(sys.argv[3]))
run_sweep(paths, params, "cells", executor_named("inline", params), train=train)
"""
MOTO_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=["folder", pytest.param("s3", marks=MOTO_WARNS)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("bucket")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 3.0)


def driver(url: str, where: str) -> subprocess.Popen[str]:
    """A process that holds the lease, on this machine or as if on another."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(
        [sys.executable, "-c", HOLD, url, where], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "held\n"
    return started


def names(url: str) -> list[str]:
    return open_objects(url).below(FOLDER).names()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_second_driver_is_refused_and_takes_over_from_a_killed_one(url: str, where: str, quick: None) -> None:
    with driver(url, where) as first:
        refusal = rf"'cells' is being swept already by pid {first.pid} on {socket.gethostname()} since 20.*--wait.*kept"
        with pytest.raises(SweepError, match=refusal), sweep_lease(TrialStore(url), "cells"):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
    if where == "elsewhere":  # nothing but silence says so
        with pytest.raises(SweepError, match=refusal), sweep_lease(TrialStore(url), "cells"):
            pass
    said: list[str] = []
    with sweep_lease(TrialStore(url), "cells", wait=where == "elsewhere", say=said.append):
        assert names(url) == ["cells.00000002"]
    assert len(said) == (where == "elsewhere")


def test_two_clones_that_share_a_store_train_every_step_once(
    url: str, quick: None, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The first is killed in its second trial; the second waits, takes over, and goes on from the checkpoint."""
    other, _ = write_project(tmp_path / "other clone")
    journal, (paths, params) = tmp_path / "journal", project
    params = replace(params, trial_store=url)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", DRIVE, str(other.root), url, str(journal)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as first:
        while not journal.exists() or len(journal.read_text().splitlines()) < NUM_STEPS + 2:
            time.sleep(0.05)
        with pytest.raises(SweepError, match=rf"is being swept already by pid {first.pid} on"):
            sweep(paths, params, FakeTrain(journal=journal))
        first.send_signal(signal.SIGKILL)
    assert "1 from the store, 3 trained" in sweep(paths, params, FakeTrain(journal=journal), wait=True)
    assert f"is being swept by pid {first.pid} on" in capsys.readouterr().err
    lines = journal.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 4 * NUM_STEPS


def test_a_living_driver_of_another_machine_is_waited_for_however_long(url: str, quick: None) -> None:
    with driver(url, "elsewhere") as first:
        timer = threading.Timer(lease.DEAD_AFTER_S + 1.0, first.kill)
        timer.start()
        with sweep_lease(TrialStore(url), "cells", wait=True, say=lambda line: None):
            assert timer.finished.is_set()  # it was killed, and not taken for dead before


def test_studies_do_not_wait_for_each_other_and_an_ended_sweep_frees_its_lease(url: str) -> None:
    store = TrialStore(url)
    for _ in range(2):
        with sweep_lease(store, "cells"), sweep_lease(store, "gates"):
            pass
    assert names(url) == ["cells.00000002", "gates.00000002"]
    assert store.ids() == frozenset()


def test_of_two_that_create_an_object_one_succeeds(url: str) -> None:
    objects = open_objects(url).below(FOLDER)
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(objects.create("a", b"1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert objects.names() == ["a"]


def test_a_driver_whose_lease_was_taken_is_interrupted_and_names_who_has_it(tmp_path: Path, quick: None) -> None:
    store = TrialStore(tmp_path)
    other = {"pid": 7, "host": "node-3", "since": "noon"}

    def work() -> None:
        with sweep_lease(store, "cells"):
            store.objects.below(FOLDER).create("cells.00000002", json.dumps(other).encode())
            time.sleep(120)

    begun = time.monotonic()
    with pytest.raises(SweepError, match=r"'cells' was taken over by pid 7 on node-3 since noon.*finished trials"):
        work()
    assert time.monotonic() - begun < 60
    assert json.loads((tmp_path / FOLDER / "cells.00000002").read_bytes()) == other


def test_a_process_number_that_another_process_has_by_now_is_no_sign_of_life(tmp_path: Path) -> None:
    holder = {"pid": os.getpid(), "host": "h", "since": "s", "machine": lease.this_machine(), "started": "0"}
    TrialStore(tmp_path).objects.below(FOLDER).create("cells.00000001", json.dumps(holder).encode())
    with sweep_lease(TrialStore(tmp_path), "cells"):
        assert names(str(tmp_path)) == ["cells.00000002"]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"pid": 1}'])
def test_a_damaged_lease_is_refused_and_taken_over_when_silent(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 0.5)
    TrialStore(tmp_path).objects.below(FOLDER).create("cells.00000001", content)
    with (
        pytest.raises(SweepError, match="another driver, whose lease cannot be read"),
        sweep_lease(TrialStore(tmp_path), "cells"),
    ):
        pass
    with sweep_lease(TrialStore(tmp_path), "cells", wait=True, say=lambda line: None):
        pass


def test_a_lease_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"file/\.leases/.*: cannot be written"),
        sweep_lease(TrialStore(tmp_path / "file"), "c"),
    ):
        pass


def test_the_keys_in_a_stores_url_stand_in_no_error() -> None:
    with pytest.raises(StoreError) as caught:
        open_objects("s3://planted:secret@bucket/x?no_such_option=1")
    assert "s3://bucket/x" in str(caught.value)
    assert "planted" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert open_objects("s3://planted:secret@bucket/x?region=us-east-1").where == "s3://bucket/x"


def test_where_a_system_does_not_say_who_lives_silence_ends_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac."""
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 0.5)
    monkeypatch.setattr(lease, "this_machine", lambda: None)
    monkeypatch.setattr(lease, "process_started", lambda pid: None)
    holder = {"pid": 10**7, "host": "h", "since": "s", "machine": None, "started": None}
    TrialStore(tmp_path).objects.below(FOLDER).create("cells.00000001", json.dumps(holder).encode())
    with sweep_lease(TrialStore(tmp_path), "cells", wait=True, say=lambda line: None):
        assert names(str(tmp_path)) == ["cells.00000002"]
