"""From the trials of a study to its result tables: the same tables, to the bit, however the trials came to be."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from pipeline.config import whole_file
from pipeline.config.study import VARIANT, arm_of
from pipeline.errors import StoreError, TableError
from pipeline.results import SCHEMAS, TRIAL_TABLES, check, write_table
from pipeline.results.frames import SpecColumn, failed_trials_frame, spec_columns
from pipeline.results.store import TrialStore
from pipeline.sweep.plan import Plan, Setting

ROWS_AT_ONCE = 2**18
"""Of a table: so many are gathered before they are written, as one row group."""

BYTES_AT_ONCE = 2**27
"""The same, where rows are long."""

PARTS_AT_ONCE = 128
"""Frames of some rows are made into one before there are more: their columns take more memory than what is in them."""


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
    scores: dict[str, float] = {}
    listed, summaries = store.catalogue.listed(), []
    metric = None if plan.select is None else plan.select.metric
    with contextlib.ExitStack() as stack:
        columns = {"trials": _columns(SCHEMAS["trials"], (spec_columns(setting.spec) for setting in plan.trials))}
        tables = {name: stack.enter_context(_table(name, folder, columns.get(name))) for name in TRIAL_TABLES}
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
                rows = {"trials": failed}
            else:
                stored = store.get(setting.trial_id)
                if stored is None:
                    where = f"{store.objects.where}: trial {setting.trial_id} ({setting.label})"
                    raise StoreError(f"{where} is gone; run again")
                rows = stored.tables
                if not setting.stored:  # by the plan; the others are in the catalogue
                    summaries.append(stored.summary)
            for name, frame in rows.items():
                if len(frame):
                    tables[name].add(_in_order(frame, name))
            if metric is not None:
                scores |= median_scores(rows["trials"], metric)
    write_table("settings", settings_frame(plan, selected_positions(plan, scores)), folder)
    store.catalogue.keep([summary for summary in summaries if summary.trial_id in listed], listed)
    for path in folder.glob("*.parquet"):
        if path.stem not in SCHEMAS:
            path.unlink()


@contextlib.contextmanager
def _table(name: str, folder: Path, schema: Mapping[str, pl.DataType] | None) -> Iterator[_Table]:
    """Yield a table that is written part by part; nobody sees half a file.

    Args:
        name: A key of `SCHEMAS`.
        folder: Where `<name>.parquet` is to lie.
        schema: With the further columns of an open table; a part without one of them has nulls there.

    Raises:
        TableError: If it cannot be written.
    """
    path, schema = folder / f"{name}.parquet", schema or SCHEMAS[name]
    with whole_file(path, TableError) as temporary:
        folder.mkdir(parents=True, exist_ok=True)
        arrow = pl.DataFrame(schema=schema).to_arrow().schema
        with pq.ParquetWriter(temporary, arrow, compression="zstd", write_statistics=False) as writer:
            table = _Table(path, schema, writer)
            yield table
            table.flush()


class _Table:
    """A table of which no more than some parts are in memory."""

    def __init__(self, path: Path, schema: Mapping[str, pl.DataType], writer: pq.ParquetWriter) -> None:
        self._path, self._schema, self._writer = path, schema, writer
        self._parts, self._whole = list[pl.DataFrame](), list[pl.DataFrame]()
        self._num_waiting, self._num_bytes = 0, 0

    def add(self, frame: pl.DataFrame) -> None:
        """Write rows after those before; the same parts make the same file.

        Raises:
            TableError: If they are not what the schema declares, or cannot be written.
        """
        frame = check(self._path.stem, frame, str(self._path))
        if frame.schema != self._schema:
            lacking = self._schema.keys() - {*frame.columns}
            nulls = [pl.lit(None, self._schema[name]).alias(name) for name in sorted(lacking)]
            frame = frame.with_columns(nulls).select(*self._schema).cast(dict(self._schema))  # type: ignore[arg-type]
        self._parts.append(frame)
        self._num_waiting += len(frame)
        if len(self._parts) >= PARTS_AT_ONCE:
            self._whole.append(pl.concat(self._parts, rechunk=True))
            self._num_bytes += int(self._whole[-1].estimated_size())
            self._parts = []
        if self._num_waiting >= ROWS_AT_ONCE or self._num_bytes >= BYTES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait.

        Raises:
            TableError: If they cannot be written.
        """
        try:
            if self._num_waiting:
                self._writer.write_table(pl.concat([*self._whole, *self._parts]).to_arrow())
        except OSError as error:
            raise TableError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        self._parts, self._whole, self._num_waiting, self._num_bytes = [], [], 0, 0


def settings_frame(plan: Plan, selected: frozenset[int]) -> pl.DataFrame:
    """Return the `settings` table: one row for each setting, the values of its true axes as dotted columns.

    What a variant changes is no axis: it is among the spec's columns of `trials`.
    """
    rows, axes = [], []
    for setting in plan.settings:
        found = {
            name: column
            for name, column in spec_columns(setting.spec).items()
            if any(f"{name}.".startswith(f"{axis}.") for axis in setting.axes)
        }
        row = {
            "study": plan.study,
            "grid": setting.grid,
            "position": setting.position,
            "trial_id": setting.trial_id,
            "label": setting.label,
            "variant": setting.axes.get(VARIANT),
            "selected": setting.position in selected,
        }
        rows.append(row)
        axes.append(found)
    schema = _columns(SCHEMAS["settings"], axes)
    for row, found in zip(rows, axes, strict=True):
        row |= {name: _as(schema[name], column) for name, column in found.items()}
    return pl.DataFrame(rows, schema=schema)


def _as(dtype: pl.DataType, column: SpecColumn) -> Any:
    return column.value if column.dtype == dtype else pl.Series([column.value], dtype=column.dtype).cast(dtype)[0]


def _columns(declared: Mapping[str, pl.DataType], found: Iterable[Mapping[str, SpecColumn]]) -> dict[str, pl.DataType]:
    """Return the declared columns and after them those of specs, in the order in which they first occur."""
    schema = dict(declared)
    for columns in found:
        for name, column in columns.items():
            schema[name] = _common(schema.get(name, column.dtype), column.dtype)
    return schema


def _common(first: pl.DataType, other: pl.DataType) -> pl.DataType:
    """Return a type for both: arguments of a network of one's own may be 0 in one setting, 0.5 or a text in another."""
    if first == other:
        return first
    return pl.Float64() if {first, other} == {pl.Int64(), pl.Float64()} else pl.String()


def selected_positions(plan: Plan, medians: Mapping[str, float]) -> frozenset[int]:
    """Return the positions of the settings that a study's selection chooses; all of them where it has none.

    Args:
        plan: Of the study.
        medians: By trial, of what it selects by: `median_scores`.

    Of each arm (`arm_of`) the lowest median over seeds wins, where a seed that did not end `ok`, as one that a search
    stopped, or has no number, counts as infinite; of equals the first in the study's file.
    """
    if plan.select is None:
        return frozenset(setting.position for setting in plan.settings)
    best: dict[tuple[str, str], Setting] = {}
    for setting in plan.settings:
        key = arm_of(setting.grid, setting.axes, plan.select.over)
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


def _in_order(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return the rows in the order of what they are of: every column but those that hold what was measured."""
    measured = [name for name, dtype in SCHEMAS[table].items() if dtype.is_float() and name != "position"]
    keys = ["seed"] if table == "trials" else [name for name in SCHEMAS[table] if name not in measured]
    return frame.sort(keys, maintain_order=True)
