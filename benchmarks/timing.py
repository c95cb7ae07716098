"""Timing that can be believed: warmed up, interleaved, medians with their spread, the environment beside them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from benchmarks.contenders import Step


class Timing(NamedTuple):
    """Seconds a step: the median of repeats, and their quartiles."""

    median_s: float
    lower_s: float
    upper_s: float
    num_repeats: int


def time_side_by_side(contenders: Mapping[str, Step], num_repeats: int) -> dict[str, Timing]:
    """Return the timing of each contender; a round runs all of them, so that a slow spell of the machine hits all."""
    for step in contenders.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(num_repeats):
        for name, step in contenders.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return {name: _summary(values) for name, values in seconds.items()}


def environment() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processor": _processor(),
        "num_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):  # noqa: PTH110
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor()


def _summary(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return Timing(median, lower, upper, len(values))
