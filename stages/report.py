"""Write reports/ from the tables of the listed studies, without training or network: `python stages/report.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline.config import Paths, check_tree, keep_listed, load_params, load_study
from pipeline.errors import PipelineError
from pipeline.figures.catalogue import check_study
from pipeline.report import build_report


def main(arguments: list[str] | None = None) -> int:
    """Build the report of the project in the current folder; return the exit status, 2 for an error to mend."""
    argparse.ArgumentParser(description="Write reports/ from the result tables.").parse_args(arguments)
    try:
        check_tree(__file__)
        report(Paths.at())
    except PipelineError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def report(paths: Paths) -> None:
    """Build the report of the studies of params.yaml and print where its page is."""
    params = load_params(paths)
    studies = {name: load_study(paths, name) for name in params.studies}
    for name, study in studies.items():
        check_study(study, str(paths.study_config(name).relative_to(paths.root)))
    page = build_report(paths, studies, params.scale)
    keep_listed(paths.results_digest, params.studies)
    print(f"report: {', '.join(studies)} -> {page.relative_to(paths.root)}")


if __name__ == "__main__":
    sys.exit(main())
