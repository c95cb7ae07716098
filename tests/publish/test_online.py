from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator

import pytest

from pipeline.config import Paths
from pipeline.publish import Publisher
from tests.publish.conftest import KEY, STEPS, TRIAL_IDS, Trial, make_trial, params_with, warnings_of, write_study
from tests.publish.conftest import publish as publish_with
from tests.publish.offline_run import offline_folders
from tests.publish.wandb_server import WandbServer
from tests.quantities.conftest import geometric

RUN_ID = f"cells-adding-{TRIAL_IDS[0]}"
NUM_ROWS = STEPS + 2  # step 0, every update, and the row of pictures and tables


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def publish(paths: Paths, *trials: Trial) -> Publisher:
    publisher = Publisher(paths, params_with("auto"))
    publish_with(paths, publisher, *trials)
    publisher.close()
    return publisher


def forget(paths: Paths) -> None:
    """Publish from another machine, as it were."""
    shutil.rmtree(paths.root / "wandb")


def test_a_setting_goes_online_once(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    assert publish(paths, make_trial(), make_trial()).mode == "online"
    run = server.runs[RUN_ID]
    assert (run.fields["displayName"], run.fields["groupName"], run.fields["jobType"]) == (
        "lstm, T=10",
        "cells",
        "trial",
    )
    assert run.config["model"]["value"]["cell"] == "lstm"
    assert [row["step"] for row in run.history[:-1]] == list(range(STEPS + 1))
    assert run.history[-1]["gradient_heatmap"]["_type"] == "image-file"
    assert run.summary["test_loss/mean"] == pytest.approx(0.75**0.5)
    assert server.operations.count("RunResumeStatus") == 1


def test_another_machine_adds_no_row(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    publish(paths, make_trial())
    forget(paths)
    publish(paths, make_trial())
    assert len(server.runs[RUN_ID].history) == NUM_ROWS


def test_an_interrupted_upload_goes_on_where_it_ended(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    publish(paths, make_trial())
    server.runs[RUN_ID].history = server.runs[RUN_ID].history[:7]
    server.runs[RUN_ID].summary = {}
    forget(paths)
    publish(paths, make_trial())
    history = server.runs[RUN_ID].history
    assert [row["_step"] for row in history] == list(range(NUM_ROWS))
    assert [row["step"] for row in history[:-1]] == list(range(STEPS + 1))


def test_a_new_label_keeps_the_history(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    publish(paths, make_trial())
    publish(paths, make_trial(label="lstm"))
    run = server.runs[RUN_ID]
    assert run.fields["displayName"] == "lstm"
    assert [row["_step"] for row in run.history] == list(range(NUM_ROWS))


def test_another_outcome_supersedes_the_run(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    publish(paths, make_trial())
    for _ in range(2):
        publish(paths, make_trial(loss=4.0))
        forget(paths)
    old, new = server.runs.values()
    assert old.tags == ["cells", "lstm", "adding", "superseded"]
    assert new.tags == ["cells", "lstm", "adding"]
    assert len(old.history) == len(new.history) == NUM_ROWS
    means = [run.history[0]["loss/validation/mean"] for run in (old, new)]
    assert means == pytest.approx([geometric([1.0, 2.0, 3.0])[0], geometric([4.0, 8.0, 12.0])[0]])


def test_what_went_online_leaves_no_folder_to_sync(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    offline = Publisher(paths, params_with("offline"))
    publish_with(paths, offline, make_trial())
    offline.close()
    assert len(offline_folders(paths.root)) == 1
    publish(paths, make_trial())
    assert not list((paths.root / "wandb").glob("*run-*/"))
    publish_with(paths, offline, make_trial())
    assert not offline_folders(paths.root)


def test_a_study_sends_its_artifacts(paths: Paths, heatmap: list[int], server: WandbServer) -> None:
    write_study(paths, [make_trial()])
    paths.dataset("adding").mkdir(parents=True)
    (paths.dataset("adding") / "manifest.json").write_text("{}")
    publisher = Publisher(paths, params_with("online"))
    publisher.study("cells")
    publisher.close()
    assert publisher.mode == "online"
    assert {"dataset-adding", "results-cells"} <= set(server.artifacts)
    aliases = {alias["alias"] for alias in server.artifacts["dataset-adding"]["aliases"]}
    assert aliases == {"latest", "d" * 16}


def test_a_dead_server_means_offline_from_there_on(
    paths: Paths, heatmap: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)  # the server is 127.0.0.1:9, see conftest
    started = time.monotonic()
    publisher = publish(paths, make_trial(), make_trial(TRIAL_IDS[1]))
    assert time.monotonic() - started < 60
    assert publisher.mode == "offline"
    assert publisher.num_failed == 0
    (warning,) = warnings_of(caplog)
    assert warning.startswith("W&B: 127.0.0.1:9 failed: CommError")
    assert "connection refused" in warning
    assert len(offline_folders(paths.root)) == 2
    assert not [path for path in paths.root.parent.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in caplog.text


def test_a_silent_server_does_not_hang(
    paths: Paths,
    heatmap: list[int],
    silent_address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", silent_address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("pipeline.publish.client.INIT_TIMEOUT_S", 2.0)
    started = time.monotonic()
    assert publish(paths, make_trial()).mode == "offline"
    assert time.monotonic() - started < 60
    assert len(warnings_of(caplog)) == 1
    assert len(offline_folders(paths.root)) == 1


def test_what_stayed_offline_is_sent_when_the_server_is_back(
    paths: Paths, heatmap: list[int], server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        publish(paths, make_trial())
    assert len(offline_folders(paths.root)) == 1
    assert publish(paths, make_trial()).mode == "online"
    assert len(server.runs[RUN_ID].history) == NUM_ROWS
    assert not offline_folders(paths.root)


def test_a_server_that_falls_silent_does_not_hang(
    paths: Paths,
    heatmap: list[int],
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pipeline.publish.client.FINISH_TIMEOUT_S", 1.0)
    server.takes_history = False
    started = time.monotonic()
    assert publish(paths, make_trial(), make_trial(TRIAL_IDS[1])).mode == "offline"
    assert time.monotonic() - started < 60
    (warning,) = warnings_of(caplog)
    assert "TimeoutError" in warning
    assert len(offline_folders(paths.root)) == 2
    assert not list((paths.root / "wandb").glob("run-*/"))
