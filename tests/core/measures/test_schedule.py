"""When to measure."""

from __future__ import annotations

import pytest

from pipeline.core.measures import log_spaced_steps


@pytest.mark.parametrize(
    ("max_steps", "num_traces", "expected"),
    [(100, 2, (0, 100)), (100, 4, (0, 4, 21, 100)), (3, 10, (0, 1, 2, 3))],
)
def test_log_spaced_steps(max_steps: int, num_traces: int, expected: tuple[int, ...]) -> None:
    assert log_spaced_steps(max_steps, num_traces) == expected
