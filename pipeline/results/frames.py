"""From what a trial wrote to frames that are exactly what the schemas declare.

A trial knows numpy and plain numbers only; polars, the trial's id and the facts about the machine come in here.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import polars as pl

from pipeline.config.strict import is_left_out, key_of, plain
from pipeline.core.models import CustomModel
from pipeline.core.training.rows import FACTS
from pipeline.errors import TableError
from pipeline.results.schema import SCHEMAS, TRIAL_TABLES, TRIALS, check


class SpecColumn(NamedTuple):
    """One field of a spec: its value, and the dtype that its declaration gives it (also where the value is null)."""

    value: Any
    dtype: pl.DataType


_DTYPES: dict[type, pl.DataType] = {bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), str: pl.String()}


def spec_columns(spec: Any) -> dict[str, SpecColumn]:
    """Return every scalar of a spec, of its nested dataclasses and mappings, by dotted name; tuples are left out.

    The dtype is that of the declaration, so that a study in which every `embedding_size` is null still has an
    integer column. A part that is null as a whole, a mapping without keys, or an option that has its default, has none.
    """
    cls: Any = type(spec)
    hints = _hints_of(cls)
    found: dict[str, SpecColumn] = {}
    for field in dataclasses.fields(spec):
        if not is_left_out(field, value := getattr(spec, field.name)):
            found |= _columns(key_of(field), hints[field.name], value)
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
    if table == "curves":
        frame = frame.with_columns(pl.when(pl.col(fact) != nothing).then(fact) for fact, nothing in FACTS.items())
    return check(table, frame, where)


def long_frames(tables: Mapping[str, Mapping[str, Any]], trial_id: str) -> dict[str, pl.DataFrame]:
    """Return `long_frame` of each of `TRIAL_TABLES` but `trials`; of what is not among `tables` an empty one.

    Raises:
        TableError: As `long_frame`.
    """
    return {table: long_frame(table, tables.get(table, {}), trial_id) for table in TRIAL_TABLES if table != "trials"}


def trials_frame(
    rows: Sequence[Mapping[str, object]],
    spec: Any,
    *,
    trial_id: str,
    dataset_digest: str,
    code_digest: str,
    facts: Mapping[str, Any],
) -> pl.DataFrame:
    """Return the `trials` rows of one trial, one per seed, with every field of its spec as a dotted column.

    Args:
        rows: One mapping per seed, with a key for each remaining column of the table.
        spec: The trial's spec.
        trial_id: Its id.
        dataset_digest: Of the data it trained on.
        code_digest: Of the code that it ran.
        facts: `hostname` and `git_revision` of where it ran.

    Raises:
        TableError: If a key is missing, undeclared, or its value does not fit the declared type.
    """
    where = f"trial {trial_id}"
    common = {"trial_id": trial_id, "dataset_digest": dataset_digest, "code_digest": code_digest, "adopted_from": None}
    common["spec"] = json.dumps(plain(spec), sort_keys=True, allow_nan=False)
    common |= {name: facts[name] for name in ("hostname", "git_revision")}
    names = list(dict.fromkeys(name for row in rows for name in row))
    series = [_series("trials", name, [row.get(name) for row in rows], TRIALS.get(name), where) for name in names]
    constants = [pl.lit(value, TRIALS[name]).alias(name) for name, value in common.items()]
    columns = spec_columns(spec)
    if isinstance(model := getattr(spec, "model", None), CustomModel):
        columns["model.cell"] = SpecColumn(model.label, pl.String())  # what it is told apart by from others
    constants += [pl.lit(column.value, column.dtype).alias(name) for name, column in columns.items()]
    return check("trials", pl.DataFrame(series).with_columns(constants), where)


def failed_trials_frame(
    spec: Any, *, trial_id: str, dataset_digest: str, code_digest: str, message: str, git_revision: str | None
) -> pl.DataFrame:
    """Return the `trials` rows of a trial that ended in an error: status and message, everything measured null."""
    outcome = {"status": "error", "status_message": message}
    blank: dict[str, object] = dict.fromkeys(TRIALS)
    rows = [blank | outcome | {"seed": seed} for seed in spec.seeds]
    facts = {"hostname": None, "git_revision": git_revision}
    return trials_frame(
        rows, spec, trial_id=trial_id, dataset_digest=dataset_digest, code_digest=code_digest, facts=facts
    )


def _columns(name: str, hint: Any, value: Any) -> dict[str, SpecColumn]:
    """Return the columns of one field, or of one value of a mapping."""
    if dataclasses.is_dataclass(value):
        return {f"{name}.{inner}": column for inner, column in spec_columns(value).items()}
    if isinstance(value, Mapping):
        held = next((get_args(option)[1] for option in _options(hint) if get_args(option)), Any)
        parts = [_columns(f"{name}.{key}", held, part) for key, part in value.items()]
        return {inner: column for part in parts for inner, column in part.items()}
    options = (type(value),) if hint is Any else _options(hint)
    dtypes = [dtype for option in options if (dtype := _dtype(option)) is not None]
    return {name: SpecColumn(value, dtypes[0])} if dtypes else {}


@functools.cache
def _hints_of(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _dtype(option: Any) -> pl.DataType | None:
    """Return the dtype of a scalar type or a `Literal`; None for what is no scalar."""
    return _DTYPES.get(type(get_args(option)[0]) if get_origin(option) is Literal else option)


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
