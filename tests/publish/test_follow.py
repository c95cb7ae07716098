"""What trains is seen in W&B while it trains: a real sweep, a real wandb, a server on loopback."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.config import Params, Paths, load_params
from pipeline.core.training import run_trial
from pipeline.publish import Publisher
from pipeline.publish.follow import Follower, PublishError, follow
from pipeline.publish.views import history
from pipeline.results import read_table
from pipeline.results.running import read_running
from pipeline.results.store import TrialStore
from pipeline.sweep import plan_study, run_sweep
from pipeline.sweep.executors import train_inline
from pipeline.sweep.plan import Setting
from stages.publish import followed, main
from tests.publish.conftest import warnings_of
from tests.publish.offline_run import OfflineRun, offline_folders
from tests.publish.wandb_server import WandbServer
from tests.sweep.fakes import PARAMS, grid, sweep, write_project, write_yaml

NUM_STEPS = 6


@pytest.fixture
def server(server: WandbServer, monkeypatch: pytest.MonkeyPatch, heatmap: list[int]) -> WandbServer:
    """The server of all of these tests, of which a follower wants news each second."""
    monkeypatch.setattr("pipeline.publish.client.LIVE_INTERVAL_S", 1)
    return server


@pytest.fixture
def project(tmp_path: Path) -> tuple[Paths, Params]:
    """Two settings of two seeds."""
    paths, _ = write_project(tmp_path / "project", grids=grid(model__cell=["elman", "lstm"]), select=None)
    write_yaml(paths.params, PARAMS | {"tracking": {"mode": "auto", "project": "gradients", "entity": "team"}})
    return paths, load_params(paths)


class Watched:
    """A checkpoint slot that calls `look` whenever a trial has left a checkpoint, as if a second had passed there."""

    def __init__(self, slot: Any, look: Callable[[], object]) -> None:
        self.load, self._slot, self._look = slot.load, slot, look

    def save(self, data: bytes) -> None:
        self._slot.save(data)
        self._look()


def train_and(look: Callable[[], object]) -> Callable[..., Any]:
    """A training function that leaves a checkpoint after every update."""

    def train(*arguments: Any, checkpoints: Any, **more: Any) -> Any:
        return run_trial(*arguments, checkpoints=Watched(checkpoints, look), checkpoint_interval_s=0.0, **more)

    return train


def follower_of(paths: Paths, params: Params, **more: Any) -> Follower:
    store = TrialStore.of(paths, params.trial_store)
    studies = [followed(plan_study(paths, params, study)) for study in params.studies]
    return Follower(Publisher(paths, params), paths, store, studies, io.StringIO(), **more)


def wait_for(what: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """A history without W&B's clocks, media, and the row of pictures and tables."""
    kept = [
        {key: it for key, it in row.items() if isinstance(it, int | float) and key[0] != "_" and "." not in key}
        for row in rows
    ]
    return [row for row in kept if row.keys() > {"step"}]


