from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.config import Paths, Sizes
from pipeline.data import prepare_dataset
from pipeline.results import HOST_COLUMNS, SCHEMAS, digest_tables, read_table
from pipeline.results.store import TrialStore
from pipeline.sweep.lease import sweep_lease

ROOT = Path(__file__).parents[2]
SIZES = {"num_train": 16, "num_validation": 8, "num_test": 8}

Stage = Callable[..., int]


@pytest.fixture
def stage() -> Stage:
    """The stage's `main`."""
    spec = importlib.util.spec_from_file_location("sweep_stage", ROOT / "stages" / "sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """The project's own study of cells, cut down to two tiny settings, as the current folder."""
    paths = Paths.at(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    edit(ROOT / "params.yaml", paths.params, scale="smoke", datasets=["adding"], studies=["cells"])
    edit(paths.params, paths.params, tracking={"mode": "disabled", "project": "test", "entity": None})
    edit(paths.scale_config("smoke"), paths.scale_config("smoke"), datasets=SIZES)
    study = paths.study_config("cells")
    small = {"training.batch_size": 8, "training.max_steps": 4, "training.evaluate_every": 2, "dataset.length": 5}
    measures = ["gates", "jacobians", "lyapunov", "smoothness", "truncation"]
    small |= {"diagnostics.num_traces": 2, "diagnostics.probe_size": 4, "diagnostics.measures": measures}
    grids = {"adding": {"figures": None, "set": {}, "variants": {}, "axes": {"model.cell": ["lstm", "gru"]}}}
    edit(study, study, set=small, grids=grids, select=None, scales={})
    prepare_dataset("adding", paths.dataset_config("adding"), [5], Sizes(**SIZES), paths.dataset("adding"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return paths


def edit(source: Path, target: Path, **changed: object) -> None:
    target.write_text(yaml.safe_dump({**yaml.safe_load(source.read_text()), **changed}, sort_keys=False))


def test_a_sweep_writes_the_tables_of_real_training(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture
) -> None:
    assert stage(["cells", "--executor", "inline"]) == 0
    assert "2 settings: 0 from the store, 2 trained" in capsys.readouterr().out
    assert json.loads(project.results_digest("cells").read_text()) == digest_tables(project.results("cells"))
    tables = {name: read_table(name, project.results("cells")) for name in SCHEMAS}
    assert tables["trials"]["model.cell"].to_list() == ["lstm", "lstm", "gru", "gru"]
    decoded = {"attention", "breakdown", "tokens", "images"}
    assert {name for name, frame in tables.items() if frame.is_empty()} == decoded
    shutil.rmtree(project.default_store)
    assert stage(["cells", "--executor", "inline"]) == 0
    for name, frame in tables.items():
        again = read_table(name, project.results("cells"))
        dropped = list(HOST_COLUMNS) if name == "trials" else []
        assert again.drop(dropped).equals(frame.drop(dropped)), name


def test_several_studies_train_as_one_list_longest_first_and_each_trial_once(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture
) -> None:
    edit(project.params, project.params, studies=["cells", "more"])
    longer = {"adding": {"figures": None, "set": {}, "variants": {}, "axes": {"model.cell": ["gru", "ugrnn"]}}}
    edit(project.study_config("cells"), project.study_config("more"), grids=longer)
    assert stage(["cells", "more", "--executor", "inline"]) == 0
    told = capsys.readouterr().out
    assert "3 settings: 0 from the store, 3 trained" in told  # the GRU is of both
    for study in ("cells", "more"):
        assert json.loads(project.results_digest(study).read_text()) == digest_tables(project.results(study))


def test_what_dvc_would_sweep_is_trained_and_no_results_are_written(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project.params, project.params, studies=["cells", "fresh"])
    edit(project.study_config("cells"), project.study_config("fresh"))
    asked: list[list[str]] = []

    def status(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, '{"sweep@cells": [{"changed deps": {}}]}', "")

    monkeypatch.setattr("subprocess.run", status)
    assert stage(["--stale", "--executor", "inline"]) == 0
    assert asked[0][1:] == ["-m", "dvc", "status", "--json", "sweep@cells", "sweep@fresh"]
    assert "2 settings: 0 from the store, 2 trained" in capsys.readouterr().out
    assert not project.results("cells").exists()
    assert stage(["--stale", "--executor", "inline"]) == 0
    assert capsys.readouterr().out == ""  # nothing is missing any more


@pytest.mark.parametrize("arguments", [[], ["cells", "--stale"]])
def test_names_or_what_is_stale_and_not_both(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit):
        stage(arguments)
    assert "expected names of studies, or --stale" in capsys.readouterr().err


def test_dvc_that_cannot_say_what_is_stale_is_quoted(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 253, "", "ERROR: you are not inside of a DVC repository\n")
    monkeypatch.setattr("subprocess.run", lambda command, **_: failed)
    assert stage(["--stale"]) == 2
    said = capsys.readouterr().err
    assert said == "sweep: `dvc status` failed: ERROR: you are not inside of a DVC repository\n"


def test_a_dry_run_prints_the_plan_and_leaves_nothing(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture
) -> None:
    assert stage(["cells", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "missing        4 steps  adding: gru" in told
    assert "2 settings, 2 trials, 2 to train: 16 replica-steps" in told
    assert not project.default_store.exists()
    assert not project.results("cells").exists()


def test_a_sweep_needs_neither_figures_nor_wandb(project: Paths) -> None:
    """In a process where drawing libraries and wandb cannot be imported, nor the rooms that use them."""
    blocked = ["wandb", "matplotlib", "seaborn", "pipeline.figures", "pipeline.quantities", "pipeline.publish"]
    program = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
from stages.sweep import main
sys.exit(main(["cells", "--dry-run"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=project.root, env=environment, check=True, timeout=120)


def test_an_error_is_a_sentence_and_status_2(project: Paths, stage: Stage, capsys: pytest.CaptureFixture) -> None:
    assert stage(["cell", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "sweep: params.yaml: studies: unknown study 'cell'; did you mean 'cells'? known: cells\n"
    )


@pytest.mark.parametrize(("executor", "number"), [("inline", signal.SIGINT), ("ray", signal.SIGTERM)])
def test_a_signal_is_one_line_and_leaves_no_process_and_no_folder(
    project: Paths, executor: str, number: signal.Signals
) -> None:
    """Sent three times to all processes, as a terminal and Slurm do, while it trains."""
    study = project.study_config("cells")
    edit(study, study, set=yaml.safe_load(study.read_text())["set"] | {"training.max_steps": 10**8})
    with tempfile.TemporaryDirectory(prefix="sweep-", dir="/tmp") as folder:  # short enough for Ray's sockets
        command = [sys.executable, str(ROOT / "stages" / "sweep.py"), "cells", "--executor", executor]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "TMPDIR": folder, "HOME": folder}
        environment.setdefault("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))  # of compiled loops
        with subprocess.Popen(command, env=environment, process_group=0, **pipes) as process:
            assert "training adding: " in process.stdout.readline()
            if executor == "ray":
                heard = addresses_listened_at(process.pid)
                assert len(heard) >= 4  # of the driver, of Ray's servers, of workers
                assert {ip for ip in heard if not ip.removeprefix("::ffff:").startswith("127.")} == set()
                assert stat.S_IMODE((Path(folder) / ".ray" / "auth_token").stat().st_mode) == 0o600
            for _ in range(3):
                os.killpg(process.pid, number)
                time.sleep(0.1)
            _, said = process.communicate(timeout=60)
        assert said.splitlines()[0].startswith(f"sweep: stopped by {number.name}; finished trials are kept")
        assert len(said.splitlines()) == 1
        assert process.returncode == 128 + number
        assert not [path for path in Path(folder).iterdir() if path.name.startswith(("ray-", "tmp"))]
        assert not processes_of(folder)
    with sweep_lease(TrialStore(project.default_store), "cells"):
        pass


def addresses_listened_at(pid: int) -> list[str]:
    """Return the addresses at which a process and all that it started wait for connections."""
    driver = psutil.Process(pid)
    sockets = [found for process in (driver, *driver.children(recursive=True)) for found in process.net_connections()]
    return [found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN]


def processes_of(folder: str) -> list[psutil.Process]:
    """Return the processes of Ray that have this temporary folder in their command or environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and folder in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(process)
    return found


def test_a_cluster_with_a_local_store_is_warned_and_probed(
    project: Paths, stage: Stage, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    assert stage(["cells"]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.endswith(".trials: every node of the cluster must see that folder")
    assert error.startswith("sweep: RAY_ADDRESS=nowhere: expected host:port")
