"""The ten lines of docs/how-to/cluster.md, as they stand there: two nodes come up, a study is trained, all is gone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import Params, Paths

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "cluster.md"


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A home with a token of its own, a free port, and a temporary folder that is short enough for Ray's sockets."""
    home = Path(tempfile.mkdtemp(prefix="two-", dir="/tmp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "WANDB_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = {"HOME": str(home), "RAY_TMPDIR": str(home), "RAY_USAGE_STATS_ENABLED": "0", "PATH": path, "PORT": str(port)}
    yield kept | here
    shutil.rmtree(home, ignore_errors=True)


def processes_below(home: Path) -> list[int]:
    """Return what the ten lines began and did not end: Ray's processes and their children have that home, too."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def ten_lines() -> str:
    (block,) = re.findall(r"^```bash\n(export .*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) == 10
    return block


def test_the_ten_lines_train_a_study_on_two_nodes_and_leave_nothing(
    project: tuple[Paths, Params], environment: dict[str, str]
) -> None:
    results, home = project[0].results("cells"), Path(environment["HOME"])
    there = environment | {"STUDY": str(project[0].root)}
    command, said = ["bash", "-c", ten_lines()], []
    with subprocess.Popen(
        command, cwd=ROOT, env=there, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as shell:
        try:
            assert shell.stdout is not None
            for line in shell.stdout:
                said.append(line)
                if line.startswith("[0/4] training"):
                    assert "InvalidAuthToken" in status_without_token(environment)
            shell.wait()
            left = processes_below(home)
        finally:  # whatever happened, a time limit too
            for process in processes_below(home):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
    assert "4 settings: 0 from the store, 4 trained, 0 diverged, 0 failed" in "".join(said), "".join(said)
    assert pl.read_parquet(results / "trials.parquet")["status"].to_list() == ["ok"] * 8
    assert (home / ".ray" / "auth_token").exists()
    assert left == []


def status_without_token(environment: dict[str, str]) -> str:
    """Return what Ray tells somebody who reaches the first node and has not its token."""
    asked = ["ray", "status", f"--address=127.0.0.1:{environment['PORT']}"]
    stranger = environment | {"RAY_AUTH_MODE": "disabled"}
    return subprocess.run(asked, env=stranger, capture_output=True, text=True, check=False, timeout=60).stderr
