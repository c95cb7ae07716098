"""Which parameters of a test the quick run of the core leaves to the whole one."""

from __future__ import annotations

from typing import Any

import pytest


def slowly(*values: Any) -> list[Any]:
    """Return parameters marked `slow`: more cases of a kind of which the quick run has one."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
