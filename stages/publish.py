"""Publish finished studies to Weights & Biases, from their result tables and with no training.

    python stages/publish.py [study ...] [--mode online|offline]

What was published already and has not changed is not sent again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline.config import Paths, check_tree, load_params
from pipeline.errors import ConfigError, PipelineError, unknown_name
from pipeline.publish import Publisher


def main(arguments: list[str] | None = None) -> int:
    """Publish from the project in this folder; return 1 where something was not sent as asked, 2 for a mistake."""
    parser = argparse.ArgumentParser(description="Publish finished studies to Weights & Biases.")
    parser.add_argument("studies", nargs="*", metavar="study", help="default: every study of params.yaml")
    parser.add_argument("--mode", choices=("online", "offline"), help="default: as WANDB_MODE or params.yaml says")
    asked = parser.parse_args(arguments)
    try:
        check_tree(__file__)
        if asked.mode:
            os.environ["WANDB_MODE"] = asked.mode  # the command line comes before the environment and params.yaml
        publisher = publish(Paths.at(), asked.studies)
    except PipelineError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    return 0 if publisher.num_failed == 0 and asked.mode in {None, publisher.mode} else 1


def publish(paths: Paths, studies: list[str]) -> Publisher:
    """Publish `studies`, or all of params.yaml, and return the publisher, which knows what failed."""
    params = load_params(paths)
    for study in studies:
        if study not in params.studies:
            raise ConfigError(f"{paths.params.name}: studies: {unknown_name('study', study, params.studies)}")
    with contextlib.closing(Publisher(paths, params)) as publisher:
        for study in studies or params.studies:
            publisher.study(study)
            print(f"{study}: {publisher.mode}, {publisher.num_failed} failed")
    return publisher


if __name__ == "__main__":
    sys.exit(main())
