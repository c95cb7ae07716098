"""Which tests belong to the numerical core: `pytest -m core` runs those of them that are quick."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # as a trial trains; two threads that wait for each other cost more than small tensors do

TESTS = Path(__file__).parent
CORE = {"config", "data", "core", "selftest", "test_architecture.py"}
"""Folders and files of this folder that need neither Ray nor DVC, neither W&B nor a drawing library."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the other folders unread under `-m core`: they import what the core does without."""
    room = collection_path.relative_to(TESTS).parts[:1]
    return True if config.option.markexpr == "core" and room and room[0] not in CORE else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its folder: `pipeline`, or `core` where it is not marked `slow` itself."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] not in CORE:
            item.add_marker(pytest.mark.pipeline)
        elif item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.core)
