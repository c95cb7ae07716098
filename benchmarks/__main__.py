"""`make bench`: training steps side by side, traces of others' models, time against length, translation and the rest.

Writes benchmarks/latest.json, and what the README and docs/speed.md say of it. Ratios above 1 mean that this project
is faster, per seed. With names of parts on the command line these alone are measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import pages, record, seeds, sequential, tracing, translation, truncation
from benchmarks.contenders import kernel, on_eager, ours
from benchmarks.diagnostics import diagnostics_overhead
from benchmarks.plain import SHAPES, TORCH_NN, Step, hand_unrolled, torch_nn
from benchmarks.timing import environment, time_side_by_side
from pipeline.core.training.runtime import computing, keep_freed_memory

REPLICAS = (1, 8, 32)


def main() -> None:
    """Measure what is asked for, print it as it comes, and keep it."""
    parts: dict[str, Callable[[int], list[dict[str, Any]]]] = {
        "steps": measure_steps,
        "tracing": tracing.measure_all,
        "sequential": sequential.measure_all,
        "translation": translation.measure_all,
        "diagnostics": measure_diagnostics,
        "truncation": lambda _: truncation.measure_all(),
        "seeds": lambda repeats: seeds.measure_all(max(1, repeats // 2)),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; default: all")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of every contender")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; known: {', '.join(parts)}")
    keep_freed_memory()
    with computing(num_threads=1):
        for name in asked.parts or parts:
            record.write(name, {"environment": environment(), "rows": parts[name](asked.repeats)})
    pages.main()
    print(f"torch {torch.__version__}; written to {record.LATEST}")


def measure_steps(num_repeats: int) -> list[dict[str, Any]]:
    """Return a row for each shape, cell and number of replicas."""
    print("milliseconds a training step and seed; ratios: how many times faster than ... (above 1 is faster)")
    print(f"{'':6}{'B':>4}{'H':>5}{'T':>5}{'R':>4} |{'torch.nn':>9}{'unrolled':>9}{'eager':>8}{'ours':>8}{'traced':>8}"
          f" |{'ours/nn':>8}{'traced/nn':>10}{'/unrolled':>10}{'/eager':>7}{'spread':>8}  kernel")  # fmt: skip
    rows = []
    for shape in SHAPES:
        for cell in TORCH_NN:
            rows += compare(cell, *shape, num_repeats)
            for row in rows[-len(REPLICAS) :]:
                print(_line(row), flush=True)
    return rows


def compare(cell: str, B: int, H: int, T: int, num_repeats: int) -> list[dict[str, Any]]:
    """Return a row for every number of replicas: milliseconds a step and seed, and the ratios.

    `plain` and `traced` run on what `kernel` names, without and with the norm of every dL/dh_t; `eager` is `traced` on
    the eager engine.
    """
    contenders: dict[str, Step] = {"torch.nn": torch_nn(cell, B, H, T), "hand-unrolled": hand_unrolled(cell, B, H, T)}
    for R in REPLICAS:
        contenders |= {f"plain {R}": ours(cell, B, H, T, R, False), f"traced {R}": ours(cell, B, H, T, R, True)}
        contenders[f"eager {R}"] = on_eager(ours(cell, B, H, T, R, True))
    timings = time_side_by_side(contenders, num_repeats)
    theirs, unrolled = timings["torch.nn"].median_s, timings["hand-unrolled"].median_s
    rows = []
    for R in REPLICAS:
        plain, traced, eager = (timings[f"{name} {R}"] for name in ("plain", "traced", "eager"))
        rows.append(
            {
                "cell": cell, "B": B, "H": H, "T": T, "R": R, "kernel": kernel(cell), "num_repeats": num_repeats,
                "torch_nn_ms": 1e3 * theirs,
                "hand_unrolled_ms": 1e3 * unrolled,
                "plain_ms": 1e3 * plain.median_s / R,
                "traced_ms": 1e3 * traced.median_s / R,
                "eager_ms": 1e3 * eager.median_s / R,
                "traced_spread": (traced.upper_s - traced.lower_s) / traced.median_s,
                "plain_vs_torch_nn": theirs * R / plain.median_s,
                "traced_vs_torch_nn": theirs * R / traced.median_s,
                "traced_vs_hand_unrolled": unrolled * R / traced.median_s,
                "traced_vs_eager": eager.median_s / traced.median_s,
            }
        )  # fmt: skip
    return rows


def measure_diagnostics(num_repeats: int) -> list[dict[str, Any]]:
    """Return what the diagnostics take of the time of a whole trial, once for each cell."""
    rows = diagnostics_overhead()
    for row in rows:
        print(f"diagnostics at the default schedule, {row['label']}: {row['diagnostics_time_share']:.1%} of step time")
    return rows


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['cell']:6}{row['B']:4}{row['H']:5}{row['T']:5}{row['R']:4} |"
        f"{row['torch_nn_ms']:9.2f}{row['hand_unrolled_ms']:9.2f}{row['eager_ms']:8.2f}"
        f"{row['plain_ms']:8.2f}{row['traced_ms']:8.2f} |"
        f"{row['plain_vs_torch_nn']:8.2f}{row['traced_vs_torch_nn']:10.2f}{row['traced_vs_hand_unrolled']:10.2f}"
        f"{row['traced_vs_eager']:7.2f}{row['traced_spread']:8.0%}  {row['kernel']}"
    )


if __name__ == "__main__":
    main()
