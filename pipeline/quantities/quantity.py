"""A quantity: a number that every seed of every arm has, defined once; what figures, claims and metrics are made of.

    @quantity(words="factor of the gradient norm per timestep of lag", scale="log10", facets=("stage", "state"))
    def decay_factor(grid: Grid) -> pl.DataFrame: ...

The function returns rows `arm`, `seed`, `value` and the facets, of one sequence length (`across_lengths`: of all). A
seed that has no number keeps its row with null (`finished`), so that nothing that was left out is forgotten. On the
scale `log10`, of what is positive and skewed (losses, times, norms, ratios), the rows hold logarithms: means are
geometric, differences are ratios. On the scale `event` they hold whether something happened, on the scale `share` what
share of things a seed has: intervals are those of shares. A row that holds by construction says so in a column `exact`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import ConfigError, unknown_name
from pipeline.quantities.grid import Grid
from pipeline.quantities.intervals import CONFIDENCE, mean_interval, paired_difference, share_interval
from pipeline.quantities.selection import STAGES
from pipeline.quantities.words import join, quoted

QUANTITIES: dict[str, Quantity] = {}
"""Every quantity by name; a module of this package that declares one is found by its file."""


class Effect(NamedTuple):
    """A number and its interval over seeds; None where there is none. `num_left_out` seeds had no finite value.

    Where `low` and `high` are the value itself, it is exact by construction.
    """

    value: float | None
    low: float | None
    high: float | None
    num_seeds: int
    num_left_out: int

    @property
    def is_exact(self) -> bool:
        """Whether the value holds by construction."""
        return self.low is not None and self.low == self.high

    def is_tested(self, min_seeds: int) -> bool:
        """Whether there is an interval over enough seeds to test the value with."""
        return self.low is not None and not self.is_exact and self.num_seeds >= min_seeds


NOTHING = Effect(None, None, None, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number per arm and seed.

    Attributes:
        name: As configs/claims.yaml names it.
        rows: From a grid to rows `arm`, `seed`, `value` and the facets.
        words: What it is, as a sentence has it: «test loss»; a facet in braces is its value: «mean of gate {gate}».
        scale: How means and differences are taken, and of which kind their intervals are.
        bounds: What a linear one cannot leave; intervals are cut there.
        better: Which direction is better, if one is.
        facets: Columns that tell several numbers of one seed apart.
        across_lengths: Whether the rows are of all sequence lengths, with a column `length`.
        pools_arms: Whether a number is of all arms together, so that a claim names none.
        of_all_settings: Whether it is of every setting of an arm, those that the study did not select among them.
        training: What more of it does to the number: `none`, it has no part in it; `improves`, it can only get better,
            being of the best weights so far, or whether something was reached; `changes`, it may go either way.
        effect: In the place of an interval over seeds: the effect of an arm at a level of confidence, where all seeds
            share one measurement.
        ratio: The same for the ratio of two arms, where all seeds of an arm share a clock: nothing else of it has an
            interval, for one over seeds would pretend that each had its own.
    """

    name: str
    rows: Callable[[Grid], pl.DataFrame]
    words: str
    scale: Literal["linear", "log10", "share", "event"] = "linear"
    bounds: tuple[float, float] | None = None
    better: Literal["lower", "higher"] | None = None
    facets: tuple[str, ...] = ()
    across_lengths: bool = False
    pools_arms: bool = False
    of_all_settings: bool = False
    training: Literal["none", "improves", "changes"] = "changes"
    effect: Callable[[Grid, str, float], Effect] | None = None
    ratio: Callable[[Grid, str, str, float], Effect] | None = None

    def of(self, grid: Grid) -> pl.DataFrame:
        """Return the rows of a grid, computed once."""
        return grid.memo(("quantity", self.name), lambda: self.rows(grid))

    def summary(
        self, rows: pl.DataFrame, by: Sequence[str] = ("arm",), *, confidence: float = CONFIDENCE
    ) -> pl.DataFrame:
        """Return `mean`, `low`, `high` over seeds, `num_seeds`, `num_nonfinite` and `num_missing`, per group of `by`.

        Args:
            rows: Of this quantity, one per group and seed.
            by: The columns that tell groups apart.
            confidence: In how many of such intervals the true mean lies.
        """
        if self.scale in {"event", "share"}:
            return share_interval(rows, "value", by, confidence=confidence)
        found = mean_interval(rows, "value", by, bounds=self.bounds, confidence=confidence)
        return found if self.ratio is None else _without_interval(found)

    def difference(
        self,
        rows: pl.DataFrame,
        first: str | float,
        second: str | float,
        side: str = "arm",
        *,
        confidence: float = CONFIDENCE,
    ) -> pl.DataFrame:
        """Return the mean over seeds of one side minus another, paired by seed, in one row: columns as of `summary`.

        Its interval is of the kind that the scale has, wherever a difference is printed; of logarithms it is the
        logarithm of a ratio.

        Args:
            rows: Of this quantity, one per side and seed.
            first: The value of the column `side` that tells one side.
            second: That of the other side.
            side: The column.
            confidence: In how many of such intervals the true difference lies.
        """
        of_shares = self.scale in {"event", "share"}
        bounds = (0.0, 1.0) if of_shares else self.bounds
        asked: dict[str, Any] = {"of_shares": of_shares, "bounds": bounds, "confidence": confidence}
        found = paired_difference(rows, "value", side, first, second, **asked)
        return found if self.ratio is None else _without_interval(found)

    def means(self, grid: Grid, by: Sequence[str] = ("arm",), **facets: str | int) -> pl.DataFrame:
        """Return the summary of a grid at one value of some facets, arms in the order of the study's file."""
        rows = self.of(grid).filter(**facets) if facets else self.of(grid)
        return self.summary(rows, by).sort(grid.rank(), maintain_order=True)

    def natural(self, summary: pl.DataFrame) -> pl.DataFrame:
        """Return a summary whose logarithms are what they are of: `mean` is a geometric mean."""
        return _powers(summary) if self.scale == "log10" else summary

    def by_arm(self, grid: Grid, **facets: str | int) -> dict[str, float | None]:
        """Return the mean over seeds of each arm, at one value of the facets; no logarithms."""
        return dict(self.natural(self.means(grid, ("arm",), **facets)).select("arm", "mean").iter_rows())


