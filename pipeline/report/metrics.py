"""Numbers for `dvc metrics` and small tables for `dvc plots`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from pipeline.claims.judge import VERDICTS
from pipeline.figures import gradient_by_lag, learning_curves, loss_by_length
from pipeline.quantities import GridTables
from pipeline.quantities.solved import longest_solved, solved_share

MAX_CURVE_STEPS = 100
"""Learning curves are thinned to at most as many steps."""

_SETTING_METRICS = ("test_loss", "test_error", "solved_share", "criterion_step", "gradient_check_error")


def metrics(grids: Sequence[GridTables], summary: pl.DataFrame, verdicts: pl.DataFrame) -> dict[str, Any]:
    """Return nested mappings of finite numbers or None: by study and grid, arm and length, and by claim."""
    found: dict[str, Any] = {}
    for tables in grids:
        mine = summary.filter(pl.col("study") == tables.study, pl.col("grid") == tables.grid, pl.col("selected"))
        found.setdefault(tables.study, {})[tables.grid] = _grid_metrics(tables, mine)
    counts = {f"num_{verdict.replace(' ', '_')}": (verdicts["verdict"] == verdict).sum() for verdict in VERDICTS}
    effects = {row["claim"]: {"effect": _finite(row["effect"])} for row in verdicts.iter_rows(named=True)}
    return found | {"claims": counts | effects}


def to_json(found: dict[str, Any]) -> bytes:
    """Return strict JSON, the same bytes for the same numbers."""
    return (json.dumps(found, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def plot_tables(grids: Sequence[GridTables]) -> dict[str, pl.DataFrame]:
    """Return the tables of reports/plots by name; they have their columns even where no grid has rows."""
    return {
        "gradient_by_lag": _stacked(grids, gradient_by_lag.applies, _gradient_rows, _GRADIENT),
        "loss_by_length": _stacked(grids, lambda tables: True, _length_rows, _LENGTHS),
        "learning_curves": _stacked(grids, learning_curves.applies, _curve_rows, _CURVES),
    }


_NAMES: dict[str, pl.DataType] = {"study": pl.String(), "grid": pl.String(), "arm": pl.String()}
_INTERVAL: dict[str, pl.DataType] = {"low": pl.Float64(), "high": pl.Float64(), "num_seeds": pl.Int64()}
_GRADIENT = _NAMES | {"quantity": pl.String(), "stage": pl.String(), "lag": pl.Int64()}
_GRADIENT |= {"log10_relative_norm": pl.Float64()} | _INTERVAL
_LENGTHS = _NAMES | {"length": pl.Int64(), "test_loss": pl.Float64()} | _INTERVAL | {"solved_share": pl.Float64()}
_CURVES = _NAMES | {"length": pl.Int64(), "step": pl.Int64(), "median_validation_loss": pl.Float64()}
_CURVES |= {"num_seeds": pl.Int64()}


def _grid_metrics(tables: GridTables, summary: pl.DataFrame) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    for row in summary.iter_rows(named=True):
        arms.setdefault(row["arm"], {})[f"T{row['length']}"] = {name: _finite(row[name]) for name in _SETTING_METRICS}
    for arm, longest in longest_solved(tables.runs).iter_rows():
        arms[arm]["longest_solved"] = longest
    if gradient_by_lag.applies(tables):
        for row in gradient_by_lag.rates(tables).iter_rows(named=True):
            factor = None if row["mean"] is None else _finite(10.0 ** row["mean"])
            key = f"decay_factor_{row['quantity']}_{row['stage']}"
            arms[row["arm"]][key] = factor
    statuses = tables.all_runs["status"]
    return arms | {"num_replicas": len(statuses), "num_not_ok": int((statuses != "ok").sum())}


def _stacked(
    grids: Iterable[GridTables],
    applies: Callable[[GridTables], bool],
    rows: Callable[[GridTables], pl.DataFrame],
    schema: dict[str, pl.DataType],
) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=schema)]
    for tables in grids:
        if applies(tables):
            named = rows(tables).with_columns(study=pl.lit(tables.study), grid=pl.lit(tables.grid))
            frames.append(named.select(pl.col(name).cast(dtype) for name, dtype in schema.items()))
    return pl.concat(frames)


def _gradient_rows(tables: GridTables) -> pl.DataFrame:
    return gradient_by_lag.table(tables).rename({"mean": "log10_relative_norm"})


def _length_rows(tables: GridTables) -> pl.DataFrame:
    shares = solved_share(tables.runs).select("arm", "length", solved_share="share")
    losses = loss_by_length.table(tables).rename({"loss": "test_loss"})
    return losses.join(shares, on=["arm", "length"], maintain_order="left")


def _curve_rows(tables: GridTables) -> pl.DataFrame:
    drawn = learning_curves.table(tables).rename({"median": "median_validation_loss"})
    rank = (pl.col("step").rank("dense") - 1).over("arm", "length")
    stride = (pl.col("step").n_unique() / MAX_CURVE_STEPS).ceil().cast(pl.Int64).over("arm", "length")
    last = pl.col("step") == pl.col("step").max().over("arm", "length")
    return drawn.filter((rank % stride == 0) | last)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
