"""From what a trial wrote to frames that are exactly what the schemas declare.

A trial knows numpy and plain numbers only; polars, the trial's id and the facts about the machine come in here.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np
import polars as pl

from pipeline.errors import TableError
from pipeline.tables.schema import SCHEMAS, TRIALS, check


class SpecColumn(NamedTuple):
    """One field of a spec: its value, and the dtype that its declaration gives it (also where the value is null)."""

    value: Any
    dtype: pl.DataType


_DTYPES: dict[type, pl.DataType] = {bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), str: pl.String()}


def spec_columns(spec: Any) -> dict[str, SpecColumn]:
    """Return every scalar field of a spec, a nested dataclass, by dotted name; tuples such as the seeds are left out.

    The dtype is that of the declaration, so that a study in which every `embedding_size` is null still has an
    integer column.
    """
    hints = get_type_hints(type(spec))
    found: dict[str, SpecColumn] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{name}": column for name, column in spec_columns(value).items()}
        elif not isinstance(value, tuple):
            found[field.name] = SpecColumn(value, _dtype(hints[field.name], value))
    return found


def long_frame(table: str, columns: Mapping[str, Any], trial_id: str) -> pl.DataFrame:
    """Return the frame of one long table of a trial; no columns at all make an empty one.

    Args:
        table: `curves`, `traces` or `eigenvalues`.
        columns: Arrays or lists of one length by column, `trial_id` not among them.
        trial_id: Is put in front of every row.

    Raises:
        TableError: If a column is missing, undeclared, or does not fit its declared type.
    """
    declared, where = SCHEMAS[table], f"trial {trial_id}"
    if not columns:
        return pl.DataFrame(schema=declared)
    series = [_series(table, name, values, declared.get(name), where) for name, values in columns.items()]
    frame = pl.DataFrame(series).with_columns(pl.lit(trial_id, pl.String()).alias("trial_id"))
    return check(table, frame, where)


def trials_frame(
    rows: Sequence[Mapping[str, object]],
    spec: Any,
    *,
    trial_id: str,
    dataset_digest: str,
    facts: Mapping[str, Any],
) -> pl.DataFrame:
    """Return the `trials` rows of one trial, one per seed, with every field of its spec as a dotted column.

    Args:
        rows: One mapping per seed, with a key for each remaining column of the table.
        spec: The trial's spec.
        trial_id: Its id.
        dataset_digest: Of the data it trained on.
        facts: `hostname` and `git_revision` of where it ran.

    Raises:
        TableError: If a key is missing, undeclared, or its value does not fit the declared type.
    """
    where = f"trial {trial_id}"
    common = {"trial_id": trial_id, "dataset_digest": dataset_digest}
    common |= {name: facts[name] for name in ("hostname", "git_revision")}
    names = list(dict.fromkeys(name for row in rows for name in row))
    series = [_series("trials", name, [row.get(name) for row in rows], TRIALS.get(name), where) for name in names]
    constants = [pl.lit(value, TRIALS[name]).alias(name) for name, value in common.items()]
    constants += [pl.lit(column.value, column.dtype).alias(name) for name, column in spec_columns(spec).items()]
    return check("trials", pl.DataFrame(series).with_columns(constants), where)


def failed_trials_frame(
    spec: Any, *, trial_id: str, dataset_digest: str, message: str, git_revision: str | None
) -> pl.DataFrame:
    """Return the `trials` rows of a trial that ended in an error: status and message, everything measured null."""
    told = {"status": "error", "status_message": message}
    given = ("trial_id", "dataset_digest", "hostname", "git_revision")
    blank: dict[str, object] = {name: None for name in TRIALS if name not in given}
    rows = [blank | told | {"seed": seed} for seed in spec.seeds]
    facts = {"hostname": None, "git_revision": git_revision}
    return trials_frame(rows, spec, trial_id=trial_id, dataset_digest=dataset_digest, facts=facts)


def _dtype(hint: Any, value: Any) -> pl.DataType:
    options = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    declared = [_DTYPES[option] for option in options if option in _DTYPES]
    return declared[0] if declared else _DTYPES[type(value)]  # a Literal has the type of its value


def _series(table: str, name: str, values: Any, dtype: pl.DataType | None, where: str) -> pl.Series:
    if dtype is None:
        raise TableError(f"{where}: table {table!r} has undeclared column {name!r}")
    try:
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iufb":
            return pl.Series(name, list(values), dtype)  # text too: polars reads numpy's fixed-width strings as objects
        if values.dtype.kind == "f" and not dtype.is_float():
            raise TypeError(f"an array of {values.dtype}")  # polars would cut the fraction off
        return pl.Series(name, values).cast(dtype)
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise TableError(f"{where}: {table}.{name}: expected {dtype}, got {error}") from error
