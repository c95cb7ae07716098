"""Write what the studies of params.yaml ask of each dataset, and those studies as read: `python stages/request.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline.config import Paths, check_tree, load_params, write_requests
from pipeline.errors import PipelineError


def main(arguments: list[str] | None = None) -> int:
    """Run the stage in the current folder; return the exit status, 2 for an error that the user can mend."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    try:
        check_tree(__file__)
        paths = Paths.at()
        params = load_params(paths)
        write_requests(paths, params)
    except PipelineError as error:
        print(f"request: {error}", file=sys.stderr)
        return 2
    print(f"request: {len(params.studies)} studies, {len(params.datasets)} datasets at scale {params.scale}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