def test_a_study_is_seen_while_it_trains_and_in_the_end_as_its_tables_have_it(
    project: tuple[Paths, Params], server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params = project
    monkeypatch.chdir(paths.root)
    follower, seen = follower_of(paths, params), []

    def has_come() -> dict[str, tuple[int, str | None]]:
        return {name: (len(run.history), run.summary.get("status")) for name, run in server.runs.items()}

    def look() -> None:
        follower.look()
        if len(seen) in {3, 5}:  # W&B sends what it was given when it likes to
            before = max((rows for rows, _ in seen[3].values()), default=0) if len(seen) > 3 else 0
            wait_for(lambda: any(rows > before and status == "training" for rows, status in has_come().values()))
        seen.append(has_come())

    sweep(paths, params, train_and(look))
    assert len(server.runs) == 2
    assert any(0 < rows < NUM_STEPS and status == "training" for of in seen for rows, status in of.values())
    lengths = [[of.get(name, (0,))[0] for of in seen] for name in server.runs]
    assert lengths == [sorted(row) for row in lengths]  # each row comes once, in order
    follower.look()
    follower.close()
    assert follower.num_waiting == 0
    curves, trials = (read_table(table, paths.results("cells")) for table in ("curves", "trials"))
    for run in server.runs.values():
        spec = json.loads(trials.filter(trial_id=run.config["trial_id"]["value"])["spec"][0])
        mine = curves.filter(trial_id=run.config["trial_id"]["value"])
        assert numbers(run.history) == history(mine, spec)
        assert [row["_step"] for row in run.history] == list(range(len(run.history)))
        assert_equals_table(numbers(run.history), mine)
        assert (run.summary["status"], run.summary["num_seeds"]) == ("ok", 2)
    operations = len(server.operations)
    assert main([]) == 0  # what the follower sent is not sent again: the study's own run alone
    assert len(server.runs) == 3
    assert "CreateArtifact" in server.operations[operations:]
    operations = len(server.operations)
    assert main(["cells", "--mode", "online"]) == 0
    assert len(server.operations) == operations


def assert_equals_table(rows: list[dict[str, float]], curves: pl.DataFrame) -> None:
    """Every seed's losses are those of the table, and there is no other step."""
    shown = {
        (row["step"], int(name.rsplit("/", 1)[1])): row[name] for row in rows for name in row if "seeds/loss" in name
    }
    losses = curves.filter(metric="loss", split="validation")
    assert shown == {(step, seed): value for step, seed, value in losses.select("step", "seed", "value").iter_rows()}
    assert [row["step"] for row in rows] == sorted(curves["step"].unique())


class Killed(BaseException):
    """The end of a process, as it were."""


def to_a_rung(settings: Sequence[Setting], *more: Any) -> None:
    train_inline(1, [replace(setting, stop_at=NUM_STEPS // 2) for setting in settings], *more)


def test_what_a_search_stopped_is_left_to_the_publishing_of_the_study(
    project: tuple[Paths, Params], server: WandbServer
) -> None:
    paths, params = project
    follower = follower_of(paths, params)
    run_sweep(paths, params, "cells", to_a_rung, stream=io.StringIO())
    follower.look()
    assert (follower.num_waiting, follower.num_stopped, follower.num_sent) == (0, 2, 0)
    assert server.runs == {}
    swept = iter([True, False])
    follow(follower, paths.root / "wandb", 0.0, lambda: False, lambda: next(swept))  # ends with the sweep
    assert next(swept, None) is None


@pytest.mark.parametrize("is_another", [False, True], ids=["the same follower", "another follower"])
def test_what_goes_on_after_a_rung_is_one_run_with_each_step_once(
    is_another: bool, project: tuple[Paths, Params], server: WandbServer
) -> None:
    paths, params = project
    follower, seen = follower_of(paths, params), list[list[int]]()
    run_sweep(paths, params, "cells", to_a_rung, stream=io.StringIO(), train=train_and(follower.look))
    follower.look()
    assert (follower.num_waiting, follower.num_stopped) == (0, 2)
    assert [len(run.history) for run in server.runs.values()] == [NUM_STEPS // 2] * 2
    if is_another:
        follower.close()
        follower = follower_of(paths, params)
        assert (follower.num_waiting, follower.num_stopped) == (0, 2)

    def look() -> None:
        follower.look()
        if len(seen) == 2:  # W&B sends what it was given when it likes to
            wait_for(lambda: any(len(run.history) > NUM_STEPS // 2 for run in server.runs.values()))
        seen.append([len(run.history) for run in server.runs.values()])

    sweep(paths, params, train_and(look))
    follower.look()
    follower.close()
    assert (follower.num_waiting, follower.num_stopped, follower.num_sent) == (0, 0, 2)
    assert any(NUM_STEPS // 2 < rows <= NUM_STEPS for of in seen for rows in of)  # while it trained
    assert len(server.runs) == 2
    for run in server.runs.values():
        assert [row["_step"] for row in run.history] == list(range(NUM_STEPS + 2))
        assert [row["step"] for row in run.history] == [*range(NUM_STEPS + 1), NUM_STEPS]
        assert run.summary["status"] == "ok"


def test_a_killed_and_resumed_trial_has_one_run_with_each_step_once(
    project: tuple[Paths, Params], server: WandbServer
) -> None:
    """And the follower is another one after that."""
    paths, params = project
    first, looks = follower_of(paths, params), []

    def look_and_die() -> None:
        first.look()
        looks.append(1)
        if len(looks) == 4:
            raise Killed

    with pytest.raises(Killed):
        sweep(paths, params, train_and(look_and_die))
    first.close()
    assert [len(run.history) for run in server.runs.values()] == [3]
    second = follower_of(paths, params)
    sweep(paths, params, train_and(second.look))
    second.look()
    second.close()
    assert len(server.runs) == 2
    for run in server.runs.values():
        assert [row["_step"] for row in run.history] == list(range(NUM_STEPS + 2))
        assert [row["step"] for row in run.history] == [*range(NUM_STEPS + 1), NUM_STEPS]
        assert run.tags == ["cells", run.config["model"]["value"]["cell"], "adding"]


def test_a_follower_that_is_killed_is_taken_over(project: tuple[Paths, Params], server: WandbServer) -> None:
    paths, params = project
    with pytest.raises(Killed):
        sweep(paths, params, train_and(_die_after(5)))
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "stages" / "publish.py"), "--follow", "--interval", "0.1"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(command, cwd=paths.root, env=environment, stdout=subprocess.PIPE)
    try:
        wait_for(lambda: any(len(run.history) >= 4 for run in server.runs.values()), 90.0)
    finally:
        process.kill()
        process.communicate()
    (run,) = server.runs.values()
    found = len(run.history)
    follower = follower_of(paths, params)
    sweep(paths, params, train_and(follower.look))
    follower.look()
    follower.close()
    assert found < NUM_STEPS
    assert [row["_step"] for row in run.history] == list(range(NUM_STEPS + 2))


def _die_after(saves: int) -> Callable[[], None]:
    made: list[int] = []

    def look() -> None:
        made.append(1)
        if len(made) == saves:
            raise Killed

    return look


def test_a_slow_server_that_fails_for_a_while_gets_every_row_once(
    project: tuple[Paths, Params], server: WandbServer
) -> None:
    paths, params = project
    server.failures, server.delay_s = [429], 0.02
    follower = follower_of(paths, params)
    sweep(paths, params, train_and(follower.look))
    follower.look()
    follower.close()
    assert server.failures == []
    assert [[row["_step"] for row in run.history] for run in server.runs.values()] == [[*range(NUM_STEPS + 2)]] * 2


def test_a_dead_server_costs_a_line_now_and_then_and_nothing_of_the_study(
    project: tuple[Paths, Params],
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths, params = project
    now = [0.0]
    with monkeypatch.context() as patched:
        patched.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        follower = follower_of(paths, params, clock=lambda: now[0])
        sweep(paths, params, train_and(follower.look))
        assert len(warnings_of(caplog)) == 1
        assert "failed: CommError" in warnings_of(caplog)[0]
    now[0] = 61.0
    follower.look()
    follower.close()
    assert follower.num_waiting == 0
    assert [len(run.history) for run in server.runs.values()] == [NUM_STEPS + 2] * 2


def test_a_refused_key_ends_it(
    project: tuple[Paths, Params], server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, params = project
    server.keys = {"another"}
    with pytest.raises(Killed):
        sweep(paths, params, train_and(_die_after(3)))
    follower = follower_of(paths, params)
    with pytest.raises(PublishError, match="refuses the API key"):
        follower.look()
    follower.close()
    assert not server.runs


def test_without_a_key_nothing_is_live(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project[0].root)
    assert main(["--follow"]) == 0
    assert capsys.readouterr().out.startswith("follow: W&B is offline, so nothing is live")
    assert main(["--follow", "--mode", "online"]) == 1


def test_a_second_follower_is_refused(project: tuple[Paths, Params], server: WandbServer) -> None:
    paths, params = project
    first, second = follower_of(paths, params), follower_of(paths, params)

    def is_over() -> bool:
        with pytest.raises(PublishError, match="follow.lock: another follower is at work here"):
            follow(second, paths.root / "wandb", 0.0, lambda: True, lambda: False)
        return True

    follow(first, paths.root / "wandb", 0.0, is_over, lambda: False)


def test_what_is_not_a_checkpoint_is_looked_at_later(project: tuple[Paths, Params], server: WandbServer) -> None:
    paths, params = project
    store = TrialStore.of(paths, params.trial_store)
    follower = follower_of(paths, params)
    (identity, *_) = sorted({setting.trial_id for setting in plan_study(paths, params, "cells").settings})
    store.objects.write(f"{identity}.checkpoint", b"not a checkpoint")
    assert read_running(store, identity) is None
    assert read_running(store, "0" * 16) is None
    follower.look()
    follower.close()
    assert not server.runs


def test_what_is_written_offline_is_synced_later(
    project: tuple[Paths, Params], server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By W&B's own command, on a machine that has the folders alone."""
    paths, params = project
    monkeypatch.chdir(paths.root)
    sweep(paths, params, run_trial)
    assert main(["--mode", "offline"]) == 0
    folders = offline_folders(paths.root)
    assert len(folders) == 3
    elsewhere = paths.root.parent / "elsewhere"
    shutil.move(paths.root / "wandb", elsewhere)
    written = {run.run["run_id"]: run for run in map(OfflineRun, sorted(elsewhere.glob("offline-run-*")))}
    wandb = str(Path(sys.executable).with_name("wandb"))  # of this environment, activated or not
    command = [wandb, "sync", "--project", "gradients", *map(str, sorted(elsewhere.glob("offline-run-*")))]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"WANDB_MODE": "online"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.runs.keys() == written.keys()
    for name, run in server.runs.items():
        assert numbers(run.history) == numbers(written[name].rows)
        assert len(run.history) == len(written[name].rows)
