"""Where the numbers of a report come from: scale, seeds, versions, machines, trials."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pipeline.figures.words import number
from pipeline.quantities import GridTables


def provenance(scale: str, grids: Sequence[GridTables]) -> list[tuple[str, str]]:
    """Return what a reader needs to find or repeat these trials, as (term, text)."""
    if not grids:
        return [("scale", scale)]
    columns = ["trial_id", "seed", "wall_time_s", "device", "torch_version", "python_version", "git_revision"]
    rows = pl.concat([tables.all_runs.select(columns) for tables in grids]).unique(maintain_order=True)
    by_trial = rows.group_by("trial_id").agg(pl.col("wall_time_s").max())
    seconds = float(by_trial["wall_time_s"].sum())
    return [
        ("scale", scale),
        ("seeds", ", ".join(str(seed) for seed in rows["seed"].unique().sort())),
        ("trials", f"{by_trial.height}, each with all its seeds; {rows.height} replicas"),
        ("training time", f"{number(seconds)} s, summed over trials"),
        ("device", _distinct(rows["device"])),
        ("torch", _distinct(rows["torch_version"])),
        ("Python", _distinct(rows["python_version"])),
        ("git revision", _distinct(rows["git_revision"])),
    ]


def trial_ids(grids: Sequence[GridTables]) -> list[tuple[str, str]]:
    """Return (label, trial id) of every setting."""
    settings = [tables.settings.select("label", "trial_id") for tables in grids]
    return list(pl.concat(settings).iter_rows()) if settings else []


def _distinct(values: pl.Series) -> str:
    known = values.drop_nulls().unique().sort().to_list()
    return ", ".join(known) or "unknown"
