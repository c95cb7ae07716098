"""The frame of all figures: a figure declares its rows, its axes and its finding; grouping and panels are here.

A declaration is an instance of a kind: `Lines`, `Dots`, `Points`, or `Pictures` for what is drawn by hand.
The frame restricts the grid to its longest length, takes means over seeds with their intervals, limits how many arms
are drawn and says which, makes panels, looks, legend and letters, says who is missing, and handles the empty case.
What a title may claim is in `findings.py`: a difference only where its interval allows it.
"""

from __future__ import annotations

import math
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from pipeline.errors import ConfigError
from pipeline.figures.style import (
    DOTTED,
    INK,
    Look,
    canvas,
    decades,
    label_panels,
    legend_below,
    log_ticks,
    looks_of,
    step_ticks,
    styled,
    with_room,
)
from pipeline.quantities import Grid, Quantity
from pipeline.quantities.quantity import from_log10
from pipeline.quantities.selection import pick_evenly
from pipeline.quantities.words import INTERVAL, capitalised, count, interval, left_out, name_of, outcomes, seeds_of

Panel = dict[str, Any]
"""Which panel: the values of the facets that make rows and columns of panels."""

Facet = tuple[str, Mapping[Any, str] | str | None]
"""A column whose values make panels, and their titles in order; a text has a place for the value: «T = {}»."""

Key = Any
"""The value of a line's `series`; of several columns a tuple."""

STAGE_TITLES = {"initialisation": "At initialisation", "end": "At the end of training"}
NOT_FINISHED = "no replica finished"
NOT_SHOWN = "diverged and failed ones are not shown"
NOT_OK = {
    "stage": "diverged and failed ones have no end of training",
    "step": "they are part of the means, with their last measured weights",
}
"""What a figure does with replicas that diverged or failed, by a column of its rows."""

FAINT_MEANS = "Faint: fewer than half of the arm's seeds are left."
NO_INTERVAL = "Where no seed errs, or every one always, no interval is drawn."
MAX_LISTED = 30
"""Words list the numbers of at most so many arms; with more of them, looks are those of one figure alone."""
TOP_LAYER = "Of several layers and directions the last layer, forward in time, is shown."


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: what is along it, in which unit, and how it is scaled.

    Attributes:
        label: With the unit.
        column: Of the rows; for a vertical axis that of the value.
        scale: `decades`: values are log10 and ticks powers of ten. `log10`: values are log10, ticks 1, 2, 5, 10, ...
            `percent`: shares times 100. `steps`: training steps from 0, logarithmic. `log` and `linear` as usual.
            `lengths`: logarithmic, a tick at each length with room. `counts`: linear, ticks at whole numbers.
        limits: Lowest and highest value shown; None where the data say.
        max_decades: Of means that far below the largest nothing is shown.
        lines: Reference lines across a panel, each with its name; dashed, a thin line where the name is empty.
        band: Whether a band shows the interval.
        empty: What a panel without any line says.
    """

    label: str
    column: str = "value"
    scale: Literal["linear", "log", "log10", "decades", "percent", "steps", "lengths", "counts"] = "linear"
    limits: tuple[float | None, float | None] = (None, None)
    max_decades: float | None = None
    lines: Mapping[float, str] | Callable[[View, Panel], Mapping[float, str]] = field(default_factory=dict)
    band: bool = True
    empty: str = NOT_FINISHED

    def shown(self, values: Any) -> Any:
        """Return values as they are drawn: shares in percent, logarithms of a `log10` axis as what they are of."""
        if self.scale == "percent":
            return 100.0 * values
        return from_log10(values) if self.scale == "log10" else values

    def references(self, view: View, panel: Panel) -> Mapping[float, str]:
        """Return the reference lines of a panel, each with its name."""
        return self.lines(view, panel) if callable(self.lines) else self.lines


@dataclass(frozen=True, kw_only=True)
class Frame(ABC):
    """What every figure declares.

    Attributes:
        name: Of the figure, in studies' files and file names: letters, digits and _ only.
        rows: A quantity; several by name, which stands in their rows' column `quantity`; or a function from a grid to
            rows `arm`, `seed`, `value` and facets.
        quantity: What the rows of a function are of, which decides on the kind of their means and intervals; none is
            needed where `means` are given.
        title: The finding, computed by rule.
        about: The caption's first sentences; `{dataset}`, `{T}`, `{where}` (the dataset, with T where that is a
            setting), `{seeds}` and `{interval}` are filled in.
        means: What is drawn in the place of means over seeds: a row per value of `keys`.
        applies: Whether a grid has what the figure shows, besides rows.
        needs: What `applies` asks for, in words: what is said to who asks for the figure of a grid that has it not.
        lengths: Whether the figure is of the longest sequence length or of all.
        not_ok: What the figure does with replicas that diverged or failed; by default as the rows have a `stage` or a
            `step`.
        values: Numbers that the caption lists, as text.
        most: At most so many arms are drawn.
        rank: By what the drawn arms are chosen, and its name.
        by_rank: Whether arms stand in the order of their ranks, lowest first: those without one come last.
        crowded: What is drawn in its place where there are more than `most` arms.
        top_layer: Of which table the caption says that its last layer is shown.
    """

    name: str
    rows: Quantity | Mapping[str, Quantity] | Callable[[Grid], pl.DataFrame]
    title: Callable[[View], str]
    about: str | Callable[[View], str]
    quantity: Quantity | None = None
    means: Callable[[View], pl.DataFrame] | None = None
    applies: Callable[[Grid], bool] = lambda grid: True
    needs: str = ""
    lengths: Literal["longest", "all"] = "longest"
    not_ok: str | None = None
    values: Callable[[View], str] | None = None
    most: int = 12
    rank: tuple[Callable[[View], Mapping[str, float | None]], str] | None = None
    by_rank: bool = False
    crowded: Frame | None = None
    top_layer: str | None = None

    def __post_init__(self) -> None:
        if re.fullmatch(r"\w+", self.name, re.ASCII) is None:
            raise ConfigError(f"figure {self.name!r}: expected a name of letters, digits and _ only")
        if self.quantity is None and self.means is None and not isinstance(self.rows, Quantity | Mapping):
            raise ConfigError(f"figure {self.name!r}: expected the quantity of its rows, or means; got neither")

    def view(self, grid: Grid) -> View:
        """Return what the figure shows of a grid, computed once."""
        return grid.memo(("view", self.name), lambda: self._view(grid))

    def _view(self, grid: Grid) -> View:
        view = View(self, grid.at("longest") if self.lengths == "longest" else grid)
        return self.crowded.view(grid) if self.crowded is not None and len(view.arms) > self.most else view

    def is_of(self, grid: Grid) -> bool:
        """Return whether the grid has what the figure shows."""
        return self.applies(grid) and not self.view(grid).rows.is_empty()

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell the means apart which are drawn."""
        return ("arm",)

    def draw(self, grid: Grid) -> Figure:
        """Return the figure."""
        view = self.view(grid)
        return styled(view.frame.drawn)(view)

    @abstractmethod
    def drawn(self, view: View) -> Figure:
        """Return the figure of a view, under the project's style."""

    def table(self, view: View) -> pl.DataFrame:
        """Return the numbers that are drawn, a row per mark: what a reader downloads beside the picture."""
        return view.of_shown(view.means)

    def remarks(self, view: View) -> list[str]:  # noqa: ARG002 - for kinds that have some
        """Return what the caption says of how this was drawn."""
        return []


