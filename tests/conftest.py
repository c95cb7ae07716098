"""Which tests belong to the numerical core: `pytest -m core` runs those of them that are quick."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CORE = {"config", "data", "core", "selftest", "test_architecture.py", "test_markers.py"}
"""Folders and files of this folder that need neither Ray nor DVC, neither W&B nor a drawing library."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its folder: `pipeline`, or `core` where it is not marked `slow` itself."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] not in CORE:
            item.add_marker(pytest.mark.pipeline)
        elif item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.core)
