"""The small tables of a report: what did not end ok, numbers for `dvc metrics`, points for `dvc plots`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.claims import VERDICTS
from pipeline.quantities import Grid
from pipeline.quantities import gradients as gradient
from pipeline.quantities import outcomes as outcome
from pipeline.quantities.grid import once_per_grid
from pipeline.quantities.quantity import from_log10
from pipeline.quantities.selection import pick_evenly, thin_evenly
from pipeline.quantities.settings import settings_table
from pipeline.quantities.training import median_validation_loss
from pipeline.quantities.words import number
from pipeline.report.page import distance

MAX_CURVE_STEPS, MAX_LAGS = 100, 17
"""A line of `dvc plots` has at most as many points."""

MAX_ARMS = 100
"""Of a grid with more arms, `dvc plots` and `metrics.json` have so many, and say of how many."""

PLOT_DIGITS = 4
"""Significant digits of `dvc plots`: git keeps these tables, so they are small."""

TABLE_DIGITS = 10
"""Those of `metrics.json` and of the report's tables: what is beyond them is rounding."""

_METRICS = ("test_loss", "test_error", "solved_share", "criterion_step", "gradient_check_error")


def failures(grid: Grid) -> pl.DataFrame:
    """Return what ended badly: a row per setting, status and place, with its seeds and the message.

    What a search stopped did not.
    """
    bad = grid.all_runs.filter(~pl.col("status").is_in(["ok", "censored"])).sort("position", "seed")
    place = ["diverged_step", "diverged_timestep", "diverged_quantity"]
    keys = ["position", "label", "selected", "status", *place, "status_message"]
    return bad.group_by(keys, maintain_order=True).agg(pl.col("seed"))


def headline(grids: Sequence[Grid], verdicts: pl.DataFrame) -> bytes:
    """Return the few numbers of `dvc metrics show`, as JSON: claims by verdict, and replicas that did not end ok.

    A terminal has room for four. What is supported with a condition is supported; the others were not tested.
    """
    counts = {
        name: int(verdicts["verdict"].str.starts_with(name).sum())
        for name in ("supported", "contradicted", "inconclusive")
    }
    statuses = pl.concat([grid.all_runs.select("trial_id", "seed", "status") for grid in grids]).unique()["status"]
    return _json(counts | {"not_ok": int((statuses != "ok").sum())})


def metrics(grids: Sequence[Grid], verdicts: pl.DataFrame) -> bytes:
    """Return strict JSON of finite numbers or null: by study and grid, arm and length, and by claim."""
    found: dict[str, Any] = {}
    for grid in grids:
        found.setdefault(grid.study, {})[grid.name] = _grid_metrics(grid)
    counts = {f"num_{verdict.replace(' ', '_')}": (verdicts["verdict"] == verdict).sum() for verdict in VERDICTS}
    effects = {row["claim"]: {"effect": _finite(row["effect"])} for row in verdicts.iter_rows(named=True)}
    return _json(found | {"claims": counts | effects})


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _grid_metrics(grid: Grid) -> dict[str, Any]:
    few = _few_arms(grid)
    is_few, arms = pl.col("arm").is_in(few), dict[str, Any]()
    for row in settings_table(grid).filter("selected", is_few).iter_rows(named=True):
        arms.setdefault(row["arm"], {})[f"T{row['length']}"] = {name: _finite(row[name]) for name in _METRICS}
    for arm, longest in outcome.longest_solved(grid).filter(is_few).iter_rows():
        arms[arm]["longest_solved"] = longest
    quantity, longest = gradient.decay_factor, grid.at("longest")
    decay = quantity.summary(quantity.of(longest).filter(is_few), ["stage", "arm", "state"])
    for row in decay.iter_rows(named=True):
        factor = None if row["mean"] is None else _finite(from_log10(row["mean"]))
        arms[row["arm"]][f"decay_factor_{row['state']}_{row['stage']}"] = factor
    statuses = grid.all_runs["status"]
    cut = {"num_arms": len(grid.arms), "num_arms_listed": len(few)} if len(few) < len(grid.arms) else {}
    return arms | cut | {"num_replicas": len(statuses), "num_not_ok": int((statuses != "ok").sum())}