def quantity(words: str, **declared: Any) -> Callable[[Callable[[Grid], pl.DataFrame]], Quantity]:
    """Return a decorator that makes a function a quantity under its own name, with the attributes of `Quantity`."""

    def declare(rows: Callable[[Grid], pl.DataFrame]) -> Quantity:
        found = Quantity(name=rows.__name__, rows=rows, words=words, **declared)
        QUANTITIES[found.name] = found
        return found

    return declare


@dataclass(frozen=True)
class Selection:
    """One number per seed: a quantity, of which arm, at which length, with each facet at one value.

    Attributes:
        quantity: Of `QUANTITIES`.
        arms: Of several the best is meant. Empty for a quantity that is of all arms together.
        length: Of the sequences; a number, or the longest or shortest of the grid.
        where: A value per facet.
    """

    quantity: Quantity
    arms: tuple[str, ...]
    length: int | Literal["longest", "shortest"]
    where: Mapping[str, str | int | float]

    @classmethod
    def of(cls, given: Mapping[str, object], where: str) -> Selection:
        """Return the selection that a mapping describes: `quantity`, `arm`, `length` and a key per facet.

        Raises:
            ConfigError: If the quantity is unknown, or the facets are not exactly its own; the message begins with
                `where`.
        """
        name = str(given.get("quantity"))
        if name not in QUANTITIES:
            raise ConfigError(f"{where}: {unknown_name('quantity', name, QUANTITIES)}")
        chosen = QUANTITIES[name]
        facets: dict[str, str | int | float] = {}
        for facet in given.keys() - {"quantity", "arm", "length"} - set(chosen.facets):
            raise ConfigError(f"{where}: {unknown_name(f'facet of {name}', facet, chosen.facets)}")
        for facet in chosen.facets:
            value = given.get(facet)
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise ConfigError(f"{where}: {name}: expected a value of {facet!r}; got {value!r}")
            facets[facet] = value
        if facets.get("stage", "end") not in STAGES:
            raise ConfigError(f"{where}: {unknown_name('stage', str(facets['stage']), STAGES)}")
        length = given.get("length", "longest")
        if (not isinstance(length, int) or isinstance(length, bool)) and length not in ("longest", "shortest"):
            raise ConfigError(f"{where}: length: expected longest, shortest or a number; got {length!r}")
        arm = given.get("arm", ())
        arms = tuple(str(one) for one in arm) if isinstance(arm, list | tuple) else (str(arm),)
        if chosen.pools_arms == bool(arms):
            expected = f"no arm: {name} is of all arms together" if arms else f"an arm for {name}"
            raise ConfigError(f"{where}: arm: expected {expected}; got {given.get('arm')!r}")
        return cls(chosen, arms, length, facets)

    def rows(self, grid: Grid) -> pl.DataFrame:
        """Return the rows of these arms, a row per arm and seed; none where one of the arms has no run.

        Raises:
            ConfigError: If a facet's values are numbers and the one that is asked for is none.
        """
        rows = self.quantity.of(grid if self.quantity.across_lengths else grid.at(self.length))
        if self.quantity.across_lengths:
            rows = rows.filter(pl.col("length").is_in(grid.at(self.length).lengths))
        for facet, value in self.where.items():
            rows = rows.filter(pl.col(facet) == self._typed(facet, value, rows.schema[facet]))
        if not set(self.arms) <= set(grid.arms):
            return rows.clear()
        return rows.filter(pl.col("arm").is_in(self.arms)) if self.arms else rows

    def _typed(self, facet: str, value: str | int | float, dtype: pl.DataType) -> str | int | float:
        """Return the value of a facet as its column has them: a file may say 1 for «1», and "6" for 6.

        Raises:
            ConfigError: If they are numbers and it is none.
        """
        if not dtype.is_numeric() or not isinstance(value, str):
            return str(value) if dtype == pl.String else value
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{self.quantity.name}: {facet}: expected a number; got {value!r}") from None

    @property
    def over_lengths(self) -> bool:
        """Whether it is one number of all sequence lengths together, such as a slope."""
        return self.quantity.effect is not None and self.quantity.across_lengths

    @property
    def of_training(self) -> bool:
        """Whether it depends on how far training came; a stage at initialisation does not."""
        return self.quantity.training != "none" and self.where.get("stage") != "initialisation"

    @property
    def words(self) -> str:
        """What is selected, as a sentence has it: «LSTM: mean of gate f, after training».

        The quantity's words take up the facets that they name in braces; the stage and the length follow.
        """
        facets = {key: STAGES.get(str(value), str(value).replace("_", " ")) for key, value in self.where.items()}
        lead = f"{self.arm_words}: " if self.arms else ""
        length = "" if self.length == "longest" else f", {self._length_words}"
        stage = f", {facets['stage']}" if "stage" in facets else ""
        return f"{lead}{self.quantity.words.format(**facets)}{stage}{length}"

    @property
    def arm_words(self) -> str:
        """«LSTM», «best of LSTM and GRU»; nothing where all arms are meant together."""
        names = list(map(quoted, self.arms))
        return f"{'best of ' if len(names) > 1 else ''}{join(names)}" if names else ""

    @property
    def _length_words(self) -> str:
        return f"at T = {self.length}" if isinstance(self.length, int) else f"at the {self.length} length"

    def changes_from(self, other: Selection) -> str:
        """Return what sets this selection apart from another one of the same quantity, in words."""
        arms = [] if self.arms == other.arms else [self.arm_words]
        facets = [str(value).replace("_", " ") for key, value in self.where.items() if other.where.get(key) != value]
        lengths = [] if self.length == other.length else [f"the {self._length_words.removeprefix('at the ')}"]
        return ", ".join([*arms, *facets, *lengths])


