from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from pipeline.config import Params, Paths, Resources
from pipeline.config import params as config_params
from pipeline.errors import SweepError
from pipeline.results import read_table
from pipeline.results.store import TrialStore
from pipeline.sweep import current_plan
from pipeline.sweep.trial import Job

from . import fakes
from .fakes import NUM_STEPS, STUDY, FakeTrain, assert_same_tables, grid, sweep, write_project, write_yaml

executor_ray = pytest.importorskip("pipeline.sweep.executor_ray")

Project = tuple[Paths, Params]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Path:
    """The results of the same study, trained in this process without Ray."""
    project = write_project(tmp_path / "undisturbed")
    sweep(*project, FakeTrain())
    return project[0].results("cells")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder for a driver that cannot tidy up; short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="driver-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def steps_made(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


@pytest.mark.usefixtures("ray_cluster")
def test_ray_finishes_a_sweep_and_extends_it(project: Project, undisturbed: Path, tmp_path: Path) -> None:
    paths, params = project
    assert "4 settings: 0 from the store, 4 trained, 0 diverged, 0 failed" in sweep(paths, params, FakeTrain(), "ray")
    assert_same_tables(paths.results("cells"), undisturbed)
    assert "4 from the store, 0 trained" in sweep(paths, params, FakeTrain(fails_on="elman"), "ray")
    wider = grid(model__cell=["elman", "lstm", "gru"], optimiser__learning_rate=[0.1, 0.2])
    write_yaml(paths.study_config("cells"), {**STUDY, "grids": wider})
    with pytest.raises(
        SweepError, match=r"2 of 6 settings failed, the others are kept(.*\n)+RuntimeError: no kernel for gru"
    ):
        sweep(paths, params, FakeTrain(fails_on="gru", journal=tmp_path / "journal"), "ray")
    assert steps_made(tmp_path / "journal") == []
    assert read_table("trials", paths.results("cells"))["status"].to_list() == ["ok"] * 8 + ["error"] * 4


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_worker_and_one_that_hangs_go_on_from_their_checkpoints(
    project: Project, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_params, "MIN_SILENCE_S", 0.0)
    journal, (paths, params) = tmp_path / "journal", project
    params = replace(params, resources=replace(params.resources, max_silence_s=3.0))
    shown = sweep(paths, params, FakeTrain(die_at=3, deaths=(fakes.kill, fakes.hang), journal=journal), "ray")
    assert (tmp_path / "death-1").exists()
    assert "4 trained, 0 diverged, 0 failed" in shown
    assert re.search(r"\] lost the worker of cells: \S+ \S+: starts again", shown)
    assert re.search(r"\] lost the worker of cells: \S+ \S+ \(no progress for \S+ s, pid \d+ on \S+\): starts a", shown)
    assert shown.count("lost the worker") == 2
    assert {"1 running", "2 running"} >= set(re.findall(r"[1-9] running", shown))
    assert len(steps_made(journal)) == len(set(steps_made(journal))) == 4 * NUM_STEPS
    assert_same_tables(project[0].results("cells"), undisturbed)


def test_a_worker_lost_too_often_is_an_error(project: Project, tmp_path: Path) -> None:
    setting = current_plan(*project, "cells", TrialStore(tmp_path)).settings[0]
    watch, trial, job = Mock(), Mock(config={"trial_id": setting.trial_id}), Job(str(tmp_path), None, "cpu", 1, 60.0)
    trial.get_error.return_value = "The worker died unexpectedly.\nno more is known"
    executor_ray._Watching(watch, {setting.trial_id: (setting,)}, job, Resources(1.0, 0.0)).on_trial_error(1, [], trial)
    ((told, outcome), _) = watch.finished.call_args
    assert told is setting
    assert outcome.status == "error"
    assert outcome.message == "given up after 4 attempts: The worker died unexpectedly."


