"""The driver that `benchmarks.soak` kills: `python -m benchmarks.soak_driver <workspace>`, on RAY_ADDRESS."""

from __future__ import annotations

import sys

from pipeline import stopping

if __name__ == "__main__":  # what follows takes seconds to import
    stopping.watch("soak", "run again")

from benchmarks.soak import HEAD_GONE_AFTER_S, sweep
from pipeline.config import Paths
from pipeline.errors import PipelineError
from pipeline.sweep import executor_ray


def main() -> int:
    """Sweep as stages/sweep.py does; only the checkpoints, and the end without a head, come sooner."""
    executor_ray.HEAD_GONE_AFTER_S = HEAD_GONE_AFTER_S
    try:
        sweep(Paths.at(sys.argv[1]), "ray")
    except PipelineError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    stopping.run(main)
