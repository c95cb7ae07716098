"""Publish finished studies to Weights & Biases, from their result tables and with no training.

    python stages/publish.py [study ...] [--mode online|offline]

What was published already and has not changed is not sent again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from typing import Literal

from pipeline.config import Params, Paths, load_params
from pipeline.errors import ConfigError, PipelineError, unknown_name
from pipeline.publish import Publisher


def main(arguments: list[str] | None = None) -> int:
    """Run the stage in the current folder and return its exit status: 1 where something was not sent as asked."""
    parser = argparse.ArgumentParser(description="Publish finished studies to Weights & Biases.")
    parser.add_argument("studies", nargs="*", metavar="study", help="default: every study of params.yaml")
    parser.add_argument("--mode", choices=("online", "offline"), help="default: as WANDB_MODE or params.yaml says")
    asked = parser.parse_args(arguments)
    try:
        done = _publish(Paths.at(), asked.studies, asked.mode)
    except PipelineError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    return 0 if done else 1


def _publish(paths: Paths, studies: list[str], mode: Literal["online", "offline"] | None) -> bool:
    """Publish `studies`, or all of params.yaml, and return whether everything went where it was meant to go."""
    params = load_params(paths)
    for study in studies:
        if study not in params.studies:
            raise ConfigError(f"{paths.params.name}: studies: {unknown_name('study', study, params.studies)}")
    with contextlib.closing(Publisher(paths, _with_mode(params, mode))) as publisher:
        for study in studies or params.studies:
            publisher.study(study)
            print(f"{study}: {publisher.mode}, {publisher.num_failed} failed")
    return publisher.num_failed == 0 and mode in {None, publisher.mode}


def _with_mode(params: Params, mode: Literal["online", "offline"] | None) -> Params:
    if mode is None:
        return params
    os.environ.pop("WANDB_MODE", None)  # what is asked on the command line is meant
    return dataclasses.replace(params, tracking=dataclasses.replace(params.tracking, mode=mode))


if __name__ == "__main__":
    sys.exit(main())