@dataclass(frozen=True, eq=False)
class View:
    """One figure of one grid: its rows, their means, and its words; each computed once."""

    frame: Frame
    grid: Grid

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The rows, one per seed and what tells them apart."""
        rows = self.frame.rows
        if isinstance(rows, Mapping):
            parts = [quantity.of(self.grid).with_columns(quantity=pl.lit(name)) for name, quantity in rows.items()]
            return pl.concat(parts, how="diagonal")
        return rows.of(self.grid) if isinstance(rows, Quantity) else rows(self.grid)

    @cached_property
    def means(self) -> pl.DataFrame:
        """Columns `frame.keys`, `mean`, `low`, `high`, `num_seeds`, `num_nonfinite`, `num_missing`."""
        return self.frame.means(self) if self.frame.means else self.summary(self.rows, self.frame.keys)

    def summary(self, rows: pl.DataFrame, by: Sequence[str] = ("arm",)) -> pl.DataFrame:
        """Return means over seeds with their intervals, as the quantity takes them."""
        quantity = self.frame.quantity or self.frame.rows
        if isinstance(quantity, Mapping):
            parts = rows.partition_by("quantity", maintain_order=True)
            return pl.concat(quantity[part["quantity"][0]].summary(part, by) for part in parts)
        assert isinstance(quantity, Quantity)  # noqa: S101 - a function's rows have their quantity, or means of their own
        return quantity.summary(rows, by)

    @cached_property
    def arms(self) -> list[str]:
        """The arms that have rows, in the order of the study's file; what rows call so besides comes last."""
        known, planned = self.rows["arm"].unique(maintain_order=True), set(self.grid.arms)
        return [*self.grid.present(self.rows), *(arm for arm in known if arm not in planned)]

    @cached_property
    def shown(self) -> list[str]:
        """The arms that are drawn: all, or of too many the extremes by rank, and between them evenly.

        An arm without a rank gives way to those that have one, where they are enough.
        """
        ranks = self.frame.rank[0](self) if self.frame.rank else {}
        known = [arm for arm in self.arms if ranks.get(arm) is not None]
        arms = known if len(self.arms) > self.frame.most <= len(known) else self.arms
        chosen = pick_evenly({arm: ranks.get(arm) for arm in arms}, self.frame.most)
        if self.frame.by_rank:
            finite = {arm: rank for arm, rank in ranks.items() if rank is not None and not math.isnan(rank)}
            chosen.sort(key=lambda arm: finite.get(arm, math.inf))
        return chosen

    def of_shown(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of the arms that are drawn."""
        return frame.filter(pl.col("arm").is_in(self.shown))

    def listed(self, rows: pl.DataFrame, by: str = "mean") -> tuple[pl.DataFrame, str]:
        """Return the rows, one per arm, that words list, and what they say of the others: of too many the ends."""
        if rows.height <= MAX_LISTED:
            return rows, ""
        order = rows.sort(by, maintain_order=True)
        return pl.concat([order.head(2), order.tail(2)]), f" (the lowest and highest of {rows.height} arms)"

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each arm is drawn, the same in every figure of the grid."""
        return looks_of(self.with_looks)

    @property
    def one_by_one(self) -> list[str]:
        """The arms that words look at one by one: all that have rows, or where there are very many those drawn."""
        return self.arms if len(self.arms) <= MAX_LISTED else self.shown

    @property
    def of_few(self) -> str:
        """What a finding over those begins with: nothing, or where they are not all «Of 12 arms that are drawn: »."""
        return "" if len(self.one_by_one) == len(self.arms) else f"Of {len(self.one_by_one)} arms that are drawn: "

    @property
    def with_looks(self) -> list[str]:
        """The arms that have a look: every one, or where there are very many those that are drawn."""
        every = list(dict.fromkeys([*self.grid.arms, *self.arms]))
        return every if len(every) <= MAX_LISTED else self.shown

    @cached_property
    def num_seeds(self) -> dict[str, int]:
        """How many seeds each arm was trained with."""
        seeds = self.grid.runs.group_by("arm").agg(pl.col("seed").n_unique())
        return dict(seeds.iter_rows())

    @property
    def T(self) -> int:  # noqa: N802 - the letter of the textbooks
        """The longest sequence length."""
        return self.grid.lengths[-1]

    @cached_property
    def title(self) -> str:
        """The finding."""
        return self.frame.title(self)

    @property
    def chosen(self) -> str:
        """Which arms are shown where not all are, in words."""
        by = f" by {self.frame.rank[1]}" if self.frame.rank else ""
        return f"the extremes{by}, and between them evenly by rank"

    @cached_property
    def caption(self) -> str:
        """What is drawn, over how many seeds, which arms, and what became of the others."""
        frame = self.frame
        about = frame.about(self) if callable(frame.about) else frame.about
        seeds = seeds_of(self.means.drop_nulls("mean"))
        dataset, is_set = self.grid.dataset, self.grid.runs["dataset.length"].is_not_null().any()
        where = f"{dataset} at T = {self.T}" if is_set else dataset
        parts = [about.format(dataset=dataset, T=self.T, where=where, seeds=seeds, interval=INTERVAL)]
        if frame.values is not None and (values := frame.values(self)):
            parts.append(values)
        if len(self.shown) < len(self.arms):
            parts.append(f"{len(self.shown)} of {len(self.arms)} arms are shown: {self.chosen}.")
        if frame.by_rank and frame.rank is not None:
            parts.append(f"Arms are sorted by {frame.rank[1]}.")
        if frame.top_layer:
            is_other = (pl.col("layer") > 0) | (pl.col("direction") == "backward")
            others = self.grid[frame.top_layer].filter(is_other, part="recurrent")
            parts += [] if others.is_empty() else [TOP_LAYER]
        parts += frame.remarks(self)
        by_default = [words for column, words in NOT_OK.items() if column in self.rows.columns]
        not_ok = frame.not_ok or next(iter(by_default), "diverged and failed ones are in no mean")
        parts.append(f"{outcomes(self.grid.runs, not_ok)}{left_out(self.means)}")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class _Panelled(Frame):
    """What figures declare that have a panel per value of a facet.

    Attributes:
        across: The facet whose values make the columns of panels.
        down: The facet whose values make the rows of panels.
        add: Draws what else is in a panel.
        more: What else is in the legend: names and looks.
        hollow: Whether a point is drawn hollow: an expression over what is drawn.
        width: Panels side by side, where they wrap.
        height: Of a row of panels in inches.
    """

    across: Facet | None = None
    down: Facet | None = None
    add: Callable[[View, Axes, Panel], None] | None = None
    more: Callable[[View], Mapping[str, Look]] | None = None
    hollow: pl.Expr = field(default_factory=lambda: pl.lit(value=False))
    width: int = 3
    height: float = 2.6

    def axis(self, axis: Axis | Mapping[Any, Axis], panel: Panel) -> Axis:
        """Return the axis of a panel, where panels differ in it: by rows of panels, or without these by columns."""
        facet = self.down or self.across
        return axis if isinstance(axis, Axis) else axis[panel[facet[0]] if facet else None]

    def remarks_on(self, view: View, axes: Axis | Mapping[Any, Axis]) -> list[str]:
        """Return what the caption says of means that are drawn faint, and of intervals that are not drawn."""
        drawn, facet = view.of_shown(view.means).drop_nulls("mean"), self.down or self.across
        by_value = {None: axes} if isinstance(axes, Axis) else axes
        is_certain = pl.lit(value=False)
        for value, axis in by_value.items():
            mine = pl.lit(value=True) if value is None or facet is None else pl.col(facet[0]) == value
            is_certain |= mine & _is_certain(axis) & pl.col("low").is_not_null()
        said = {FAINT_MEANS: _is_thin(view), NO_INTERVAL: is_certain}
        return [remark for remark, holds in said.items() if drawn.select(holds.any()).item()]


@dataclass(frozen=True, kw_only=True)
class Lines(_Panelled):
    """Means over seeds as lines with bands, a line per arm (and state), in panels.

    A stretch over which fewer than half of the arm's seeds are left is drawn faint, and the caption says so. Lines with
    one label share an entry of the legend; arms that panels are named after have none.

    Attributes:
        x: The horizontal axis; where rows of panels differ in it, one per value of `down`.
        y: The vertical axis; where panels differ in it, one per value of `down`, or without `down` of `across`.
        series: The columns that tell lines of a panel apart.
        looks: How the legend names a line and how it is drawn, by the values of `series`; by default as its arm.
        marked: Whether lines have a bar at each point in place of a band.
        seeds: Whether seeds stand as points beside marked lines; one that diverged as a cross, at `diverged_value`.
    """

    x: Axis | Mapping[Any, Axis]
    y: Axis | Mapping[Any, Axis]
    series: tuple[str, ...] = ("arm",)
    looks: Callable[[View], Mapping[Key, tuple[str, Look]]] | None = None
    marked: bool = False
    seeds: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell the means apart which are drawn."""
        facets = [facet[0] for facet in (self.down, self.across) if facet]
        return tuple(dict.fromkeys([*facets, *self.series, self._column]))

    @property
    def _column(self) -> str:
        return self.x.column if isinstance(self.x, Axis) else next(iter(self.x.values())).column

    def drawn(self, view: View) -> Figure:
        """Return the figure of a view, under the project's style."""
        means = view.of_shown(view.means)
        panels = _Panels(self, view, means)
        figure, axes = panels.canvas()
        for ax, panel in (each := panels.each(axes)):
            self.fill(view, ax, panel)
        for ax, panel in each:  # when all are drawn, for some share an axis
            self.scale(view, ax, panel)
        panels.finish(axes)
        self._legend(view, figure, means)
        return figure

    def fill(self, view: View, ax: Axes, panel: Panel) -> None:
        """Draw what is in one panel."""
        rows, axis = self._beside(view, panel, self.y).filter(_of(panel)), self.axis(self.y, panel)
        self._lines(view, ax, rows, axis, panel)
        for height, name in axis.references(view, panel).items():
            reference(ax, axis.shown(height), name, horizontal=True)
        if rows.drop_nulls("mean").is_empty():
            ax.text(0.5, 0.5, axis.empty, transform=ax.transAxes, ha="center")
        if self.add is not None:
            self.add(view, ax, panel)

    def scale(self, view: View, ax: Axes, panel: Panel) -> None:
        """Scale and limit the axes of one panel by what all panels show that share them."""
        x, y = self.axis(self.x, panel), self.axis(self.y, panel)
        references = pl.Series(list(y.references(view, panel)), dtype=pl.Float64)
        _scale(ax, "x", x, self._beside(view, panel, self.x)[x.column])
        _scale(ax, "y", y, pl.concat([self._beside(view, panel, self.y)["mean"], references]))

    def _beside(self, view: View, panel: Panel, axes: Axis | Mapping[Any, Axis]) -> pl.DataFrame:
        """Return what is drawn in all panels that share an axis."""
        facet = None if isinstance(axes, Axis) else self.down or self.across
        return view.of_shown(view.means).filter(_of({facet[0]: panel[facet[0]]} if facet else {}))

    def remarks(self, view: View) -> list[str]:
        """Return what the caption says of how this was drawn."""
        return self.remarks_on(view, self.y)

    def _looks(self, view: View) -> Mapping[Key, tuple[str, Look]]:
        """Return the name and the look of lines; those of arms that panels are named after have no name."""
        if self.looks is not None:
            return self.looks(view)
        is_titled = any(facet and facet[0] == "arm" for facet in (self.across, self.down))
        return {arm: ("" if is_titled else name_of(arm), look) for arm, look in view.looks.items()}

    def _keys(self, view: View, rows: pl.DataFrame) -> list[tuple[Any, ...]]:
        """Return what tells lines apart, arms in the grid's order."""
        keys = rows.select(self.series).unique(maintain_order=True).rows()
        if "arm" in self.series:
            keys.sort(key=lambda key: view.shown.index(key[self.series.index("arm")]))
        return keys

    def _lines(self, view: View, ax: Axes, rows: pl.DataFrame, axis: Axis, panel: Panel) -> None:
        across = self.axis(self.x, panel)
        looks, keys = self._looks(view), self._keys(view, rows)
        shade = 0.18 if len(keys) <= 4 else 0.07
        for place, key in enumerate(keys):
            mine = dict(zip(self.series, key, strict=True))
            line = _to_draw(rows.filter(**mine).sort(self._column), axis)
            _, look = looks[key[0] if len(key) == 1 else key]
            is_thin = line.select(_is_thin(view)).to_series().to_numpy()
            x = line[self._column].cast(pl.Float64).to_numpy()
            ends = (line[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in ("mean", "low", "high"))
            mean, low, high = map(axis.shown, ends)
            if self.marked:
                x = _dodged(x, place, len(keys), is_log=across.scale in {"log", "lengths"})
                if self.seeds:
                    seeds = view.rows.filter(_of(panel), **mine)
                    self._seeds(ax, seeds, dict(zip(line[self._column], x, strict=True)), axis, look)
                ax.plot(x, mean, **look.line)
                bars = np.nan_to_num(np.clip([mean - low, high - mean], 0.0, None))
                is_hollow = line.with_columns(hollow=self.hollow)["hollow"].to_numpy()
                parts = {"white": is_hollow & ~is_thin, look.colour: ~is_hollow & ~is_thin, "none": is_thin}
                for face, part in parts.items():
                    style: dict[str, Any] = {"markersize": 5, "capsize": 2.5, "elinewidth": 1.0, "color": look.colour}
                    style |= {"markerfacecolor": face} if face != "none" else {"alpha": 0.35}
                    ax.errorbar(x[part], mean[part], bars[:, part], fmt=look.marker, **style)
                continue
            strong = np.where(is_thin, math.nan, mean)
            ax.plot(x, strong, **look.line, marker=look.marker, markevery=max(1, len(x) // 6))
            if is_thin.any():  # with the point before, so that the line goes on
                joined = is_thin | np.append(is_thin[1:], False)
                ax.plot(x, np.where(joined, mean, math.nan), **look.line | {"linewidth": 0.9, "alpha": 0.45})
            if axis.band:
                blank = np.where(is_thin, math.nan, 1.0)
                ax.fill_between(x, low * blank, high * blank, color=look.colour, alpha=shade, linewidth=0)

    def _seeds(self, ax: Axes, rows: pl.DataFrame, places: Mapping[float, float], axis: Axis, look: Look) -> None:
        """Draw what each seed has beside the mean; a diverged one is a cross."""
        points: dict[str, dict[str, Any]] = {
            "value": {"s": 10, "alpha": 0.45, "linewidth": 0},
            "diverged_value": {"s": 26, "marker": "x", "linewidth": 1.2},
        }
        for column, style in points.items():
            known = rows.drop_nulls(column) if column in rows.columns else rows.clear()
            x = [places[place] for place in known[self._column]]
            ax.scatter(x, [axis.shown(value) for value in known[column]] if x else [], color=look.colour, **style)

    def _legend(self, view: View, figure: Figure, means: pl.DataFrame) -> None:
        looks, entries = self._looks(view), dict[str, Look]()
        for key in self._keys(view, means):
            label, look = looks[key[0] if len(key) == 1 else key]
            other = entries.setdefault(label, look)
            if other != look:
                entries[label] = Look(INK, look.dashes if look.dashes == other.dashes else "solid", "")
        more = self.more(view) if self.more is not None else {}
        entries.pop("", None)
        if len(entries) > 1 or more:
            legend_below(figure, {**entries, **more})


def _is_thin(view: View) -> pl.Expr:
    """Whether fewer than half of the seeds of an arm are left in a mean."""
    return 2 * pl.col("num_seeds") < pl.col("arm").replace_strict(view.num_seeds, default=0, return_dtype=pl.Int64)


def _is_certain(axis: Axis) -> pl.Expr:
    """Whether a mean is of errors in percent that no seed makes, or every one always: its interval is not drawn.

    It is as wide as few seeds leave it where they all agree, beside narrow ones where they do not.
    """
    return pl.col("mean").is_in([0.0, 1.0]) & pl.lit(axis.scale == "percent")


def _to_draw(means: pl.DataFrame, axis: Axis) -> pl.DataFrame:
    """Return means whose intervals are of no width where they are not drawn."""
    return means.with_columns(
        pl.when(_is_certain(axis)).then("mean").otherwise(side).alias(side) for side in ("low", "high")
    )


def _of(panel: Panel) -> list[pl.Expr]:
    return [pl.col(name) == value for name, value in panel.items()] or [pl.lit(value=True)]


@dataclass(frozen=True, kw_only=True)
class Dots(_Panelled):
    """A row per arm: its seeds as points, their mean as a marker with its interval; a panel per value of a facet.

    Attributes:
        x: The horizontal axis; where panels differ in it, one per value of `across`.
        series: A column whose values stand side by side in the row of an arm, and how each is drawn and named; of a
            value without a look there is one, drawn as its arm.
    """

    x: Axis | Mapping[Any, Axis]
    series: tuple[str, Mapping[Any, tuple[str, Look]]] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell the means apart which are drawn."""
        return (*(facet[0] for facet in (self.across, self.series) if facet), "arm")

    def drawn(self, view: View) -> Figure:
        """Return the figure of a view, under the project's style."""
        panels = _Panels(self, view, view.means)
        most_lines = max((name.count("\n") + 1 for name in self._names(view)), default=1)
        figure, axes = panels.canvas(
            1.0 + max(0.33 if len(view.shown) > 6 else 0.42, 0.14 * most_lines) * len(view.shown)
        )
        for ax, panel in panels.each(axes):
            self.fill(view, ax, panel)
        label_panels(list(axes.flat))
        if any(ax.texts for ax in axes.flat):  # names of lines stand above the panels
            for ax in axes.flat:
                ax.set_title(ax.get_title(loc="left"), loc="left", pad=15)
        if self.series is not None and (known := [key for key in self.series[1] if key in view.means[self.series[0]]]):
            legend_below(figure, dict(self.series[1][key] for key in known))
        return figure

    def remarks(self, view: View) -> list[str]:
        """Return what the caption says of how this was drawn."""
        return self.remarks_on(view, self.x)

    def _names(self, view: View) -> list[str]:
        return [textwrap.fill(name_of(arm), 26) for arm in view.shown]

    def fill(self, view: View, ax: Axes, panel: Panel) -> None:
        """Draw one panel."""
        axis = self.axis(self.x, panel)
        means, seeds = view.means.filter(_of(panel)), view.rows.filter(_of(panel))
        for place, arm in enumerate(view.shown):
            mine = seeds.filter(arm=arm).drop_nulls("value")
            values = axis.shown(mine["value"].cast(pl.Float64).to_numpy())
            own, looks = view.looks[arm], self.series[1] if self.series else {}
            keys = mine[self.series[0]] if self.series else [None] * len(values)
            colours = [looks[key][1].colour if key in looks else own.colour for key in keys]
            style: dict[str, Any] = {"s": 12, "alpha": 0.45, "linewidth": 0}
            ax.scatter(values, [place + 0.22] * len(values), color=colours or own.colour, **style)
            mine = _to_draw(means.filter(arm=arm), axis).with_columns(is_thin=_is_thin(view))
            self._means(ax, place, mine, means, view.looks[arm], axis)
        for at, name in axis.references(view, panel).items():
            reference(ax, axis.shown(at), name, horizontal=False)
        _scale(ax, "x", axis, means["mean"])
        ax.set_xlabel(axis.label)
        ax.set_yticks(range(len(view.shown)), self._names(view))
        ax.set_ylim(len(view.shown) - 0.5, -0.5)

    def _means(self, ax: Axes, place: int, mine: pl.DataFrame, panel: pl.DataFrame, look: Look, axis: Axis) -> None:
        known = [key for key in self.series[1] if key in panel[self.series[0]]] if self.series else []
        for row in mine.drop_nulls("mean").iter_rows(named=True):
            key = row[self.series[0]] if self.series else None
            drawn = self.series[1][key][1] if self.series and key in known else look
            beside = 0.22 * (known.index(key) - (len(known) - 1) / 2) if key in known else 0.0
            ends = [row["mean"] if row[side] is None else row[side] for side in ("mean", "low", "high")]
            middle, low, high = map(axis.shown, ends)
            bars = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
            style: dict[str, Any] = {"markersize": 4.5, "elinewidth": 0.9} if known else {"markersize": 6}
            style |= {"color": drawn.colour, "marker": drawn.marker, "capsize": 2.5}
            style |= {"markerfacecolor": "none", "alpha": 0.35} if row["is_thin"] else {}
            ax.errorbar([middle], [place + beside], xerr=bars, **style)


@dataclass(frozen=True, kw_only=True)
class Points(_Panelled):
    """A point per row: colour and marker by arm.

    Attributes:
        x: The horizontal axis, with the column of the rows.
        y: The vertical axis, with the column of the rows.
        series: A column that tells points of an arm apart.
        look: How the points of an arm and a value of `series` are drawn; by default as their arm.
        limits: Of both axes, from the rows that are drawn; the caption counts what lies beyond.
    """

    x: Axis
    y: Axis
    series: str | None = None
    look: Callable[[View], Mapping[tuple[str, Any], Look]] | None = None
    limits: Callable[[pl.DataFrame], Sequence[tuple[float, float]]] | None = None

    def table(self, view: View) -> pl.DataFrame:
        """Return the points that are drawn."""
        return view.of_shown(view.rows)

    def drawn(self, view: View) -> Figure:
        """Return the figure of a view, under the project's style."""
        rows = view.of_shown(view.rows).with_columns(hollow=self.hollow)
        panels = _Panels(self, view, rows)
        figure, axes = panels.canvas()
        series = ["arm", self.series] if self.series else ["arm"]
        for ax, panel in panels.each(axes):
            for key, mine in rows.filter(_of(panel)).group_by(series, maintain_order=True):
                look = self.look(view)[key] if self.look else view.looks[str(key[0])]
                for face, part in (("none", mine.filter("hollow")), (look.colour, mine.filter(~pl.col("hollow")))):
                    style: dict[str, Any] = {"marker": look.marker, "s": 18, "linewidth": 0.9, "alpha": 0.6}
                    is_cross = look.marker == "x"
                    style |= {"color": look.colour} if is_cross else {"edgecolors": look.colour, "facecolors": face}
                    ax.scatter(part[self.x.column], part[self.y.column], **style)
            if self.add is not None:
                self.add(view, ax, panel)
            _scale(ax, "x", self.x, rows[self.x.column])
            _scale(ax, "y", self.y, rows[self.y.column])
            if self.limits is not None:
                x, y = self.limits(rows)
                ax.set(xlim=x, ylim=y)
        panels.finish(axes)
        looks = {name_of(arm): Look(view.looks[arm].colour, "none", view.looks[arm].marker) for arm in view.shown}
        by_arm = {} if self.across and self.across[0] == "arm" else looks
        legend = (by_arm if len(by_arm) > 1 else {}) | dict(self.more(view) if self.more else {})
        if legend:
            legend_below(figure, legend)
        return figure

    def remarks(self, view: View) -> list[str]:
        """Return what the caption says of how this was drawn."""
        rows = view.of_shown(view.rows)
        if self.limits is None or rows.is_empty():
            return []
        sides = zip((self.x.column, self.y.column), self.limits(rows), strict=True)
        inside = pl.all_horizontal(pl.col(name).is_between(*side) for name, side in sides)
        beyond = rows.filter(~inside).height
        return [f"{capitalised(count(beyond, 'point'))} far from the others lie beyond the frame."] if beyond else []


@dataclass(frozen=True, kw_only=True)
class Pictures(Frame):
    """What is drawn by hand: attention maps, images, text.

    Attributes:
        picture: From a view to the figure.
        shows: The numbers that it is of; by default the view's rows of the arms that are drawn.
    """

    picture: Callable[[View], Figure]
    shows: Callable[[View], pl.DataFrame] = lambda view: view.of_shown(view.rows)

    def table(self, view: View) -> pl.DataFrame:
        """Return the numbers that are drawn."""
        return self.shows(view)

    def drawn(self, view: View) -> Figure:
        """Return the figure of a view, under the project's style."""
        return self.picture(view)


class _Panels:
    """The panels of a figure: which there are, where they stand, and what is written round them."""

    def __init__(self, frame: Lines | Dots | Points, view: View, rows: pl.DataFrame) -> None:
        self.frame, self.view, self.down = frame, view, frame.down
        down, across = _values(self.down, view, rows), _values(frame.across, view, rows)
        self.grid = [[{**below, **beside} for beside in across] for below in down]
        if not isinstance(frame, Dots) and len(down) == 1 and len(across) > frame.width:
            width = 2 if len(across) == 4 else frame.width
            self.grid = [self.grid[0][start : start + width] for start in range(0, len(across), width)]

    def canvas(self, height: float | None = None) -> tuple[Figure, np.ndarray[Any, Any]]:
        num_rows, num_columns, frame = len(self.grid), len(self.grid[0]), self.frame
        share: dict[str, Any] = {"sharex": True if isinstance(frame.x, Axis) else "row", "sharey": True}
        if isinstance(frame, Dots):
            share["sharex"] = isinstance(frame.x, Axis)
        elif not isinstance(frame.y, Axis):
            share["sharey"] = "row" if self.down else False
        total = 0.8 + frame.height * num_rows if height is None else height
        return canvas(self.view.title, num_rows, num_columns, total, **share)

    def each(self, axes: np.ndarray[Any, Any]) -> list[tuple[Axes, Panel]]:
        """Return the axes with their panels, titled; the others are hidden."""
        found = []
        for number, (row, panels) in enumerate(zip(axes, self.grid, strict=True)):
            for ax, panel in zip(row, panels, strict=False):
                if number == 0 or not self.down:
                    ax.set_title(self._title(panel))
                found.append((ax, panel))
            for ax in row[len(panels) :]:
                ax.set_visible(False)
        return found

    def finish(self, axes: np.ndarray[Any, Any]) -> None:
        """Write labels at the outer edges, and a letter at each panel; of a table of panels, at each column."""
        assert not isinstance(self.frame, Dots)  # noqa: S101 - its rows are named by arms
        for row, panels in zip(axes, self.grid, strict=True):
            for ax, panel in zip(row, panels, strict=False):
                titles = self.down[1] if self.down else None
                below = titles[panel[self.down[0]]] if self.down and isinstance(titles, Mapping) else ""
                ax.set_xlabel(self.frame.axis(self.frame.x, panel).label)
                ax.set_ylabel("\n".join(filter(None, [below, self.frame.axis(self.frame.y, panel).label])))
                ax.label_outer(remove_inner_ticks=False)
                if not isinstance(self.frame.x, Axis):
                    ax.set_xlabel(self.frame.axis(self.frame.x, panel).label)
                    ax.tick_params(labelbottom=True)
                if not isinstance(self.frame.y, Axis) and not self.down:
                    ax.set_ylabel(self.frame.axis(self.frame.y, panel).label)
                    ax.tick_params(labelleft=True)
        last = self.grid[-1]
        for ax in axes[-2][len(last) :] if len(axes) > 1 else ():  # nothing stands below these
            ax.set_xlabel(self.frame.axis(self.frame.x, last[-1]).label)
            ax.tick_params(labelbottom=True)
        label_panels(list(axes[0]) if self.down else [ax for ax in axes.flat if ax.get_visible()])

    def _title(self, panel: Panel) -> str:
        if self.frame.across is None:
            return ""
        name, titles = self.frame.across
        value = name_of(str(panel[name]))
        title = value if titles is None else titles.format(value) if isinstance(titles, str) else titles[panel[name]]
        return textwrap.fill(title, max(14, 78 // len(self.grid[0])))


def _values(facet: Facet | None, view: View, rows: pl.DataFrame) -> list[Panel]:
    """Return the values of a facet in order: as its titles name them, or as the arms, or as they come."""
    if facet is None:
        return [{}]
    name, titles = facet
    known = rows[name].unique(maintain_order=True).to_list()
    order = view.shown if name == "arm" else list(titles) if isinstance(titles, Mapping) else known
    return [{name: value} for value in order if value in known or name == "stage"]


def _scale(ax: Axes, which: Literal["x", "y"], axis: Axis, values: pl.Series) -> None:
    """Scale, limit and tick an axis."""
    set_scale, set_limits = getattr(ax, f"set_{which}scale"), getattr(ax, f"set_{which}lim")
    if axis.scale in {"log", "log10", "lengths"}:
        set_scale("log")
    low, high = axis.limits
    if axis.max_decades is not None:
        low, high = reach(values, axis.max_decades)
        margin = 0.08 * max(high - low, 0.5)
        low, high = low - margin, high + margin
    if low is not None or high is not None:
        set_limits(low, high)
    if axis.scale == "decades":
        decades(ax, which)
    elif axis.scale in {"log", "log10"}:
        log_ticks(ax, which)
    elif axis.scale == "steps":
        step_ticks(ax, int(values.max() or 1))  # type: ignore[arg-type]
    elif axis.scale == "counts":
        getattr(ax, f"{which}axis").set_major_locator(MaxNLocator(8, integer=True))
    elif axis.scale == "lengths":
        lengths = values.unique().sort().to_list()
        num_columns = ax.get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
        room = 0.013 * num_columns * (len(str(lengths[-1])) + 0.6)  # a digit takes 1.3 % of the figure
        getattr(ax, f"{which}axis").set_minor_locator(NullLocator())
        getattr(ax, f"set_{which}ticks")(kept := with_room(lengths, room), [f"{length:g}" for length in kept])


def reach(values: pl.Series, max_decades: float) -> tuple[float, float]:
    """Return the lowest and the highest finite value, the lowest at most `max_decades` below the highest."""
    finite = values.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return -1.0, 0.0
    high = float(finite.max())
    return max(float(finite.min()), high - max_decades), high


def _dodged(x: np.ndarray[Any, Any], place: int, num_lines: int, *, is_log: bool) -> np.ndarray[Any, Any]:
    """Return where the points of one of several lines stand, beside those of the others."""
    along = np.log10(x) if is_log else x
    known = np.unique(along)
    gap, widest = (float(np.diff(known).min()), float(np.ptp(known))) if len(known) > 1 else (0.1, 1.0)
    step = min(gap / (2 * num_lines), 0.045 if is_log else 0.01 * widest)
    moved = along + step * (place - (num_lines - 1) / 2)
    return 10**moved if is_log else moved


def reference(ax: Axes, at: float, name: str, *, horizontal: bool) -> None:
    """Draw a line across the panel; with a name dashed, without one thin."""
    style: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 0.9} if name else {"linewidth": 0.6}
    (ax.axhline if horizontal else ax.axvline)(at, color=INK, **style)
    if name:
        place, coordinates = (
            ((1, at), ("axes fraction", "data")) if horizontal else ((at, 1), ("data", "axes fraction"))
        )
        where: dict[str, Any] = {"ha": "right" if horizontal else "center", "va": "bottom", "fontsize": 7}
        ax.annotate(name, place, xycoords=coordinates, xytext=(0, 2), textcoords="offset points", **where)


def draw_dotted(view: View, ax: Axes, means: pl.DataFrame, along: str) -> None:
    """Draw a dotted line of each arm's theory, in its colour."""
    for arm, line in view.of_shown(means).group_by("arm", maintain_order=True):
        x, y = (line[column].cast(pl.Float64).fill_null(math.nan).to_numpy() for column in (along, "mean"))
        ax.plot(x, y, color=view.looks[str(arm[0])].colour, linestyle=DOTTED, linewidth=1.0)


def listed(view: View, means: pl.DataFrame, *, digits: int = 2, scale: float = 1.0) -> str:
    """Return «LSTM: 0.91 [0.88, 0.94]; GRU: …» of the rows of a summary by arm that have a mean.

    Of more than `MAX_LISTED` arms only the lowest and highest are listed, and it says so.
    """
    few, rest = view.listed(means.drop_nulls("mean"))
    rows = (few if rest else few.sort(view.grid.rank(), maintain_order=True)).iter_rows(named=True)
    return "; ".join(f"{name_of(row['arm'])}: {interval(row, digits, scale=scale)}" for row in rows) + rest
