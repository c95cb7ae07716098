"""The tables of one grid of a study, joined: every row knows its arm and its length.

An *arm* is what a figure compares: the variant, or the cell where the grid has no variants, and every other axis of the
grid that is neither the sequence length nor selected over (as the learning rate is). What a variant changes is no axis.
Of the settings of an arm and length, the study's selection keeps one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.results import TRIAL_TABLES

_NEVER_SAID = ("dataset.length", "dataset.name")


@dataclass(frozen=True)
class GridTables:
    """What one grid of a study left.

    Attributes:
        study: Name of the study.
        grid: Name of the grid.
        settings: Its rows of the `settings` table, with `arm` and `length`.
        runs: One row per *selected* setting and seed: `arm`, `length`, and every column of `trials`.
        curves: Of the selected settings, with `arm`, `length` and `status`; so the other long tables.
        traces: Of the selected settings.
        eigenvalues: Of the selected settings.
        gates: Of the selected settings.
        jacobians: Of the selected settings.
        lyapunov: Of the selected settings.
        truncation: Of the selected settings.
        attention: Of the selected settings.
        breakdown: Of the selected settings.
        tokens: Of the selected settings.
        images: Of the selected settings.
        all_runs: As `runs`, of every setting.
    """

    study: str
    grid: str
    settings: pl.DataFrame
    runs: pl.DataFrame
    curves: pl.DataFrame
    traces: pl.DataFrame
    eigenvalues: pl.DataFrame
    gates: pl.DataFrame
    jacobians: pl.DataFrame
    lyapunov: pl.DataFrame
    truncation: pl.DataFrame
    attention: pl.DataFrame
    breakdown: pl.DataFrame
    tokens: pl.DataFrame
    images: pl.DataFrame
    all_runs: pl.DataFrame

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the study's file."""
        return list(self.runs["arm"].unique(maintain_order=True))

    @property
    def lengths(self) -> list[int]:
        """The sequence lengths, shortest first."""
        return sorted(self.runs["length"].unique().to_list())

    @property
    def dataset(self) -> str:
        """The dataset that the grid trains on."""
        return str(self.runs["dataset.name"][0])

    def at_longest(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `frame` at the longest sequence length."""
        return frame.filter(pl.col("length") == self.lengths[-1])


def grids_of(study: str, tables: Mapping[str, pl.DataFrame], over: Sequence[str]) -> list[GridTables]:
    """Return the grids of a study in the order of its file.

    Args:
        study: Its name.
        tables: Its result tables by name.
        over: The axes that it selects over.
    """
    grids = tables["settings"].sort("position").partition_by("grid", maintain_order=True)
    return [_grid(study, settings, tables, over) for settings in grids]


def _grid(study: str, settings: pl.DataFrame, tables: Mapping[str, pl.DataFrame], over: Sequence[str]) -> GridTables:
    trials = tables["trials"].join(_natural_lengths(tables["traces"]), on="trial_id", how="left", maintain_order="left")
    of_dataset = pl.col("natural_length").max().over("dataset.name")  # what failed left no trace to count
    length = pl.coalesce("dataset.length", "natural_length", of_dataset, pl.lit(0, pl.Int64))
    trials = trials.with_columns(length=length)
    lengths = trials.group_by("trial_id").agg(pl.col("length").max())
    cells = trials.group_by("trial_id").agg(cell=pl.col("model.cell").first())
    named = settings.join(cells, on="trial_id", how="left", maintain_order="left")
    named = named.join(lengths, on="trial_id", how="left", maintain_order="left")
    named = named.with_columns(arm=_arms(named, over)).drop("cell")
    keys = named.select("trial_id", "arm", "length", "position", "label", "selected")
    all_runs = keys.join(trials.drop("length", "natural_length"), on="trial_id", maintain_order="left_right")
    kept = keys.filter("selected").select("trial_id", "arm", "length")
    statuses = trials.select("trial_id", "seed", "status")
    long = {
        table: tables[table].join(kept, on="trial_id").join(statuses, on=["trial_id", "seed"], how="left")
        for table in TRIAL_TABLES
        if table != "trials"
    }
    return GridTables(study, str(settings["grid"][0]), named, all_runs.filter("selected"), **long, all_runs=all_runs)


def _natural_lengths(traces: pl.DataFrame) -> pl.DataFrame:
    """Return the number of timesteps of each trial's input: the length of a dataset that has one length only.

    Of what reads no sequence it is that of the output.
    """
    steps, written = pl.col("timestep"), pl.col("part") == "decoder"
    length = pl.coalesce(steps.filter(~written).max(), steps.max())
    return traces.group_by("trial_id").agg(natural_length=length)


def _arms(settings: pl.DataFrame, over: Sequence[str]) -> pl.Series:
    """Return the arm of each setting of one grid: «lstm, threshold=1.0», «clip + Ω, lstm».

    Of an axis of whole objects an arm says the name, and fields only where objects of that name differ in them. If
    that tells too little, every arm says every field that varies, with its dotted key.
    """
    by_variant = settings["variant"].is_not_null().any() and "variant" not in over
    lead, silent = ("variant", _NEVER_SAID) if by_variant else ("cell", (*_NEVER_SAID, "model.cell"))
    fields = [column for column in settings.columns if "." in column and not _is_within(column, (*silent, *over))]
    varied = [field for field in fields if settings[field].n_unique() > 1]
    short = settings.select(_joined(lead, _short_parts(fields, varied))).to_series()
    if short.n_unique() == settings.select(lead, *varied).n_unique():
        return short
    return settings.select(_joined(lead, [_equation(field, field) for field in varied])).to_series()


def _short_parts(fields: Sequence[str], varied: Sequence[str]) -> list[pl.Expr]:
    names = sorted((field for field in fields if field.endswith(".name")), key=len)  # of an object before its parts
    owners = {field: next((n for n in names if _is_within(field, [n.removesuffix(".name")])), None) for field in fields}
    parts = []
    for field, owner in owners.items():
        if field == owner:
            if any(owners[other] == owner for other in varied):
                parts.append(pl.col(field))
        elif field in varied:
            said = pl.col(field) if field == "model.cell" else _equation(field.rpartition(".")[2], field)
            parts.append(said if owner is None else pl.when(pl.col(field).n_unique().over(owner) > 1).then(said))
    return parts


def _is_within(field: str, parts: Sequence[str]) -> bool:
    return any(f"{field}.".startswith(f"{part}.") for part in parts)


def _equation(key: str, field: str) -> pl.Expr:
    return pl.format("{}={}", pl.lit(key), pl.col(field).cast(pl.String))


def _joined(lead: str, parts: Sequence[pl.Expr]) -> pl.Expr:
    return pl.concat_str(pl.col(lead), *parts, separator=", ", ignore_nulls=True).alias("arm")
