"""A report of ten thousand made-up settings: seconds, memory, bytes of its pages; a part of `make bench-sweep`.

The worst case twice: a search without selection, so that each setting is an arm of its own, and one that selects, so
that few arms are compared and all settings are listed. The report is made in a process of its own, as the stage is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks import pages, record
from benchmarks.many import NUM_SEEDS, SPACE, STUDY, with_settings
from benchmarks.timing import environment
from pipeline.config import Paths, load_study
from pipeline.core.training.runtime import peak_memory_bytes
from pipeline.report import build_report
from pipeline.results import write_table
from tests.synthetic_results import many_tables

ROOT = Path(__file__).parents[1]
KINDS = ("every setting an arm", "selected over")


def main(arguments: list[str] | None = None) -> None:
    """Make the tables, report them, print what it took, and keep it in benchmarks/latest.json."""
    parser = argparse.ArgumentParser(description="Seconds, memory and bytes of a report of many settings.")
    parser.add_argument("--settings", type=int, default=10_000, help="of the study")
    parser.add_argument("--workspace", type=Path, default=ROOT / ".bench", help="made anew")
    parser.add_argument("--build", action="store_true", help="the report of the workspace alone, as it is")
    asked = parser.parse_args(arguments)
    if asked.build:
        print(json.dumps(built(Paths.at(asked.workspace))))
        return
    rows = []
    for kind in KINDS:
        lay_out(asked.workspace, asked.settings, select=kind == KINDS[1])
        command = [sys.executable, "-m", __spec__.name, "--build", "--workspace", str(asked.workspace)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603
        rows.append({"kind": kind, **json.loads(done.stdout)})
    measured = {"environment": environment(), "num_settings": asked.settings, "num_seeds": NUM_SEEDS, "rows": rows}
    print(pages.large_report({"large_report": measured}))
    record.write("large_report", measured)
    pages.main()


def lay_out(folder: Path, num_settings: int, *, select: bool) -> Paths:
    """Write a workspace with the made-up tables of a study of so many settings, in one grid."""
    study: dict[str, Any] = {}
    tables = many_tables(num_settings)
    if select:
        study["select"] = {"over": list(SPACE), "metric": "best_validation_loss"}
        best = tables["trials"].group_by("trial_id").agg(loss=pl.col("best_validation_loss").mean())
        settings = tables["settings"].join(best, on="trial_id", maintain_order="left")
        is_best = pl.col("loss") == pl.col("loss").min().over("model.cell")
        tables["settings"] = settings.with_columns(selected=is_best).drop("loss")
    workspace = with_settings(folder, num_settings, grid={}, params={}, **study)
    for name, table in tables.items():
        write_table(name, table, workspace.results(STUDY))
    return workspace


def built(workspace: Paths) -> dict[str, Any]:
    """Return what the report of a workspace took, and how large what a reader opens is."""
    started = time.monotonic()
    index = build_report(workspace, {STUDY: load_study(workspace, STUDY)}, "laptop")
    total_s = time.monotonic() - started
    site = index.parent
    sizes = {path.relative_to(site).as_posix(): path.stat().st_size for path in site.rglob("*") if path.is_file()}
    return {
        "total_s": total_s,
        "peak_mib": peak_memory_bytes(torch.device("cpu")) / 2**20,
        "index_bytes": sizes["index.html"],
        "page_bytes": sizes[f"studies/{STUDY}.html"],
        "explorer_bytes": sum(size for name, size in sizes.items() if name.startswith("data/")),
        "list_bytes": sizes["data/list.js"],
        "largest_figure_bytes": max(size for name, size in sizes.items() if name.endswith(".svg")),
        "num_files": len(sizes),
        "site_bytes": sum(sizes.values()),
    }


if __name__ == "__main__":
    main()
