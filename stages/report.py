"""Write reports/ from the result tables of every study in params.yaml, with no training and no network.

python stages/report.py
"""

from __future__ import annotations

import argparse
import sys

from pipeline.config import Paths, load_params, load_study
from pipeline.errors import PipelineError
from pipeline.report import build_report


def main(arguments: list[str] | None = None) -> int:
    """Build the report of the project in the current folder; return the exit status, 2 for an error to mend."""
    argparse.ArgumentParser(description="Write reports/ from the result tables.").parse_args(arguments)
    try:
        report(Paths.at())
    except PipelineError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def report(paths: Paths) -> None:
    """Build the report of every study in params.yaml and say where its page is."""
    params = load_params(paths)
    studies = {name: load_study(paths, name) for name in params.studies}
    page = build_report(paths, studies, params.scale)
    print(f"report: {', '.join(studies)} -> {page.relative_to(paths.root)}")


if __name__ == "__main__":
    sys.exit(main())
