"""What W&B shows, as plain data: a run per setting and one per study, made from result tables and quantities alone.

A view has two digests. `rows_digest` is over the history, the one thing that W&B can only append to. `digest` is
over everything, so that a view which says nothing new is not sent again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.config import Paths, digest_of_file
from pipeline.quantities import Grid, grids_of, mean_interval
from pipeline.quantities.selection import thin_evenly
from pipeline.quantities.settings import OF_METRIC, SUMMARISED, settings_table
from pipeline.results import CURVE_FACTS, SCHEMAS, read_table
from pipeline.results.schema import IDENTITY_COLUMNS, TRIALS

MAX_POINTS = 300
"""A chart has at most as many steps of each metric."""

DATASET_FILES = ("manifest.*", "preview*")
"""What stands for a dataset in W&B: never the arrays, which its digest names and `prepare` makes again."""

_IDENTITY = ("dataset_digest", *IDENTITY_COLUMNS)


@dataclass(frozen=True)
class Picture:
    """A PNG that is drawn only if it is sent: `source` is a digest of what it is drawn from."""

    source: str
    draw: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class Files:
    """An artifact: files with a name, a type, aliases and what is known of them."""

    name: str
    type: str
    paths: tuple[Path, ...]
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One W&B run, complete.

    Attributes:
        rows: The history, each with its `step`; the position in the sequence is W&B's own `_step`.
    """

    run_id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    pictures: Mapping[str, Picture]
    artifacts: Sequence[Files]

    @cached_property
    def rows_digest(self) -> str:
        """SHA-256 of the history."""
        return digest_of(self.rows)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the run shows."""
        return digest_of(
            {
                "run": [self.run_id, self.name, self.group, self.job_type],
                "config": self.config,
                "rows": self.rows_digest,
                "summary": self.summary,
                "tables": {name: [table.columns, table.rows()] for name, table in self.tables.items()},
                "pictures": {name: picture.source for name, picture in self.pictures.items()},
                "artifacts": [
                    vars(files) | {"paths": [digest_of_file(path) for path in files.paths]} for files in self.artifacts
                ],
            }
        )


def digest_of(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON; NaN and infinities are written as such."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_frame(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a frame's values, whatever the order of its rows."""
    return hashlib.sha256(frame.sort(frame.columns).write_csv().encode()).hexdigest()


def views_of(paths: Paths, study: str) -> Iterator[RunView]:
    """Yield the W&B run of every setting of a study that has a finished trial, in the order of the plan, then its own.

    A trial that ended in an error has nothing to show beyond its row in the table of settings.

    Raises:
        TableError: If a table is missing, damaged or has other columns.
    """
    tables = {table: read_table(table, paths.results(study)) for table in SCHEMAS}
    parts = {table: tables[table].partition_by("trial_id", as_dict=True) for table in ("trials", "curves")}
    grids = {grid.name: grid for grid in grids_of(study, tables, ())}
    settings = {row["position"]: row for grid in grids.values() for row in settings_table(grid).iter_rows(named=True)}
    for row in tables["settings"].sort("position").iter_rows(named=True):
        trials = parts["trials"][(row["trial_id"],)].sort("seed")
        if "error" not in trials["status"]:
            curves = parts["curves"].get((row["trial_id"],), tables["curves"].clear())
            yield _view_of_setting(settings[row["position"]], trials, curves, grids[row["grid"]])
    yield _view_of_study(paths, study, tables)


def _view_of_setting(row: Mapping[str, Any], trials: pl.DataFrame, curves: pl.DataFrame, grid: Grid) -> RunView:
    """Return the run of one setting; its id has study, grid and trial: settings that share a trial have a run each."""
    facts = {key: row[key] for key in ("study", "grid", "label")}
    alone = grid.of_trial(row["trial_id"])
    pictures = {}
    if "recurrent" in alone["traces"]["part"]:  # what the heat map is of
        pictures["gradient_heatmap"] = Picture(digest_of_frame(alone["traces"]), lambda: _draw_heatmap(alone))
    return RunView(
        run_id=f"{row['study']}-{row['grid']}-{row['trial_id']}",
        name=row["label"],
        group=row["study"],
        job_type="trial",
        config={**json.loads(trials["spec"][0]), **facts, **{column: trials[column][0] for column in _IDENTITY}},
        rows=history(curves),
        summary=_summary(row),
        tables={"seeds": trials.select(column for column in TRIALS if column not in _IDENTITY)},
        pictures=pictures,
        artifacts=(),
    )


def _draw_heatmap(grid: Grid) -> bytes:
    from pipeline.figures.gradients import gradient_heatmap
    from pipeline.figures.style import to_png

    return to_png(gradient_heatmap.draw(grid))


