"""Timing that can be believed: warmed up, interleaved, medians with their spread, the environment beside them."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.plain import Step
from pipeline.core.cells.compiled import compiler


class Timing(NamedTuple):
    """Seconds a step: the median of repeats, and their quartiles."""

    median_s: float
    lower_s: float
    upper_s: float
    num_repeats: int


def time_side_by_side(contenders: Mapping[str, Step], num_repeats: int) -> dict[str, Timing]:
    """Return the timing of each contender; a round runs all of them, so that a slow spell of the machine hits all.

    Before a step is timed the same contender makes one that is not: it finds the caches and the memory that it would
    have in training, and not those of whoever came before it.
    """
    for step in contenders.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(num_repeats):
        for name, step in contenders.items():
            step()
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return {name: summary(values) for name, values in seconds.items()}


def summary(values: Sequence[float]) -> Timing:
    """Return the median of seconds, and their quartiles."""
    lower, median, upper = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return Timing(median, lower, upper, len(values))


def environment() -> dict[str, Any]:
    """Return what the numbers depend on."""
    facts = _processor_facts()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": _compiler(),
        "machine": platform.machine(),
        "processor": facts.get("model name", platform.processor()),
        "processor_family_model": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "vector_bits": vector_bits(facts.get("flags", "")),
        "num_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def vector_bits(flags: str) -> int:
    """Return how wide a vector register is: what Linux says of an x86 processor; 128 elsewhere, which all have."""
    known = set(flags.split())
    return 512 if "avx512f" in known else 256 if "avx" in known else 128


def _processor_facts() -> dict[str, str]:
    """Return what Linux says of the first processor; nothing elsewhere."""
    source = Path("/proc/cpuinfo")
    lines = source.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if source.exists() else []
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _compiler() -> str | None:
    """Return the C compiler that the loops are compiled with, as it names itself."""
    cc = compiler()
    if cc is None:
        return None
    return subprocess.run([cc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]  # noqa: S603
