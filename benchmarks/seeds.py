"""What the n-th seed costs: R seeds in one process here, beside one process per seed with torch.nn.

Every measurement is made in processes that were started for it, all on the same single core. Processes of torch.nn run
side by side, so what they cost together is measured, not multiplied. Time is the processor's, of all processes: what
else runs on the machine is not in it, but for the caches that it shares. Memory is the peak of the resident set, summed
over the processes; libraries, which they share, count once. Freed memory is kept for the next step on both sides.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CELL, SHAPE = "lstm", (32, 32, 200)  # B, H, T
REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROCESSES = (1, 2, 4, 8)
REPLICA_STEPS = 400
"""Steps of all seeds together that are timed, at least; the fewest steps of a process are 3."""

KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
"""What a trial asks of the allocator (`runtime.keep_freed_memory`), here of both sides, from without."""


def measure_all(num_rounds: int, replicas: tuple[int, ...] = REPLICAS) -> list[dict[str, Any]]:
    """Return a row for each number of seeds, in one process and in one process each; a round measures all of them."""
    cases = [("ours", R) for R in replicas] + [("torch_nn", R) for R in PROCESSES if max(replicas) >= R]
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(num_rounds):
        for who, R in cases:
            found[who, R].append(measure(who, R))
    B, H, T = SHAPE
    print(f"R seeds of an {CELL} (B={B}, H={H}, T={T}) on one core, median of {num_rounds}: here; torch.nn's processes")
    rows = []
    for (who, R), measured in found.items():
        times = [each["ms"] for each in measured]
        middle, peak = statistics.median(times), statistics.median(each["peak_bytes"] for each in measured)
        row = {"who": who, "cell": CELL, "B": B, "H": H, "T": T, "R": R, "num_rounds": num_rounds}
        rows.append(row | {"ms": middle, "lowest_ms": min(times), "highest_ms": max(times), "peak_bytes": peak})
        print(f"{who:9} {R:4} seeds: {middle:6.2f} ms a step and seed, {peak / 2**20:7.0f} MiB", flush=True)
    return rows


def measure(who: str, num_seeds: int) -> dict[str, float]:
    """Return milliseconds of processor time a step and seed, and the memory of all processes together.

    Raises:
        RuntimeError: If a process failed.
    """
    num_processes, replicas = (1, num_seeds) if who == "ours" else (num_seeds, 1)
    num_steps = max(3, REPLICA_STEPS // num_seeds)
    arguments = [who, CELL, *map(str, (*SHAPE, replicas, num_steps))]
    processes = [_start(arguments) for _ in range(num_processes)]
    try:
        for process in processes:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a process of {who} failed; `python -m benchmarks.one_process` says how")
        for process in processes:
            _write(process)
        measured = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
        for process in processes:
            _write(process)
    finally:
        for process in processes:
            process.communicate(timeout=60)
    return {
        "ms": 1e3 * sum(each["cpu_s"] for each in measured) / (num_seeds * num_steps),
        "peak_bytes": together(measured),
    }


def together(processes: list[dict[str, int]]) -> int:
    """Return the memory of processes: what each has for itself, and the libraries once."""
    own = sum(each["peak_bytes"] - each["shared_bytes"] for each in processes)
    return own + max(each["shared_bytes"] for each in processes)


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - this project's own module
        [sys.executable, "-m", "benchmarks.one_process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | KEEP_FREED_MEMORY,
    )


def _write(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    process.stdin.write("\n")
    process.stdin.flush()
