"""One process of `benchmarks.seeds`: it trains R seeds on one core and says how long it took and what it held.

    python -m benchmarks.one_process ours|torch_nn <cell> <B> <H> <T> <R> <steps>

It prints `ready` when it has warmed up, starts when it reads a line, prints what it measured, and ends when it reads
another: so processes that are to run side by side do, and all are alive while each measures. With `torch_nn` nothing of
this project is imported, as in a user's own script.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks.plain import Step, torch_nn


def main(who: str, cell: str, B: int, H: int, T: int, num_replicas: int, num_steps: int) -> None:
    """Warm up, wait, make the steps, and print the processor time they took and the memory at its peak."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    step = _step(who, cell, B, H, T, num_replicas)
    for _ in range(2):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.process_time()
    for _ in range(num_steps):
        step()
    print(json.dumps({"cpu_s": time.process_time() - started, **memory()}), flush=True)
    sys.stdin.readline()


def memory() -> dict[str, int]:
    """Return the most that this process held, and what of it are files that other processes map as well: libraries."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kilobytes = {name: int(value.split()[0]) for name, _, value in (x.partition(":") for x in lines) if "kB" in value}
    return {"peak_bytes": 1024 * kilobytes["VmHWM"], "shared_bytes": 1024 * kilobytes["RssFile"]}


def _step(who: str, cell: str, B: int, H: int, T: int, num_replicas: int) -> Step:
    if who == "torch_nn":
        return torch_nn(cell, B, H, T)
    from benchmarks.contenders import ours

    return ours(cell, B, H, T, num_replicas, trace=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
