"""Which parameters of a test the quick run of the core leaves to the whole one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slowly(*values: Any) -> list[Any]:
    """Return parameters marked `slow`: more cases of a kind of which the quick run has one."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def mostly(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return parameters in their order, all marked `slow` but the quick ones.

    Raises:
        ValueError: If a quick one is none of them.
    """
    every = [*values]
    if strangers := [value for value in quick if value not in every]:
        raise ValueError(f"expected some of {every}; got {strangers}")
    return [value if value in quick else slowly(value)[0] for value in every]
