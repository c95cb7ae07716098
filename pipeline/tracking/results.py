"""Settings and their finished trials, read back from the result tables of a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

import polars as pl

from pipeline.config import Paths, build
from pipeline.tables import read_table

TRIAL_TABLES = ("trials", "curves", "traces", "eigenvalues")


@dataclass(frozen=True)
class PublishedSetting:
    """A row of a study's `settings` table."""

    grid: str
    label: str
    trial_id: str


@dataclass(frozen=True)
class TabledTrial:
    """The rows of one trial in every table of a study, and the canonical spec that its columns spell."""

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
            yield PublishedSetting(grid, label, trial_id), TabledTrial(tables, _canonical_spec(tables["trials"]))


def _canonical_spec(trials: pl.DataFrame) -> dict[str, Any]:
    """Return the spec of one trial from its dotted columns.

    The columns are those of every variant in the study; a variant's own fields are told by its class, not by what
    is null, since a field may be null by choice.
    """
    from pipeline.training.spec import TrialSpec, canonical  # imports torch, which no other part of tracking needs

    nested: dict[str, Any] = {"seeds": sorted(trials["seed"].to_list())}
    for column, value in trials.row(0, named=True).items():
        group, dot, field = column.partition(".")
        if dot:
            nested.setdefault(group, {})[field] = value
    for group, variants in _variants().items():
        nested[group] = {field: nested[group][field] for field in variants[nested[group]["name"]]}
    spec: TrialSpec = build(TrialSpec, nested, "trials.parquet")
    return canonical(spec)


def _variants() -> dict[str, dict[str, list[str]]]:
    """Return the field names of each variant by its name, for every group of a spec that has variants."""
    from pipeline.training.spec import TrialSpec

    found = {}
    for group, hint in get_type_hints(TrialSpec).items():
        if len(get_args(hint)) > 1 and group != "seeds":
            found[group] = {
                get_args(get_type_hints(variant)["name"])[0]: [field.name for field in fields(variant)]
                for variant in get_args(hint)
            }
    return found
