"""Make one dataset, data/<name>/, at every length that a study asks for: `python stages/prepare.py <dataset>`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree that this file stands in, not an installed one

from pipeline.config import Paths, check_tree, lengths_of, load_params, load_scale, load_study, write_digest
from pipeline.data import Manifest, describe, prepare_dataset, read_manifest
from pipeline.data.storage import PREVIEW
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parent.parent
NUM_LINES = 12
"""Lines of the first training sequences that are printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the dataset named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="a name under configs/datasets")
    parser.add_argument("--project", default=ROOT, help="the folder of params.yaml; default: where this file is")
    asked = parser.parse_args(arguments)
    try:
        check_tree(__file__)
        prepare(Paths.at(asked.project), asked.dataset)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def prepare(paths: Paths, name: str) -> None:
    """Prepare dataset `name` at the scale of params.yaml and say what was made."""
    started = time.perf_counter()
    params = load_params(paths)
    sizes = load_scale(paths, params.scale).datasets
    studies = {study: load_study(paths, study) for study in params.studies}
    lengths = lengths_of(studies, params.scale).get(name, ())
    prepare_dataset(name, paths.dataset_config(name), lengths, sizes, paths.dataset(name))
    manifest = read_manifest(paths.dataset(name))
    write_digest(paths.dataset_digest(name), dataclasses.asdict(manifest))
    report(manifest, time.perf_counter() - started)


def report(manifest: Manifest, wall_time_s: float) -> None:
    """Print what was made: sizes and a preview per length, the first sequences, and what is worth a remark."""
    variants = [manifest.variant(length) for length in manifest.lengths]
    for variant in variants:
        sequences = ", ".join(f"{num} {split}" for split, num in variant.num_sequences.items())
        print(f"{manifest.name}, length {variant.length}: {sequences} sequences of {variant.num_timesteps} timesteps")
        for line in describe(variant.preview):
            print(f"    {line}")
    shown = manifest.examples[:NUM_LINES]
    print(f"{manifest.name}, length {variants[0].length}: the first training sequences", *shown, sep="\n    ")
    if len(shown) < len(manifest.examples):
        print(f"    … (data/{manifest.name}/{PREVIEW} has more)")
    for remark in manifest.remarks:
        print(f"{manifest.name}: {remark}")
    megabytes = sum(variant.num_bytes for variant in variants) / 1e6
    print(f"{manifest.name}: {megabytes:.1f} MB in {wall_time_s:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