def test_a_worker_that_hangs_too_often_is_an_error_by_name(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = current_plan(*project, "cells", TrialStore(tmp_path)).settings[0]
    watch, job = Mock(), Job(str(tmp_path), None, "cpu", 1, 60.0)
    trial, worker = Mock(config={"trial_id": setting.trial_id}), object()
    trial.temporary_state.ray_actor, killed = worker, list[object]()
    trial.get_error.return_value = "The worker died unexpectedly."
    monkeypatch.setattr(executor_ray.ray, "kill", killed.append)
    watching = executor_ray._Watching(watch, {setting.trial_id: (setting,)}, job, Resources(1.0, 0.0))
    monkeypatch.setattr(watching.silence, "found", lambda: {setting.trial_id: "no progress for 60 s, pid 7 on node-3"})
    for _ in range(2):
        watching.on_step_begin(1, [Mock(config={"trial_id": "another"}), trial])
    assert killed == [worker]  # once
    watching.on_trial_error(1, [], trial)
    message = "given up after 4 attempts: no progress for 60 s, pid 7 on node-3: killed"
    assert watch.finished.call_args.args[1].message == message
    never = executor_ray._Watching(watch, {setting.trial_id: (setting,)}, job, Resources(1.0, 0.0, 32, None))
    never.on_step_begin(1, [trial])
    with never.for_silence():
        assert (never.silence, killed) == (None, [worker])


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_driver_is_run_again(project: Project, undisturbed: Path, tmp_path: Path, short_folder: Path) -> None:
    journal = tmp_path / "journal"
    program = f"import sys; from {fakes.__name__} import drive; drive(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(project[0].root), str(journal)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(short_folder)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: len(steps_made(journal)) >= 3)
        begun = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, begun)))  # Ray's processes end soon after their driver
    assert list(project[0].default_store.glob("*.checkpoint"))
    sweep(*project, FakeTrain(journal=journal), "ray")
    assert len(steps_made(journal)) == len(set(steps_made(journal)))
    assert not list(project[0].default_store.glob("*.checkpoint"))
    assert_same_tables(project[0].results("cells"), undisturbed)


def wait_until(condition, limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process is no more, or nobody has asked yet how it ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(64.0, 0.0), "resources.cpus_per_trial: expected at most 2, the CPUs of this machine; got 64"),
        (Resources(1.0, 0.5), "resources.gpus_per_trial: expected at most 0, the GPUs of this machine; got 0.5"),
    ],
)
def test_what_the_machine_has_not_is_refused(resources: Resources, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        executor_ray.RayExecutor(resources, None)([], None, None, None)


@pytest.mark.usefixtures("ray_cluster")
def test_rays_own_server_answers_the_probe() -> None:
    executor_ray._probe(executor_ray.ray.get_runtime_context().gcs_address)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            f"127.0.0.1:{closed_port()}",
            r"RAY_ADDRESS=127.0.0.1:\d+: nothing answers there within 3 s; .*unset RAY_ADDRESS",
        ),
        (f"[::1]:{closed_port()}", r"RAY_ADDRESS=\[::1\]:\d+: nothing answers there within 3 s; .*unset RAY_ADDRESS"),
        ("somewhere", r"RAY_ADDRESS=somewhere: expected host:port, such as 10.0.0.1:6379 or \[::1\]:6379, or auto"),
        ("::1:6379", r"RAY_ADDRESS=::1:6379: expected host:port"),
        ("head:0", r"RAY_ADDRESS=head:0: expected host:port"),
        ("head:65536", r"RAY_ADDRESS=head:65536: expected host:port"),
        ("ray://head:10001", r"RAY_ADDRESS=ray://head:10001: .*`ray job submit"),
    ],
    ids=[
        "closed",
        "closed, IPv6",
        "a word",
        "IPv6 without brackets",
        "port 0",
        "port 65536",
        "a client's",
    ],  # the same in every process: a port is another each time
)
def test_an_address_without_a_cluster_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setattr(executor_ray.ray, "is_initialized", lambda: False)
    started = time.monotonic()
    with pytest.raises(SweepError, match=message), executor_ray.connected(address):
        pass
    assert time.monotonic() - started < 30  # Ray itself waits for minutes


@pytest.mark.parametrize("says", [b"", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"], ids=["nothing", "HTTP/2 settings"])
def test_a_port_that_accepts_and_is_not_rays_is_refused_in_bounded_time(
    says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_ray, "PROBE_TIMEOUT_S", 0.7)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])
                    taken[-1].sendall(says)

        accepting = threading.Thread(target=accept)
        accepting.start()
        started = time.monotonic()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SweepError, match=f"RAY_ADDRESS={address}: what listens there does not answer as Ray does"):
            executor_ray._probe(address)
        assert time.monotonic() - started < 30
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for connection in taken:
            connection.close()


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_sweep_ends_in_a_line_when_ray_itself_is_gone(
    is_elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_ray, "LOOK_S", 0.05)
    monkeypatch.setattr(executor_ray, "HEAD_GONE_AFTER_S", 0.3)
    head = f"127.0.0.1:{closed_port()}"
    monkeypatch.setattr(executor_ray.ray, "get_runtime_context", lambda: Mock(gcs_address=head))
    agent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)])
    message = (
        rf"RAY_ADDRESS=auto: no answer from {head} for 0 s; run" if is_elsewhere else r"Ray's python\S* on this ma"
    )

    def work() -> None:
        with executor_ray._watched(tmp_path, "auto" if is_elsewhere else None):
            time.sleep(0.2)
            if not is_elsewhere:
                agent.kill()
            time.sleep(20)

    try:
        with pytest.raises(SweepError, match=f"{message}.* again, finished trials are kept"):
            work()
        executor_ray._leave(tmp_path, is_ours=False)
        assert not tmp_path.exists()
    finally:
        agent.kill()
        agent.wait()


