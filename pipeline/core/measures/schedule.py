"""When to measure: densely at the start of training, where most changes, sparsely at its end."""

from __future__ import annotations

import numpy as np


def log_spaced_steps(max_steps: int, num_traces: int) -> tuple[int, ...]:
    """Return at most `num_traces` steps from 0 to `max_steps`, both among them, evenly spaced in log(1 + step).

    Fewer come back where rounding makes two of them equal. `num_traces` is at least 2.
    """
    steps = np.expm1(np.linspace(0.0, np.log1p(max_steps), num_traces)).round().astype(int)
    return tuple(int(step) for step in np.unique(steps))
