"""`make bench`: training steps side by side, their time against length, translation, diagnostics, truncation.

Writes benchmarks/latest.json. Ratios above 1 mean that this project is faster, per seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks import sequential, translation, truncation
from benchmarks.contenders import TORCH_NN, Step, hand_unrolled, ours, torch_nn
from benchmarks.diagnostics import diagnostics_overhead
from benchmarks.timing import environment, time_side_by_side
from pipeline.core.training.runtime import computing, keep_freed_memory

SHAPES = ((32, 32, 200), (32, 128, 200), (16, 100, 400))  # B, H, T
REPLICAS = (1, 8, 32)
LATEST = Path(__file__).parent / "latest.json"


def compare(cell: str, B: int, H: int, T: int, num_repeats: int) -> list[dict[str, Any]]:
    """Return a row for every number of replicas: milliseconds a step and seed, and the ratios."""
    contenders: dict[str, Step] = {"torch.nn": torch_nn(cell, B, H, T), "hand-unrolled": hand_unrolled(cell, B, H, T)}
    for R in REPLICAS:
        contenders |= {f"plain {R}": ours(cell, B, H, T, R, False), f"traced {R}": ours(cell, B, H, T, R, True)}
    timings = time_side_by_side(contenders, num_repeats)
    theirs, unrolled = timings["torch.nn"].median_s, timings["hand-unrolled"].median_s
    rows = []
    for R in REPLICAS:
        plain, traced = timings[f"plain {R}"], timings[f"traced {R}"]
        rows.append(
            {
                "cell": cell, "B": B, "H": H, "T": T, "R": R, "num_repeats": num_repeats,
                "torch_nn_ms": 1e3 * theirs,
                "hand_unrolled_ms": 1e3 * unrolled,
                "plain_ms": 1e3 * plain.median_s / R,
                "traced_ms": 1e3 * traced.median_s / R,
                "traced_spread": (traced.upper_s - traced.lower_s) / traced.median_s,
                "plain_vs_torch_nn": theirs * R / plain.median_s,
                "traced_vs_torch_nn": theirs * R / traced.median_s,
                "traced_vs_hand_unrolled": unrolled * R / traced.median_s,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Run every comparison and print it as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds of every contender")
    arguments = parser.parse_args()
    keep_freed_memory()
    with computing(num_threads=1):
        print("milliseconds a training step and seed; ratios: how many times faster than ... (above 1 is faster)")
        print(f"{'':6}{'B':>4}{'H':>5}{'T':>5}{'R':>4} |{'torch.nn':>9}{'unrolled':>9}{'ours':>8}{'traced':>8} |"
              f"{'ours/nn':>8}{'traced/nn':>10}{'traced/unrolled':>16}{'spread':>8}")  # fmt: skip
        rows = []
        for shape in SHAPES:
            for cell in TORCH_NN:
                rows += compare(cell, *shape, arguments.repeats)
                for row in rows[-len(REPLICAS) :]:
                    print(_line(row), flush=True)
        report = {"environment": environment(), "steps": rows}
        report["sequential"] = sequential.measure_all(arguments.repeats)
        report["translation"] = translation.measure_all(arguments.repeats)
    report["diagnostics"] = diagnostics_overhead()
    for row in report["diagnostics"]:
        print(f"diagnostics at the default schedule, {row['label']}: {row['diagnostics_time_share']:.1%} of step time")
    report["truncation"] = truncation.measure_all()
    LATEST.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"torch {torch.__version__}; written to {LATEST}")


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['cell']:6}{row['B']:4}{row['H']:5}{row['T']:5}{row['R']:4} |"
        f"{row['torch_nn_ms']:9.2f}{row['hand_unrolled_ms']:9.2f}{row['plain_ms']:8.2f}{row['traced_ms']:8.2f} |"
        f"{row['plain_vs_torch_nn']:8.2f}{row['traced_vs_torch_nn']:10.2f}{row['traced_vs_hand_unrolled']:16.2f}"
        f"{row['traced_spread']:8.0%}"
    )


if __name__ == "__main__":
    main()