def value_of(selected: Selection, grid: Grid, confidence: float = CONFIDENCE) -> Effect:
    """Return the mean over seeds with its interval; of several arms the best."""
    quantity = selected.quantity
    if quantity.effect is not None:
        return quantity.effect(
            grid if selected.over_lengths else grid.at(selected.length), selected.arms[0], confidence
        )
    summary = quantity.summary(selected.rows(grid), confidence=confidence)
    best_first = summary.sort("mean", descending=quantity.better != "lower", nulls_last=True)
    return effect_of(quantity.natural(best_first))


def difference_of(first: Selection, second: Selection, grid: Grid, confidence: float = CONFIDENCE) -> Effect:
    """Return the mean over seeds of `first` minus `second`, paired by seed."""
    rows = _sides(first, second, grid)
    return effect_of(first.quantity.difference(rows, "first", "second", "side", confidence=confidence))


def ratio_of(first: Selection, second: Selection, grid: Grid, confidence: float = CONFIDENCE) -> Effect:
    """Return the geometric mean over seeds of `first` over `second`, paired by seed.

    A value of 0 or below has no logarithm, so its seed is left out; what the others say is then not of all seeds, and
    has no interval.
    """
    if first.quantity.ratio is not None:
        return first.quantity.ratio(grid.at(first.length), first.arms[0], second.arms[0], confidence)
    rows, value = _sides(first, second, grid), pl.col("value").cast(pl.Float64)
    is_log = first.quantity.scale == "log10"
    logs = rows.with_columns(value if is_log else value.log10())
    found = _powers(paired_difference(logs, "value", "side", "first", "second", confidence=confidence))
    paired = pl.col("value").count().over("seed") == 2  # noqa: PLR2004 - both sides
    is_partial = not is_log and not rows.filter(paired, value <= 0).is_empty()
    return effect_of(_without_interval(found) if is_partial else found)


