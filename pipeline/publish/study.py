"""The view of a study: its settings, the figures of the report, the datasets it used and its result tables."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.config import Paths
from pipeline.publish.view import Files, Picture, RunView, Table, digest_of_file
from pipeline.results import read_table

DATASET_FILES = ("manifest.*", "preview*")
"""What stands for a dataset in W&B: never the arrays, which its digest names and `prepare` makes again."""


def view_study(paths: Paths, study: str) -> RunView:
    """Return the W&B run of a whole study.

    Raises:
        TableError: If the study has no result tables, or they do not have their columns.
    """
    settings, trials = (read_table(table, paths.results(study)) for table in ("settings", "trials"))
    figures = sorted((paths.reports / "figures").glob(f"{study}_*.png"))
    return RunView(
        run_id=f"{study}-study",
        name=study,
        group=study,
        job_type="study",
        config={"study": study, "grids": settings["grid"].unique(maintain_order=True).to_list()},
        rows=(),
        summary={"num_settings": settings.height, "num_trials": trials["trial_id"].n_unique()} | _statuses(trials),
        tables={"settings": Table.of(settings)},
        pictures={path.stem: Picture(digest_of_file(path), path.read_bytes) for path in figures},
        artifacts=[*_datasets(paths, trials), _results(paths, study)],
    )


def _statuses(trials: pl.DataFrame) -> dict[str, int]:
    counts = trials.group_by("status").len().sort("status")
    return {f"num_seeds/{status}": count for status, count in counts.iter_rows()}


def _datasets(paths: Paths, trials: pl.DataFrame) -> list[Files]:
    """Return an artifact for each dataset: its manifest and preview, its digests as aliases."""
    used = trials.select("dataset.name", "dataset.length", "dataset_digest").unique().sort(pl.all())
    artifacts = []
    for (name,), variants in used.group_by("dataset.name", maintain_order=True):
        digests = variants["dataset_digest"].to_list()
        lengths = variants["dataset.length"].to_list()
        files = tuple(sorted(_files(paths.dataset(str(name)))))
        metadata = {"variants": [{"length": t, "digest": digest} for t, digest in zip(lengths, digests, strict=True)]}
        artifacts.append(Files(f"dataset-{name}", "dataset", files, tuple(digest[:16] for digest in digests), metadata))
    return artifacts


def _files(folder: Path) -> set[Path]:
    return {path for pattern in DATASET_FILES for path in folder.glob(pattern) if path.is_file()}


def _results(paths: Paths, study: str) -> Files:
    tables = tuple(sorted(paths.results(study).glob("*.parquet")))
    return Files(f"results-{study}", "result", tables, (), {"tables": [path.stem for path in tables]})
