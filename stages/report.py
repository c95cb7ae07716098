"""Write reports/ from the result tables of every study in params.yaml, with no training and no network.

    python stages/report.py [--check]

`--check` only looks whether every figure and claim that a study names exists: a mistake shows before hours of training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline.claims import load_rules
from pipeline.config import Paths, check_tree, keep_listed, load_params, load_study
from pipeline.errors import PipelineError
from pipeline.figures.catalogue import check_figures
from pipeline.report import build_report


def main(arguments: list[str] | None = None) -> int:
    """Build the report of the project in the current folder; return the exit status, 2 for an error to mend."""
    parser = argparse.ArgumentParser(description="Write reports/ from the result tables.")
    parser.add_argument("--check", action="store_true", help="only check the figures and claims that studies name")
    asked = parser.parse_args(arguments)
    try:
        check_tree(__file__)
        report(Paths.at(), only_check=asked.check)
    except PipelineError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def report(paths: Paths, *, only_check: bool = False) -> None:
    """Check what the studies of params.yaml name; then build their report and print where its page is."""
    params = load_params(paths)
    studies = {name: load_study(paths, name) for name in params.studies}
    load_rules(paths, studies)
    for name, study in studies.items():
        for grid, content in study.grids.items():
            check_figures(content.figures, f"{paths.study_config(name).relative_to(paths.root)}.grids.{grid}.figures")
    if only_check:
        return
    page = build_report(paths, studies, params.scale)
    keep_listed(paths.results_digest, params.studies)
    print(f"report: {', '.join(studies)} -> {page.relative_to(paths.root)}")


if __name__ == "__main__":
    sys.exit(main())
