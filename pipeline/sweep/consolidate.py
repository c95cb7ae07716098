"""From the trials of a study to its result tables: the same tables, to the bit, however the trials came to be."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.config.study import VARIANT
from pipeline.errors import StoreError
from pipeline.results import SCHEMAS, TRIAL_TABLES, write_table
from pipeline.results.frames import failed_trials_frame, spec_columns
from pipeline.results.store import TrialStore
from pipeline.sweep.plan import Plan, Setting


def consolidate(
    plan: Plan, store: TrialStore, folder: Path, errors: Mapping[str, str], git_revision: str | None = None
) -> None:
    """Write the tables of a study, and remove other tables from its folder.

    Args:
        plan: The settings, in the order in which rows appear.
        store: Has every trial of the plan but those in `errors`.
        folder: The study's results folder.
        errors: What went wrong, by trial id; such a trial has rows in `trials` with status `error`.
        git_revision: Of the run in which `errors` happened.

    Raises:
        StoreError: If a trial of the plan is not in the store.
    """
    parts: dict[str, list[pl.DataFrame]] = {table: [pl.DataFrame(schema=SCHEMAS[table])] for table in TRIAL_TABLES}
    parts["trials"] = []
    for setting in plan.trials:
        if setting.trial_id in errors:
            failed = failed_trials_frame(
                setting.spec,
                trial_id=setting.trial_id,
                dataset_digest=setting.dataset_digest,
                code_digest=setting.code_digest,
                message=errors[setting.trial_id],
                git_revision=git_revision,
            )
            parts["trials"].append(failed)
            continue
        stored = store.get(setting.trial_id)
        if stored is None:
            raise StoreError(f"{store.objects.where}: trial {setting.trial_id} ({setting.label}) is gone; run again")
        for table in TRIAL_TABLES:
            parts[table].append(_in_order(stored.tables[table], table))
    tables = {table: pl.concat(frames, how="diagonal").rechunk() for table, frames in parts.items()}
    tables["settings"] = settings_frame(plan, selected_positions(plan, tables["trials"]))
    for table, frame in tables.items():
        write_table(table, frame, folder)
    for path in folder.glob("*.parquet"):
        if path.stem not in tables:
            path.unlink()


def settings_frame(plan: Plan, selected: frozenset[int]) -> pl.DataFrame:
    """Return the `settings` table: one row for each setting, the values of its true axes as dotted columns.

    What a variant changes is no axis: it is among the spec's columns of `trials`.
    """
    frames = []
    for setting in plan.settings:
        row: dict[str, Any] = {
            "study": plan.study,
            "grid": setting.grid,
            "position": setting.position,
            "trial_id": setting.trial_id,
            "label": setting.label,
            "variant": setting.axes.get(VARIANT),
            "selected": setting.position in selected,
        }
        axes = {
            name: column
            for name, column in spec_columns(setting.spec).items()
            if any(f"{name}.".startswith(f"{axis}.") for axis in setting.axes)
        }
        row |= {name: column.value for name, column in axes.items()}
        frames.append(pl.DataFrame([row], schema=SCHEMAS["settings"] | {n: c.dtype for n, c in axes.items()}))
    return pl.concat(frames, how="diagonal").rechunk()


def selected_positions(plan: Plan, trials: pl.DataFrame) -> frozenset[int]:
    """Return the positions of the settings that a study's selection chooses; all of them where it has none.

    An arm is what agrees on every axis but those selected over, whose fields in an axis of whole objects do not count
    either. Its lowest median over seeds wins, where a seed that did not end `ok`, or has no number, counts as infinite;
    of equals the first in the study's file.
    """
    if plan.select is None:
        return frozenset(setting.position for setting in plan.settings)
    medians = median_scores(trials, plan.select.metric)
    best: dict[tuple[str, str], Setting] = {}
    for setting in plan.settings:
        key = (setting.grid, repr(_without(setting.axes, plan.select.over)))
        if key not in best or medians[setting.trial_id] < medians[best[key].trial_id]:
            best[key] = setting
    return frozenset(setting.position for setting in best.values())


def median_scores(trials: pl.DataFrame, metric: str) -> dict[str, float]:
    """Return each trial's median of `metric` over its seeds; a seed without an honest number counts as infinite."""
    scores: dict[str, list[float]] = {}
    for identity, status, value in trials.select("trial_id", "status", metric).iter_rows():
        honest = status == "ok" and value is not None and not math.isnan(value)
        scores.setdefault(identity, []).append(value if honest else math.inf)
    return {identity: statistics.median(values) for identity, values in scores.items()}


def _without(axes: Mapping[str, Any], over: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """Return the point without what is selected over, also inside whole objects."""
    chosen = tuple(f"{axis}." for axis in over)
    return {
        key: _without(value, over, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in axes.items()
        if not f"{prefix}{key}.".startswith(chosen)
    }


def _in_order(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return the rows in the order of what they are of: every column but those that hold what was measured."""
    measured = [name for name, dtype in SCHEMAS[table].items() if dtype.is_float() and name != "position"]
    keys = ["seed"] if table == "trials" else [name for name in SCHEMAS[table] if name not in measured]
    return frame.sort(keys, maintain_order=True)