def _sides(first: Selection, second: Selection, grid: Grid) -> pl.DataFrame:
    """Return the rows of both, with their `side`; none where they are one, whose difference is 0 by construction."""
    sides = []
    for selected, name in ((first, "first"), (second, "second")):
        rows = selected.rows(grid)
        marks = ["exact"] if "exact" in rows.columns else []
        sides.append(rows.select("seed", "value", *marks, side=pl.lit(name)))
    both, is_alike = pl.concat(sides), dataclasses.replace(first, length=second.length) == second
    return both.clear() if is_alike and grid.at(first.length) is grid.at(second.length) else both


def from_log10(logs: Any) -> Any:
    """Return 10 to the power of a number, an array or an expression.

    Infinity beyond what a float holds, as a wide interval may go.
    """
    try:
        with np.errstate(over="ignore"):
            return 10.0**logs
    except OverflowError:  # of Python's own floats
        return math.inf


def _without_interval(summary: pl.DataFrame) -> pl.DataFrame:
    return summary.with_columns(pl.lit(None, pl.Float64).alias(side) for side in ("low", "high"))


def _powers(summary: pl.DataFrame) -> pl.DataFrame:
    """Return a summary of logarithms as what they are of: `mean` is a geometric mean."""
    return summary.with_columns(from_log10(pl.col("mean", "low", "high")).name.keep())


def effect_of(summary: pl.DataFrame) -> Effect:
    """Return the first row of a summary; of one without rows nothing."""
    if summary.is_empty():
        return NOTHING
    row = summary.row(0, named=True)
    return Effect(row["mean"], row["low"], row["high"], row["num_seeds"], row["num_nonfinite"] + row["num_missing"])
