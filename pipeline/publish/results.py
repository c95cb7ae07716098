"""Settings and their finished trials, read back from the result tables of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.config import Paths
from pipeline.results import TRIAL_TABLES, read_table


@dataclass(frozen=True)
class PublishedSetting:
    """A row of a study's `settings` table."""

    grid: str
    label: str
    trial_id: str


@dataclass(frozen=True)
class TabledTrial:
    """The rows of one trial in every table of a study, and its canonical spec."""

    tables: dict[str, pl.DataFrame]
    spec: dict[str, Any]


def from_results(paths: Paths, study: str) -> Iterator[tuple[PublishedSetting, TabledTrial]]:
    """Yield every setting of a study that has a finished trial, in the order of the plan.

    A trial that ended in an error has nothing to show beyond its row in the table of settings.

    Raises:
        TableError: If a table is missing, damaged or has other columns.
    """
    folder = paths.results(study)
    settings = read_table("settings", folder).sort("position")
    frames = {table: read_table(table, folder) for table in TRIAL_TABLES}
    parts = {table: frame.partition_by("trial_id", as_dict=True) for table, frame in frames.items()}
    for grid, label, trial_id in settings.select("grid", "label", "trial_id").iter_rows():
        tables = {table: parts[table].get((trial_id,), frame.clear()) for table, frame in frames.items()}
        if "error" not in tables["trials"]["status"]:
            yield PublishedSetting(grid, label, trial_id), TabledTrial(tables, json.loads(tables["trials"]["spec"][0]))