def test_what_ray_fails_with_is_a_line() -> None:
    message = r"Ray failed: OSError: \[Errno 28\] No space left; run again, finished trials are kept"
    with pytest.raises(SweepError, match=message), executor_ray._errors_in_a_line():
        raise OSError(errno.ENOSPC, "No space left\nand more")


@pytest.mark.parametrize("is_writable", [True, False])
def test_ray_keeps_its_token_to_itself_where_home_cannot_be_written(
    is_writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path if is_writable else tmp_path / "file"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "to be put back")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    executor_ray._need_no_home()
    assert ("RAY_AUTH_TOKEN" in os.environ) is not is_writable


@pytest.mark.parametrize(("grows", "nodes"), [(False, [(4, 0), (1, 1)]), (True, [(4, 0)]), (False, [(4, 0), (2, 1)])])
def test_a_cluster_without_room_is_refused_or_waited_for_by_name(
    grows: bool,
    nodes: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_CLUSTER_NAME", "x") if grows else monkeypatch.delenv("RAY_CLUSTER_NAME", raising=False)
    there = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in nodes]
    there.append({"Alive": False, "Resources": {"CPU": 64, "GPU": 8}})
    monkeypatch.setattr(executor_ray.ray, "nodes", lambda: there)
    line = "params.yaml: resources.gpus_per_trial: no node of the cluster has the 2 CPU, 0.5 GPU of one trial; it has "
    if nodes[-1] == (2, 1):
        executor_ray._check_room(Resources(2.0, 0.5), embedded=False)
        line = ""
    elif grows:
        executor_ray._check_room(Resources(2.0, 0.5), embedded=False)
        line = f"sweep: {line}4 CPU, 0 GPU; waiting for the cluster to grow\n"
    else:
        with pytest.raises(SweepError, match=f"{line}4 CPU, 0 GPU; 1 CPU, 1 GPU; nothing adds nodes by itself"):
            executor_ray._check_room(Resources(2.0, 0.5), embedded=False)
        line = ""
    assert capsys.readouterr().err == line


def test_a_cluster_that_shrinks_to_nothing_is_waited_for_and_costs_no_attempt(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    setting, watch = current_plan(*project, "cells", TrialStore(tmp_path)).settings[0], Mock()
    job, trial = Job(str(tmp_path), None, "cpu", 1, 60.0), Mock(config={"trial_id": setting.trial_id})
    there = [{"Alive": True, "Resources": {"CPU": 1}}]
    monkeypatch.setattr(executor_ray.ray, "nodes", lambda: there)
    monkeypatch.setattr(executor_ray, "LOOK_S", 0.0)
    by_id = {setting.trial_id: (setting,)}
    watching = executor_ray._Watching(watch, by_id, job, Resources(1.0, 0.0), is_cluster=True)
    watching.on_trial_start(1, [], trial)
    there[0]["Alive"] = False
    watching.on_step_begin(1, [trial])
    assert capsys.readouterr().err == ""  # as long as Ray takes the trial for a running one
    trial.run_metadata.num_failures = 1
    watching.on_trial_recover(1, [], trial)
    assert trial.run_metadata.num_failures == 1
    for _ in range(2):
        watching.on_step_begin(1, [trial])
    line = "no node of the cluster has the 1 CPU, 0 GPU of one trial; it has no node; waiting for nodes"
    assert capsys.readouterr().err == f"sweep: params.yaml: resources.cpus_per_trial: {line}\n"
    trial.run_metadata.num_failures = 2
    watching.on_trial_recover(1, [], trial)  # its worker was about to start
    assert trial.run_metadata.num_failures == 1
    assert watch.lost.call_count == 1
    there[0]["Alive"] = True
    watching.on_step_begin(1, [trial])
    assert capsys.readouterr().err == "sweep: the cluster has room again\n"


@pytest.mark.parametrize(
    "error",
    [ConnectionError("no Ray there"), executor_ray.ray.exceptions.AuthenticationError("no Ray there")],
    ids=["another server", "a token"],
)
def test_a_cluster_that_cannot_be_joined_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(**options: object) -> None:
        raise error

    monkeypatch.setattr(executor_ray.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(executor_ray.ray, "init", refuse)
    with (
        pytest.raises(SweepError, match=r"RAY_ADDRESS=auto: Ray cannot be joined: no Ray there.*RAY_AUTH_MODE=token"),
        executor_ray.connected("auto"),
    ):
        pass
