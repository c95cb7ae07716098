"""The tables of one grid of a study, joined: every row knows its arm, its length and how its replica ended.

An *arm* is what a figure compares: the variant, or the cell where the grid has no variants, and every other axis of the
grid that is neither the sequence length nor selected over (as the learning rate is). What a variant changes is no axis.
Of the settings of an arm and length, the study's selection keeps one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import polars as pl

from pipeline.results import FINISHED, TRIAL_TABLES

Result = TypeVar("Result")

_NEVER_NAMED = ("dataset.length", "dataset.name")
"""Fields that no arm's name mentions."""


KEPT_BYTES = 128 * 2**20
"""Tables are kept in memory up to so many bytes; what is larger is made anew each time that it is asked for."""


class Tables(Mapping[str, pl.DataFrame]):
    """Tables by name that are made when they are asked for: those of ten thousand settings do not all fit in memory."""

    def __init__(self, names: Iterable[str], make: Callable[[str], pl.DataFrame], kept_bytes: int = KEPT_BYTES) -> None:
        self._names, self._make, self._left = tuple(names), make, kept_bytes
        self._kept: dict[str, pl.DataFrame] = {}

    def __getitem__(self, table: str) -> pl.DataFrame:
        if table in self._kept:
            return self._kept[table]
        if table not in self._names:
            raise KeyError(table)
        made = self._make(table)
        if (size := int(made.estimated_size())) <= self._left:
            self._kept[table], self._left = made, self._left - size
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """What one grid of a study left.

    `grid["traces"]` is a long table of the selected settings, each row with `arm`, `length` and `status`.

    Attributes:
        study: Name of the study.
        name: Name of the grid.
        arms: Every arm, in the order of the study's file.
        settings: Its rows of the `settings` table, with `arm` and `length`.
        runs: A row per *selected* setting and seed: `arm`, `length`, and every column of `trials`.
        all_runs: As `runs`, of every setting.
        long: The other tables of trials by name.
    """

    study: str
    name: str
    arms: tuple[str, ...]
    settings: pl.DataFrame
    runs: pl.DataFrame
    all_runs: pl.DataFrame
    long: Mapping[str, pl.DataFrame]
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, table: str) -> pl.DataFrame:
        return self.long[table]

    @property
    def lengths(self) -> list[int]:
        """The sequence lengths T, shortest first."""
        return sorted(self.runs["length"].unique().to_list())

    @property
    def dataset(self) -> str:
        """The dataset that the grid trains on."""
        return str(self.runs["dataset.name"][0])

    def at(self, length: int | Literal["longest", "shortest"]) -> Grid:
        """Return the rows of one sequence length; arms without any are still listed."""
        chosen = {"longest": self.lengths[-1], "shortest": self.lengths[0]}.get(str(length), length)
        if self.lengths == [chosen]:
            return self
        return self.memo(("at", chosen), lambda: self._filtered(pl.col("length") == chosen))

    def by_setting(self) -> Grid:
        """Return every setting, selected or not, as an arm of its own, named by its position; no long tables."""
        runs = self.all_runs.sort("position", "seed").with_columns(arm=pl.col("position").cast(pl.String))
        arms = tuple(runs["arm"].unique(maintain_order=True))
        return dataclasses.replace(self, arms=arms, runs=runs, long={}, _memo={})

    def of_trial(self, trial_id: str) -> Grid:
        """Return the rows of one trial, selected or not, under the name of its arm."""
        return self._filtered(pl.col("trial_id") == trial_id)

    def memo(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return what `compute` returned the first time that this grid was asked for `key`."""
        if key not in self._memo:
            self._memo[key] = compute()
        found: Result = self._memo[key]
        return found

    def forget(self) -> None:
        """Drop what the grid was asked for so far: it is computed anew."""
        self._memo.clear()

    def rank(self) -> pl.Expr:
        """Return an expression that sorts arms as the study's file does."""
        places = list(range(len(self.arms)))
        return pl.col("arm").replace_strict(list(self.arms), places, default=len(places), return_dtype=pl.Int64)

    def present(self, frame: pl.DataFrame) -> list[str]:
        """Return the arms that have rows in `frame`, in order."""
        known = set(frame["arm"].unique())
        return [arm for arm in self.arms if arm in known]

    def _filtered(self, rows: pl.Expr) -> Grid:
        frames = {name: getattr(self, name).filter(rows) for name in ("settings", "runs", "all_runs")}
        long = Tables(self.long, lambda table: self.long[table].filter(rows))
        return dataclasses.replace(self, **frames, long=long, _memo={})


def once_per_grid(compute: Callable[[Grid], Result]) -> Callable[[Grid], Result]:
    """Return a function whose result every grid keeps from the first time on: several figures ask for it."""

    @functools.wraps(compute)
    def found(grid: Grid) -> Result:
        return grid.memo((compute.__module__, compute.__qualname__), lambda: compute(grid))

    return found


def grids_of(study: str, tables: Mapping[str, pl.DataFrame], over: Sequence[str]) -> list[Grid]:
    """Return the grids of a study in the order of its file.

    Args:
        study: Its name.
        tables: Its result tables by name.
        over: The axes that it selects over.
    """
    trials = _with_lengths(tables["trials"], tables["traces"])
    grids = tables["settings"].sort("position").partition_by("grid", maintain_order=True)
    return [_grid(study, settings, trials, tables, over) for settings in grids]


def finished(value: str | pl.Expr) -> pl.Expr:
    """Return a value, or null where a replica diverged, failed or was stopped by a search.

    Its seed is in no mean, and is counted as missing.
    """
    known = pl.col(value) if isinstance(value, str) else value
    return pl.when(pl.col("status").is_in(FINISHED)).then(known.cast(pl.Float64))


def of_every_replica(grid: Grid, rows: pl.DataFrame, *facets: str) -> pl.DataFrame:
    """Return rows with one of null for each replica of their arms that left none: its seed is counted as missing.

    Args:
        grid: Whose replicas they are.
        rows: Columns `arm`, `seed`, the facets, and others.
        facets: Every value of them that a seed of an arm has, each of its seeds gets.
    """
    keys = ["arm", *facets]
    replicas = grid.runs.select("arm", "seed").unique(maintain_order=True)
    every = rows.select(keys).unique(maintain_order=True).join(replicas, on="arm", maintain_order="left_right")
    found = every.join(rows, on=[*keys, "seed"], how="left", maintain_order="left")
    return found.select(rows.columns)


def _grid(
    study: str, settings: pl.DataFrame, trials: pl.DataFrame, tables: Mapping[str, pl.DataFrame], over: Sequence[str]
) -> Grid:
    known = trials.group_by("trial_id").agg(pl.col("length").max(), cell=pl.col("model.cell").first())
    named = settings.join(known, on="trial_id", how="left", maintain_order="left")
    named = named.with_columns(arm=_arms(named, over)).drop("cell")
    keys = named.select("trial_id", "arm", "length", "position", "label", "selected")
    all_runs = keys.join(trials.drop("length"), on="trial_id", maintain_order="left_right")
    kept = keys.filter("selected").select("trial_id", "arm", "length")
    statuses = trials.select("trial_id", "seed", "status")

    def of_kept(table: str) -> pl.DataFrame:
        return tables[table].join(kept, on="trial_id").join(statuses, on=["trial_id", "seed"], how="left")

    runs = all_runs.filter("selected")
    return Grid(
        study=study,
        name=str(settings["grid"][0]),
        arms=tuple(runs["arm"].unique(maintain_order=True)),
        settings=named,
        runs=runs,
        all_runs=all_runs,
        long=Tables((table for table in TRIAL_TABLES if table != "trials"), of_kept),
    )


def _with_lengths(trials: pl.DataFrame, traces: pl.DataFrame) -> pl.DataFrame:
    """Return `trials` with `length`: as its spec has it, else as many timesteps as its input is seen to have.

    Of a network that reads no sequence it is the length of the output.
    """
    steps, written = pl.col("timestep"), pl.col("part") == "decoder"
    natural = traces.group_by("trial_id").agg(natural=pl.coalesce(steps.filter(~written).max(), steps.max()))
    of_dataset = pl.col("natural").max().over("dataset.name")  # what failed left no trace to count
    length = pl.coalesce("dataset.length", "natural", of_dataset, pl.lit(0, pl.Int64))
    joined = trials.join(natural, on="trial_id", how="left", maintain_order="left")
    return joined.with_columns(length=length).drop("natural")


def _arms(settings: pl.DataFrame, over: Sequence[str]) -> pl.Series:
    """Return the arm of each setting of one grid: «lstm, threshold=1.0», «clip + Ω, lstm».

    Of an axis of whole objects an arm has the name, and fields only where objects of that name differ in them. Where
    that does not tell settings apart, every arm has every field that varies, with its dotted key.
    """
    by_variant = settings["variant"].is_not_null().any() and "variant" not in over
    lead, silent = ("variant", _NEVER_NAMED) if by_variant else ("cell", (*_NEVER_NAMED, "model.cell"))
    fields = [column for column in settings.columns if "." in column and not _is_within(column, (*silent, *over))]
    varied = [name for name in fields if settings[name].n_unique() > 1]
    short = settings.select(_joined(lead, _short_parts(fields, varied))).to_series()
    if short.n_unique() == settings.select(lead, *varied).n_unique():
        return short
    return settings.select(_joined(lead, [_equation(name, name) for name in varied])).to_series()


def _short_parts(fields: Sequence[str], varied: Sequence[str]) -> list[pl.Expr]:
    names = sorted((name for name in fields if name.endswith(".name")), key=len)  # of an object before its parts
    owners = {name: next((n for n in names if _is_within(name, [n.removesuffix(".name")])), None) for name in fields}
    parts = []
    for name, owner in owners.items():
        if name == owner:
            if any(owners[other] == owner for other in varied):
                parts.append(pl.col(name))
        elif name in varied:
            part = pl.col(name) if name == "model.cell" else _equation(name.rpartition(".")[2], name)
            parts.append(part if owner is None else pl.when(pl.col(name).n_unique().over(owner) > 1).then(part))
    return parts


def _is_within(name: str, parts: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)


def _equation(key: str, name: str) -> pl.Expr:
    return pl.format("{}={}", pl.lit(key), pl.col(name).cast(pl.String))


def _joined(lead: str, parts: Sequence[pl.Expr]) -> pl.Expr:
    return pl.concat_str(pl.col(lead), *parts, separator=", ", ignore_nulls=True).alias("arm")
