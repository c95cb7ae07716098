"""Digests: small files by which DVC knows what has changed, so that no stage depends on a whole folder.

A folder such as data/ holds whatever lies there: left-overs, files of the desktop, what another branch lists. A later
stage depends on a digest instead, which follows from exactly those inputs that its result follows from:

    digests/studies.json             the studies that params.yaml lists, as read
    digests/requests/<dataset>.json  what those studies ask of a dataset         -> prepare@<dataset>
    digests/data/<dataset>.json      what was prepared, its manifest             -> plan
    digests/plans/<study>.json       settings, seeds and data of a study         -> sweep@<study>
    digests/results/<study>.json     which tables came out                       -> report

The stage that makes the folder also writes the digest, or one that runs in between and takes seconds. The same content
gives the same bytes, so a stage that runs again and finds nothing new leaves later ones fresh.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_scale
from pipeline.config.paths import Paths, write_whole
from pipeline.config.study import lengths_of, load_study


def write_digest(path: Path, content: Any) -> None:
    """Write `content` as JSON, or what comes near it (infinities, dates).

    Raises:
        PipelineError: If the file cannot be written.
    """
    write_whole(path, (json.dumps(content, indent=1, default=str) + "\n").encode())


def keep_listed(path_of: Callable[[str], Path], names: Collection[str]) -> None:
    """Remove the digests of what params.yaml no longer lists: `path_of` is `paths.dataset_digest`, or another of them.

    No stage of DVC can depend on the files of a list in params.yaml, so the next stage depends on the folder of the
    digests and cleans it. DVC hashes a dependency after the stage has run: dvc.lock never knows of a left-over, which
    a clone would not have.
    """
    for path in path_of("any").parent.glob("*.json"):
        if path.stem not in names:
            path.unlink()


def write_requests(paths: Paths, params: Params) -> None:
    """Write the listed studies as read, and for every listed dataset what they ask of it.

    Of a study's scales only the one of params.yaml counts.

    Raises:
        ConfigError: If a study or the scale is wrong.
        PipelineError: If a file cannot be written.
    """
    studies = {name: load_study(paths, name) for name in params.studies}
    sizes = load_scale(paths, params.scale).datasets
    for dataset in params.datasets:
        lengths = lengths_of(studies, params.scale, dataset)
        write_digest(paths.request(dataset), {"lengths": lengths, "sizes": dataclasses.asdict(sizes)})
    read = []
    for name, study in studies.items():
        scales = {scale: override for scale, override in study.scales.items() if scale == params.scale}
        read.append({"name": name, **dataclasses.asdict(dataclasses.replace(study, scales=scales))})
    write_digest(paths.listed_studies, read)
    keep_listed(paths.request, params.datasets)
