from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import Params, Paths

from .fakes import write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Paths, Params]:
    """A project of four settings (two cells, two learning rates), its data prepared."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return write_project(tmp_path / "project")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Ray with two processors in this process, started once: a sweep uses a connection that is there."""
    ray = pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
