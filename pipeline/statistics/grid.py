"""The tables of one grid of a study, joined: every row knows its arm and its length.

An *arm* is what a figure compares: the cell, and every other axis of the grid that is neither the sequence length nor
selected over (as the learning rate is). Of the settings of an arm and length, the study's selection keeps one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

_ALWAYS_APART = ("model.cell", "dataset.length", "dataset.name")


@dataclass(frozen=True)
class GridTables:
    """What one grid of a study left.

    Attributes:
        study: Name of the study.
        grid: Name of the grid.
        settings: Its rows of the `settings` table, with `arm` and `length`.
        runs: One row per *selected* setting and seed: `arm`, `length`, and every column of `trials`.
        curves: Of the selected settings, with `arm` and `length`; so the other two.
        traces: Of the selected settings.
        eigenvalues: Of the selected settings.
        all_runs: As `runs`, of every setting.
    """

    study: str
    grid: str
    settings: pl.DataFrame
    runs: pl.DataFrame
    curves: pl.DataFrame
    traces: pl.DataFrame
    eigenvalues: pl.DataFrame
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
        tables: Its five result tables by name.
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
    axes = [column for column in settings.columns if "." in column and settings[column].n_unique() > 1]
    apart = [axis for axis in axes if not any(f"{axis}.".startswith(f"{known}.") for known in (*_ALWAYS_APART, *over))]
    cells = trials.group_by("trial_id").agg(cell=pl.col("model.cell").first())
    named = settings.join(cells, on="trial_id", how="left", maintain_order="left")
    named = named.join(lengths, on="trial_id", how="left", maintain_order="left")
    named = named.with_columns(arm=_arm(apart)).drop("cell")
    keys = named.select("trial_id", "arm", "length", "position", "label", "selected")
    all_runs = keys.join(trials.drop("length", "natural_length"), on="trial_id", maintain_order="left_right")
    kept = keys.filter("selected").select("trial_id", "arm", "length")
    statuses = trials.select("trial_id", "seed", "status")
    long = {
        table: tables[table].join(kept, on="trial_id").join(statuses, on=["trial_id", "seed"], how="left")
        for table in ("curves", "traces", "eigenvalues")
    }
    return GridTables(study, str(settings["grid"][0]), named, all_runs.filter("selected"), **long, all_runs=all_runs)


def _natural_lengths(traces: pl.DataFrame) -> pl.DataFrame:
    """Return the number of timesteps of each trial: the length of a dataset that has one length only."""
    return traces.group_by("trial_id").agg(natural_length=pl.col("timestep").max())


def _arm(axes: Sequence[str]) -> pl.Expr:
    parts = [pl.format("{}={}", pl.lit(axis.rpartition(".")[2]), pl.col(axis).cast(pl.String)) for axis in axes]
    return pl.concat_str(pl.col("cell"), *parts, separator=", ", ignore_nulls=True)
