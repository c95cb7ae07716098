"""One sweep of `benchmarks.sweep` in a process of its own: `python -m benchmarks.one_sweep ours|plain <workspace>`.

The last line that it prints says when Ray had started and when training began, on the clock of all processes.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main(who: str, workspace: Path) -> None:
    """Run the sweep in its workspace.

    Raises:
        SystemExit: If it failed.
    """
    os.chdir(workspace)
    import ray
    from ray import tune

    times: dict[str, list[float]] = {}
    _note_time(ray, "init", times)
    _note_time(tune.Tuner, "fit", times)
    rows = ours() if who == "ours" else plain(workspace)
    print(json.dumps({"times": times, "rows": rows}))


def ours() -> list[dict[str, Any]]:
    """Run stages/sweep.py; what its trials ended with is in its tables.

    Raises:
        SystemExit: If it failed.
    """
    from benchmarks.sweep import STUDY
    from stages import sweep

    if code := sweep.main([STUDY, "--executor", "ray"]):
        raise SystemExit(code)
    return []


def plain(workspace: Path) -> list[dict[str, Any]]:
    """Run the study with torch.nn and Ray Tune alone, on the arrays that were prepared for both."""
    import torch

    from benchmarks.plain_tune import sweep

    held = json.loads((workspace / "plain.json").read_text(encoding="utf-8"))
    return sweep(torch.load(workspace / "splits.pt"), held["grid"], held["settings"])


def _note_time(owner: Any, name: str, times: dict[str, list[float]]) -> None:
    """Let a function note when it began and ended."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def noting(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            times[name] = [started, time.monotonic()]

    setattr(owner, name, noting)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
