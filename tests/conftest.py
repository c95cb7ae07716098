"""How the tests are divided: the numerical core's quick ones (`pytest -m core`), and who runs what beside whom."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CORE = {"config", "data", "core", "selftest", "test_architecture.py"}
"""Folders and files of this folder that need neither Ray nor DVC, neither W&B nor a drawing library."""

LONGEST = ("test_end_to_end.py", "test_dvc.py")
"""Files that come first, lest all others wait for them in the end."""

MAX_WORKERS = 4


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return a worker per processor, or none where files or folders are named: those tests run in this process."""
    if config.option.file_or_dir:
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, MAX_WORKERS)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the other folders unread under `-m core`: they import what the core does without."""
    room = collection_path.relative_to(TESTS).parts[:1]
    return True if config.option.markexpr == "core" and room and room[0] not in CORE else None


def pytest_configure() -> None:
    """Take SIGINT also where the tests were begun in the background of a script, which ignores it for all below it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its folder: `pipeline`, or `core` where it is not marked `slow` itself.

    The tests of a file share its fixtures: xdist gives them to one worker. (Its groups by mark would be finer; pytest
    9.2 and xdist 3.8 do not go together there.)
    """
    import torch  # where tests run, not in the process that hands them out

    torch.set_num_threads(1)  # as a trial trains; two threads that wait for each other cost more than small tensors do
    for item in items:
        path = name_of(item)
        if path.split("/")[0] not in CORE:
            item.add_marker(pytest.mark.pipeline)
        elif item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.core)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(name_of(item), len(places)))


def name_of(item: pytest.Item) -> str:
    """Return the file of a test, from this folder on."""
    return item.path.relative_to(TESTS).as_posix()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a trial store in a fresh bucket on an S3 server that runs in this process, on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer  # here, since the core is tested without it

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket=name)
    yield f"s3://{name}/trials?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    server.stop()