def _view_of_study(paths: Paths, study: str, tables: Mapping[str, pl.DataFrame]) -> RunView:
    """Return the run of a whole study: its settings, the report's figures, its datasets and its result tables."""
    settings, trials = tables["settings"], tables["trials"]
    statuses = trials.group_by("status").len().sort("status")
    counts = {"num_settings": settings.height, "num_trials": trials["trial_id"].n_unique()}
    folder = paths.reports / "site" / "figures" / study
    figures = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.png"))}
    results = Files(
        name=f"results-{study}",
        type="result",
        paths=tuple(sorted(paths.results(study).glob("*.parquet"))),
        aliases=(),
        metadata={"tables": sorted(tables)},
    )
    return RunView(
        run_id=f"{study}-study",
        name=study,
        group=study,
        job_type="study",
        config={"study": study, "grids": settings["grid"].unique(maintain_order=True).to_list()},
        rows=(),
        summary=counts | {f"num_seeds/{status}": count for status, count in statuses.iter_rows()},
        tables={"settings": settings},
        pictures={name: Picture(digest_of_file(path), path.read_bytes) for name, path in figures.items()},
        artifacts=[*_datasets(paths, trials), results],
    )


def _datasets(paths: Paths, trials: pl.DataFrame) -> Iterator[Files]:
    """Yield an artifact per dataset: its manifest and preview, with the digests of its variants as aliases."""
    used = trials.select("dataset.name", "dataset.length", "dataset_digest").unique().sort(pl.all())
    for (name,), variants in used.group_by("dataset.name", maintain_order=True):
        folder = paths.dataset(str(name))
        files = {path for pattern in DATASET_FILES for path in folder.glob(pattern) if path.is_file()}
        known = variants.select(length="dataset.length", digest="dataset_digest").to_dicts()
        yield Files(
            name=f"dataset-{name}",
            type="dataset",
            paths=tuple(sorted(files)),
            aliases=tuple(variant["digest"][:16] for variant in known),
            metadata={"variants": known},
        )


def history(curves: pl.DataFrame) -> list[dict[str, float]]:
    """Return a row per step: `step`, and `<chart>/mean`, `/low`, `/high` of every metric seen there.

    A chart is the metric and what else the row says of it, «loss/validation», «sigma_max/recurrent/0/forward/h». Mean
    and 95 % interval over seeds are of the kind of the metric's quantity (`OF_METRIC`): geometric of losses and norms,
    those of a share of errors. One seed has no interval, nor has a metric of which no quantity says the kind. Where a
    seed is missing (it diverged, or reached its criterion), or has no finite value or logarithm, `<chart>/num_seeds`
    says how many are left.

    Args:
        curves: The `curves` table of one trial.
    """
    facts = [pl.col(fact).cast(pl.String) for fact in CURVE_FACTS]
    chart = pl.concat_str("metric", *facts, separator="/", ignore_nulls=True)
    columns = curves.select("seed", "step", "metric", "value", chart=chart)
    by_metric = thin_evenly(columns, "step", ["chart"], MAX_POINTS).group_by("metric", maintain_order=True)
    points = [point for (metric,), rows in by_metric for point in _over_seeds(str(metric), rows).iter_rows(named=True)]
    num_seeds = curves["seed"].n_unique()
    rows: dict[int, dict[str, float]] = {}
    for point in sorted(points, key=lambda point: (point["step"], point["chart"])):
        row = rows.setdefault(point["step"], {"step": point["step"]})
        row |= _parts(point["chart"], point, with_seeds=point["num_seeds"] < num_seeds)
    return list(rows.values())


def _over_seeds(metric: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return mean and interval over seeds by `step` and `chart`."""
    keys, quantity, value = ["step", "chart"], OF_METRIC.get(metric), pl.col("value")
    if quantity is None:
        return mean_interval(rows, "value", keys).with_columns(low=None, high=None)
    on_scale = rows.with_columns(value.log10() if quantity.scale == "log10" else value)
    return quantity.natural(quantity.summary(on_scale, keys))


def _summary(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the worst status, the numbers of seeds, and every final number with its interval, of a row of settings."""
    counts = ("num_seeds", "num_ok", "num_converged", "num_beat_untrained", "num_exploded")
    plain = ("status", *counts, "criterion_step", "clipped_share", "gradient_check_error")
    summary = {name: setting[name] for name in plain if setting[name] is not None}
    for name in SUMMARISED:
        point = {"mean": setting[name], "low": setting[f"{name}_low"], "high": setting[f"{name}_high"]}
        summary |= _parts(name, point, with_seeds=False)
    return summary


def _parts(name: str, point: Mapping[str, float | None], *, with_seeds: bool) -> dict[str, float]:
    """Return `<name>/mean`, `/low`, `/high` and, if asked, `/num_seeds`; what is null is left out."""
    parts = ("mean", "low", "high", "num_seeds") if with_seeds else ("mean", "low", "high")
    return {f"{name}/{part}": value for part in parts if (value := point[part]) is not None}