def plot_tables(grids: Sequence[Grid], verdicts: pl.DataFrame, checks: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the tables of reports/plots by name; they have their columns even where no grid has rows."""
    return {
        "ledger": _ledger(verdicts, checks),
        "gradient_by_lag": _stacked(grids, _gradient_rows, _GRADIENT),
        "loss_by_length": _stacked(grids, _length_rows, _LENGTHS),
        "learning_curves": _stacked(grids, _curve_rows, _CURVES),
    }


def _ledger(verdicts: pl.DataFrame, checks: pl.DataFrame) -> pl.DataFrame:
    """Return a row per claim: how far the effect of its first check, and its interval, lie from the threshold."""
    rows = []
    firsts = {row["claim"]: row for row in reversed(checks.to_dicts())}
    for row in verdicts.select("claim", "study", "verdict", "statement", "num_seeds").iter_rows(named=True):
        first = firsts[row["claim"]]
        middle, *ends = (_finite(distance(first, first[side])) for side in ("effect", "low", "high"))
        low, high = sorted(ends) if None not in ends else (None, None)  # type: ignore[type-var]
        rows.append(row | {"distance": middle, "low": low, "high": high, "expected": first["expected"]})
    return rounded(pl.DataFrame(rows, schema=_LEDGER), PLOT_DIGITS)


_LEDGER: dict[str, pl.DataType] = dict.fromkeys(("claim", "study", "verdict", "statement", "expected"), pl.String())
_LEDGER |= dict.fromkeys(("distance", "low", "high"), pl.Float64()) | {"num_seeds": pl.Int64()}
_NAMES: dict[str, pl.DataType] = {"study": pl.String(), "grid": pl.String(), "arm": pl.String()}
_INTERVAL: dict[str, pl.DataType] = {"low": pl.Float64(), "high": pl.Float64(), "num_seeds": pl.Int64()}
_GRADIENT = _NAMES | {"state": pl.String(), "stage": pl.String(), "lag": pl.Int64()}
_GRADIENT |= {"log10_relative_norm": pl.Float64()} | _INTERVAL
_LENGTHS = _NAMES | {"length": pl.Int64(), "test_loss": pl.Float64()} | _INTERVAL | {"solved_share": pl.Float64()}
_CURVES = _NAMES | {"length": pl.Int64(), "step": pl.Int64(), "median_validation_loss": pl.Float64()}
_CURVES |= {"num_seeds": pl.Int64()}


def _stacked(grids: Iterable[Grid], rows: Any, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=schema)]
    for grid in grids:
        few = _few_arms(grid)
        name = grid.name if len(few) == len(grid.arms) else f"{grid.name} ({len(few)} of {len(grid.arms)} arms)"
        named = rows(grid, few).with_columns(study=pl.lit(grid.study), grid=pl.lit(name))
        frames.append(named.select(pl.col(name).cast(dtype) for name, dtype in schema.items()))
    return rounded(pl.concat(frames), PLOT_DIGITS)


@once_per_grid
def _few_arms(grid: Grid) -> list[str]:
    """Return at most `MAX_ARMS` arms: the extremes by test loss, and between them evenly by rank."""
    losses = outcome.test_loss.by_arm(grid.at("longest"))
    return pick_evenly({arm: losses.get(arm) for arm in grid.arms}, MAX_ARMS)


def _gradient_rows(grid: Grid, arms: Sequence[str]) -> pl.DataFrame:
    """Return the gradient by lag, thinned to at most `MAX_LAGS` lags of each line."""
    quantity, line = gradient.gradient_by_lag, ["stage", "arm", "state"]
    rows = quantity.of(grid.at("longest")).filter(pl.col("arm").is_in(arms))
    summary = quantity.summary(rows, [*line, "lag"])
    return thin_evenly(summary, "lag", line, MAX_LAGS).rename({"mean": "log10_relative_norm"})


def _length_rows(grid: Grid, arms: Sequence[str]) -> pl.DataFrame:
    losses, solved = outcome.test_loss, outcome.solved
    keys, is_few = ["arm", "length"], pl.col("arm").is_in(arms)
    shares = solved.summary(solved.of(grid).filter(is_few), keys).select(*keys, solved_share="mean")
    rows = losses.natural(losses.summary(losses.of(grid).filter(is_few), keys)).sort("length", maintain_order=True)
    rows = rows.select(*keys, "num_seeds", "low", "high", test_loss="mean")
    return rows.join(shares, on=keys, how="left", maintain_order="left")


def _curve_rows(grid: Grid, arms: Sequence[str]) -> pl.DataFrame:
    rows = (
        median_validation_loss(grid)
        .filter(pl.col("arm").is_in(arms))
        .sort("length", "arm", "step")
        .rename({"mean": "median_validation_loss"})
    )
    return thin_evenly(rows, "step", ["arm", "length"], MAX_CURVE_STEPS)


def _finite(value: float | None) -> float | None:
    return float(f"{value:.{TABLE_DIGITS}g}") if value is not None and math.isfinite(value) else None


def rounded(frame: pl.DataFrame, digits: int = TABLE_DIGITS) -> pl.DataFrame:
    """Return a table with so many significant digits of what is no whole number."""
    return frame.with_columns(pl.col(pl.Float64).round_sig_figs(digits))


def provenance(scale: str, grids: Sequence[Grid]) -> list[tuple[str, str]]:
    """Return what a reader needs to find or repeat these trials, as (term, text)."""
    if not grids:
        return [("scale", scale)]
    rows = _replicas(grids)
    by_trial = rows.group_by("trial_id").agg(pl.col("wall_time_s").max())
    return [
        ("scale", scale),
        ("seeds", ", ".join(str(seed) for seed in rows["seed"].unique().sort())),
        ("trials", f"{by_trial.height}, each with all its seeds; {rows.height} replicas"),
        ("training time", f"{number(float(by_trial['wall_time_s'].sum()))} s, summed over trials"),
        *((name, ", ".join(map(_short, _distinct(rows[column]))) or "unknown") for name, column in _VERSIONS.items()),
    ]


def _short(text: str) -> str:
    """Return a revision of forty digits with its first twelve, anything else as it is."""
    return re.sub(r"^([0-9a-f]{12})[0-9a-f]{28}", r"\1", text)


def repetition(study: str, scale: str, grids: Sequence[Grid]) -> list[tuple[str, list[str]]]:
    """Return what makes the numbers of a study again, as (term, texts): commands, code, data and versions."""
    rows = _replicas(grids)
    revisions = [revision.removesuffix("-dirty") for revision in _distinct(rows["git_revision"])]
    checkout = [f"git checkout {revisions[0]}"] if revisions else []
    data = rows.select("dataset.name", "dataset_digest").unique().sort("dataset.name", "dataset_digest")
    commands = [*checkout, f"dvc repro sweep@{study}"]
    return [
        ("commands", commands),
        ("scale", [scale]),
        ("seeds", [", ".join(str(seed) for seed in rows["seed"].unique().sort())]),
        *((name, _distinct(rows[column])) for name, column in _VERSIONS.items()),
        ("code digests", _distinct(rows["code_digest"])),
        ("data digests", [f"{name} {digest}" for name, digest in data.iter_rows()]),
    ]


def _replicas(grids: Sequence[Grid]) -> pl.DataFrame:
    columns = ["trial_id", "seed", "wall_time_s", *_VERSIONS.values(), "code_digest", "dataset.name", "dataset_digest"]
    return pl.concat([grid.all_runs.select(columns) for grid in grids]).unique(maintain_order=True)


_VERSIONS = {
    "device": "device",
    "kernel": "kernel",
    "torch": "torch_version",
    "Python": "python_version",
    "git revision": "git_revision",
}


def _distinct(values: pl.Series) -> list[str]:
    return values.drop_nulls().unique().sort().to_list()
