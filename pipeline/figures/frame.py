"""The frame of all figures: a figure declares its rows, its axes and its finding; grouping, panels and the rest are here.

A declaration is an instance of a kind: `Lines`, `Dots`, `HeatMaps`, `Points`, or `Pictures` for what is drawn by hand.
The frame restricts the grid to its longest length, takes means over seeds with their intervals, limits how many arms
are drawn and says which, makes panels, looks, legend and letters, says who is missing, and handles the empty case.
What a title may claim is in `findings.py`: a difference only where its interval allows it.
"""

from __future__ import annotations

import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.style import (
    INK,
    Look,
    canvas,
    decades,
    handle_of,
    label_panels,
    legend_below,
    log_ticks,
    looks_of,
    state_looks,
    step_ticks,
    styled,
    with_room,
)
from pipeline.quantities import Grid, Quantity, mean_interval
from pipeline.quantities.selection import pick_evenly
from pipeline.quantities.words import INTERVAL, capitalised, left_out, name_of, outcomes, seeds_of

Panel = dict[str, Any]
"""Which panel: the values of the facets that make rows and columns of panels."""

Text = str | Callable[["View"], str]

STAGE_TITLES = {"initialisation": "At initialisation", "end": "At the end of training"}
NOT_FINISHED = "no replica finished"
TOP_LAYER = " Of several layers and directions the last layer, forward in time, is shown."


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: what is along it, in which unit, and how it is scaled.

    Attributes:
        label: With the unit.
        column: Of the rows; for a vertical axis that of the value.
        scale: `decades`: values are log10 and ticks powers of ten. `percent`: shares times 100. `steps`: training steps
            from 0, logarithmic. `log` and `linear` as usual. `lengths`: logarithmic, a tick at each length with room.
        limits: Lowest and highest value shown; None where the data say.
        max_decades: Of means that far below the largest nothing is shown.
        lines: Horizontal or vertical reference lines, each with its name; an empty name draws a thin line.
        band: What surrounds a line: `interval` of the mean, `quartiles` around the median, or nothing.
    """

    label: str
    column: str = "value"
    scale: Literal["linear", "log", "decades", "percent", "steps", "lengths"] = "linear"
    limits: tuple[float | None, float | None] = (None, None)
    max_decades: float | None = None
    lines: Mapping[float, str] = field(default_factory=dict)
    band: Literal["interval", "quartiles"] | None = "interval"

    @property
    def factor(self) -> float:
        """What values are multiplied by before they are drawn."""
        return 100.0 if self.scale == "percent" else 1.0


@dataclass(frozen=True, kw_only=True)
class Frame(ABC):
    """What every figure declares.

    Attributes:
        name: Of the figure, in studies' files and file names.
        rows: A quantity, or a function from a grid to rows `arm`, `seed`, `value` and facets.
        title: The finding, computed by rule.
        about: The caption's first sentences; `{dataset}`, `{T}`, `{seeds}` and `{interval}` are filled in.
        applies: Whether a grid has what the figure shows, besides rows.
        lengths: Whether the figure is of the longest sequence length or of all.
        not_ok: What the figure does with replicas that diverged or failed; by default what the quantity says.
        values: Numbers that the caption lists, as text.
        most: At most so many arms are drawn.
        rank: By what the drawn arms are chosen, and its name.
        top_layer: Of which table the caption says that its last layer is shown.
    """

    name: str
    rows: Quantity | Callable[[Grid], pl.DataFrame]
    title: Callable[[View], str]
    about: Text
    applies: Callable[[Grid], bool] = lambda grid: True
    lengths: Literal["longest", "all"] = "longest"
    not_ok: str | None = None
    values: Callable[[View], str] | None = None
    most: int = 12
    rank: tuple[Callable[[View], Mapping[str, float | None]], str] | None = None
    top_layer: str | None = None

    def view(self, grid: Grid) -> View:
        """Return what the figure shows of a grid, computed once."""
        return grid.memo(
            ("view", self.name), lambda: View(self, grid.at("longest") if self.lengths == "longest" else grid)
        )

    def is_of(self, grid: Grid) -> bool:
        """Return whether the grid has what the figure shows."""
        return self.applies(grid) and not self.view(grid).rows.is_empty()

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell the means apart which are drawn."""
        return ("arm",)

    def draw(self, grid: Grid) -> Figure:
        """Return the figure."""
        return styled(self.drawn)(self.view(grid))

    @abstractmethod
    def drawn(self, view: View) -> Figure:
        """Return the figure of a view, under the project's style."""


@dataclass(frozen=True, eq=False)
class View:
    """One figure of one grid: its rows, their means, and its words; each computed once."""

    frame: Frame
    grid: Grid

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The rows, one per seed and what tells them apart."""
        rows = self.frame.rows
        return rows.of(self.grid) if isinstance(rows, Quantity) else rows(self.grid)

    @cached_property
    def means(self) -> pl.DataFrame:
        """Columns `frame.keys`, `mean`, `low`, `high`, `num_seeds`, `num_nonfinite`, `num_missing`."""
        return self.summary(self.rows, self.frame.keys)

    def summary(self, rows: pl.DataFrame, by: Sequence[str] = ("arm",)) -> pl.DataFrame:
        """Return means over seeds with their intervals, as the quantity takes them."""
        if isinstance(self.frame.rows, Quantity):
            return self.frame.rows.summary(rows, by)
        return mean_interval(rows, "value", by)

    @cached_property
    def arms(self) -> list[str]:
        """The arms that have rows, in the order of the study's file."""
        return self.grid.present(self.rows)

    @cached_property
    def shown(self) -> list[str]:
        """The arms that are drawn: all, or of too many the extremes by rank, and between them evenly."""
        ranks = self.frame.rank[0](self) if self.frame.rank else {}
        return pick_evenly({arm: ranks.get(arm) for arm in self.arms}, self.frame.most)

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each arm is drawn, the same in every figure of the grid."""
        return looks_of(self.grid.arms)

    @property
    def T(self) -> int:  # noqa: N802 - the letter of the textbooks
        """The longest sequence length."""
        return self.grid.lengths[-1]

    @cached_property
    def title(self) -> str:
        """The finding."""
        return self.frame.title(self)

    @cached_property
    def caption(self) -> str:
        """What is drawn, over how many seeds, which arms, and what became of the others."""
        frame, quantity = self.frame, self.frame.rows
        about = frame.about(self) if callable(frame.about) else frame.about
        facts = {"dataset": self.grid.dataset, "T": self.T, "seeds": seeds_of(self.means), "interval": INTERVAL}
        parts = [about.format(**facts)]
        if frame.values is not None and (values := frame.values(self)):
            parts.append(values)
        if len(self.shown) < len(self.arms):
            by = f" by {frame.rank[1]}" if frame.rank else ""
            chosen = f"the extremes{by}, and between them evenly by rank"
            parts.append(f"{len(self.shown)} of {len(self.arms)} arms are shown: {chosen}.")
        if frame.top_layer and _has_layers(self.grid[frame.top_layer]):
            parts.append(TOP_LAYER.strip())
        not_ok = frame.not_ok or (quantity.not_ok if isinstance(quantity, Quantity) else "they are in no mean")
        parts.append(f"{outcomes(self.grid.runs, not_ok)}{left_out(self.means)}")
        return " ".join(parts)


def _has_layers(frame: pl.DataFrame) -> bool:
    rows = frame.filter(part="recurrent")
    return not rows.is_empty() and (rows["layer"].max() != 0 or rows["direction"].n_unique() > 1)


@dataclass(frozen=True, kw_only=True)
class Lines(Frame):
    """Means over seeds as lines with bands, a line per arm (and state), in panels.

    Attributes:
        x: The horizontal axis.
        y: The vertical axis; of several rows of panels one per value of `down`.
        across: The facet whose values make the columns of panels, with their titles (None: the value itself).
        down: The facet whose values make the rows of panels, with their titles.
        series: The columns that tell lines of a panel apart.
        look: How a line is drawn, by the values of `series`; by default as its arm.
        label: What the legend says of a line; by default the arm's name.
        add: Draws what else is in a panel.
        more: What else is in the legend: names and looks.
        width: Panels side by side, where they wrap.
        height: Of a row of panels in inches.
        marked: Whether lines have a bar at each point in place of a band.
    """

    x: Axis
    y: Axis | Mapping[Any, Axis]
    across: tuple[str, Mapping[Any, str] | None] | None = None
    down: tuple[str, Mapping[Any, str] | None] | None = None
    series: tuple[str, ...] = ("arm",)
    look: Callable[[View], Mapping[Any, Look]] | None = None
    label: Callable[[View], Mapping[Any, str]] | None = None
    add: Callable[[View, Axes, Panel], None] | None = None
    more: Callable[[View], Mapping[str, Look]] | None = None
    width: int = 4
    height: float = 2.6
    marked: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        facets = [facet[0] for facet in (self.down, self.across) if facet]
        return tuple(dict.fromkeys([*facets, *self.series, self.x.column]))

    def drawn(self, view: View) -> Figure:
        means = view.means.filter(pl.col("arm").is_in(view.shown))
        panels = _Panels(self, view, means)
        figure, axes = panels.canvas()
        for ax, panel in panels.each(axes):
            rows = means.filter(**panel) if panel else means
            axis = self._y(panel)
            self._lines(view, ax, rows, axis)
            for height, name in axis.lines.items():
                _reference(ax, height, name, horizontal=True)
            if rows.drop_nulls("mean").is_empty():
                ax.text(0.5, 0.5, NOT_FINISHED, transform=ax.transAxes, ha="center")
            if self.add is not None:
                self.add(view, ax, panel)
            _scale(ax, "x", self.x, means[self.x.column])
            _scale(ax, "y", axis, rows["mean"])
        panels.finish(figure, axes, self._y)
        self._legend(view, figure, means)
        return figure

    def _y(self, panel: Panel) -> Axis:
        return self.y if isinstance(self.y, Axis) else self.y[panel[self.down[0]]]  # type: ignore[index]

    def _looks(self, view: View) -> Mapping[Any, Look]:
        if self.look is not None:
            return self.look(view)
        return state_looks(view.grid.arms) if self.series == ("arm", "state") else view.looks

    def _lines(self, view: View, ax: Axes, rows: pl.DataFrame, axis: Axis) -> None:
        looks, shade = self._looks(view), 0.18 if len(view.shown) <= 4 else 0.07
        keys = rows.select(self.series).unique(maintain_order=True).rows()
        for place, key in enumerate(keys):
            line = rows.filter(**dict(zip(self.series, key, strict=True))).sort(self.x.column)
            look = looks[key[0] if len(key) == 1 else key]
            x, *heights = (line[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in _LINE(self.x.column))
            mean, low, high = (axis.factor * height for height in heights)
            if self.marked:
                x = x * _dodge(x, place, len(keys)) if self.x.scale in {"log", "lengths"} else x
                bars = np.nan_to_num(np.clip([mean - low, high - mean], 0.0, None))
                ax.errorbar(x, mean, bars, **look.line, marker=look.marker, markersize=5, capsize=2.5, elinewidth=1.0)
                continue
            ax.plot(x, mean, **look.line, marker=look.marker, markevery=max(1, len(x) // 6))
            if axis.band is not None:
                ax.fill_between(x, low, high, color=look.colour, alpha=shade, linewidth=0)

    def _legend(self, view: View, figure: Figure, means: pl.DataFrame) -> None:
        looks, keys = self._looks(view), means.select(self.series).unique(maintain_order=True).rows()
        names = {key[0] if len(key) == 1 else key: " ".join(name_of(str(part)) for part in key) for key in keys}
        labels = names | dict(self.label(view)) if self.label is not None else names
        order = sorted(names, key=lambda key: view.grid.arms.index(key if isinstance(key, str) else key[0]))
        more = self.more(view) if self.more is not None else {}
        if len(order) > 1 or more:
            handles = [handle_of(looks[key]) for key in order] + [handle_of(look) for look in more.values()]
            legend_below(figure, handles, [*(labels[key] for key in order), *more])


def _LINE(x: str) -> tuple[str, str, str, str]:  # noqa: N802
    return (x, "mean", "low", "high")


@dataclass(frozen=True, kw_only=True)
class Dots(Frame):
    """A row per arm: its seeds as points, their mean as a marker with its interval; a panel per value of a facet.

    Attributes:
        x: The horizontal axis.
        across: The facet that makes panels, with their titles.
        add: Draws what else is in a panel.
    """

    x: Axis
    across: tuple[str, Mapping[Any, str] | None] | None = None
    add: Callable[[View, Axes, Panel], None] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.across[0], "arm") if self.across else ("arm",)

    def drawn(self, view: View) -> Figure:
        panels = _Panels(self, view, view.means)
        figure, axes = panels.canvas(1.1 + 0.4 * len(view.shown))
        for ax, panel in panels.each(axes):
            means, seeds = (frame.filter(**panel) if panel else frame for frame in (view.means, view.rows))
            for place, arm in enumerate(view.shown):
                self._row(ax, place, means.filter(arm=arm), seeds.filter(arm=arm), view.looks[arm])
            for at, name in self.x.lines.items():
                _reference(ax, at, name, horizontal=False)
            if self.add is not None:
                self.add(view, ax, panel)
            _scale(ax, "x", self.x, means["mean"])
            ax.set_xlabel(self.x.label)
        names = [textwrap.fill(name_of(arm), 26) for arm in view.shown]
        axes[0, 0].set_yticks(range(len(view.shown)), names)
        axes[0, 0].set_ylim(len(view.shown) - 0.5, -0.5)
        if axes.size > 1:
            label_panels(list(axes.flat))
        return figure

    def _row(self, ax: Axes, place: float, means: pl.DataFrame, seeds: pl.DataFrame, look: Look) -> None:
        shown = (lambda log10: 10.0**log10) if self.x.scale == "log" else (lambda value: self.x.factor * value)
        values = seeds["value"].cast(pl.Float64).drop_nulls().to_numpy()
        ax.scatter(shown(values), [place + 0.22] * len(values), s=12, color=look.colour, alpha=0.45, linewidth=0)
        for row in means.drop_nulls("mean").iter_rows(named=True):
            ends = [row["mean"] if row[side] is None else row[side] for side in ("mean", "low", "high")]
            middle, low, high = (shown(end) for end in ends)
            bars = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
            ax.errorbar([middle], [place], xerr=bars, color=look.colour, marker=look.marker, markersize=6, capsize=3)


@dataclass(frozen=True, kw_only=True)
class HeatMaps(Frame):
    """Means over seeds as colours, log10 in decades, on one scale: a panel per arm and state.

    Attributes:
        x: The horizontal axis.
        y: The vertical axis.
        colour: What the colours mean.
        series: The columns that tell panels apart.
    """

    x: Axis
    y: Axis
    colour: Axis
    series: tuple[str, ...] = ("arm", "state")

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.series, self.y.column, self.x.column)

    def drawn(self, view: View) -> Figure:
        means = view.means.filter(pl.col("arm").is_in(view.shown))
        panels = sorted(
            means.select(self.series).unique().rows(), key=lambda key: (view.shown.index(key[0]), key[1] != "h")
        )
        num_columns = min(2, len(panels))
        num_rows = math.ceil(len(panels) / num_columns)
        figure, axes = canvas(view.title, num_rows, num_columns, 0.9 + 1.75 * num_rows)
        low, high = _reach(means["mean"], self.colour.max_decades)
        for ax, key in zip(axes.flat, panels, strict=False):
            self._panel(ax, means.filter(**dict(zip(self.series, key, strict=True))), low, high)
            ax.set_title(" ".join(name_of(part) for part in key if part))
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        bar = figure.colorbar(axes[0, 0].collections[0], ax=axes, aspect=30, pad=0.015, extend="min")
        bar.outline.set_visible(False)
        bar.set_label(self.colour.label)
        decades(bar.ax)
        return figure

    def _panel(self, ax: Axes, rows: pl.DataFrame, low: float, high: float) -> None:
        wide = rows.sort(self.y.column, self.x.column).pivot(on=self.x.column, index=self.y.column, values="mean")
        grid = wide.drop(self.y.column).to_pandas().astype(float)
        style: dict[str, Any] = {"cbar": False, "cmap": "cividis", "rasterized": True}
        sns.heatmap(grid, ax=ax, vmin=low, vmax=high, xticklabels=False, yticklabels=False, **style)
        num_rows, num_columns = grid.shape
        ticks = np.unique(np.linspace(1, num_columns, min(5, num_columns)).round().astype(int))
        ax.set_xticks(ticks - 0.5, [str(tick) for tick in ticks])
        shown = list(range(num_rows - 1, -1, -max(1, math.ceil(num_rows / 7))))
        ax.set_yticks([row + 0.5 for row in shown], [str(wide[self.y.column][row]) for row in shown])
        ax.tick_params(axis="y", rotation=0)
        ax.invert_yaxis()
        ax.set_xlabel(self.x.label)
        ax.set_ylabel(self.y.label)


@dataclass(frozen=True, kw_only=True)
class Points(Frame):
    """A point per row: a panel per value of `across`, colour and marker by arm.

    Attributes:
        x: The horizontal axis, with the column of the rows.
        y: The vertical axis, with the column of the rows.
        across: The facet that makes panels, with their titles.
        hollow: Whether a point is drawn hollow: an expression over the rows.
        add: Draws what else is in a panel.
        more: What else is in the legend.
        square: Whether panels are square.
        width: Panels side by side, where they wrap.
        height: Of a row of panels in inches.
    """

    x: Axis
    y: Axis
    across: tuple[str, Mapping[Any, str] | None] | None = None
    hollow: pl.Expr = field(default_factory=lambda: pl.lit(value=False))
    add: Callable[[View, Axes, Panel], None] | None = None
    more: Callable[[View], Mapping[str, Look]] | None = None
    square: bool = False
    width: int = 3
    height: float = 2.3

    def drawn(self, view: View) -> Figure:
        rows = view.rows.filter(pl.col("arm").is_in(view.shown)).with_columns(hollow=self.hollow)
        panels = _Panels(self, view, rows)
        figure, axes = panels.canvas()
        for ax, panel in panels.each(axes):
            for arm, mine in (rows.filter(**panel) if panel else rows).group_by("arm", maintain_order=True):
                look = view.looks[str(arm[0])]
                faces = [("none", mine.filter("hollow")), (look.colour, mine.filter(~pl.col("hollow")))]
                for face, part in faces:
                    style: dict[str, Any] = {"marker": look.marker, "s": 18, "linewidth": 0.9, "alpha": 0.7}
                    ax.scatter(
                        part[self.x.column], part[self.y.column], edgecolors=look.colour, facecolors=face, **style
                    )
            if self.add is not None:
                self.add(view, ax, panel)
            if self.square:
                ax.set_box_aspect(1)
            _scale(ax, "x", self.x, rows[self.x.column])
            _scale(ax, "y", self.y, rows[self.y.column])
        panels.finish(figure, axes, lambda _: self.y)
        looks = {name_of(arm): Look(view.looks[arm].colour, "none", view.looks[arm].marker) for arm in view.shown}
        by_arm = {} if self.across and self.across[0] == "arm" else looks
        legend = (by_arm if len(by_arm) > 1 else {}) | dict(self.more(view) if self.more else {})
        if legend:
            legend_below(figure, [handle_of(look) for look in legend.values()], list(legend))
        return figure


@dataclass(frozen=True, kw_only=True)
class Pictures(Frame):
    """What is drawn by hand: attention maps, images, text.

    Attributes:
        picture: From a view to the figure.
    """

    picture: Callable[[View], Figure]

    def drawn(self, view: View) -> Figure:
        return self.picture(view)


class _Panels:
    """The panels of a figure: which there are, where they stand, and what is written round them."""

    def __init__(self, frame: Any, view: View, rows: pl.DataFrame) -> None:
        self.frame, self.view = frame, view
        down = _values(getattr(frame, "down", None), view, rows)
        across = _values(frame.across, view, rows)
        self.grid = [[{**below, **beside} for beside in across] for below in down]
        if len(down) == 1 and len(across) > getattr(frame, "width", len(across)):
            width = 2 if len(across) == 4 else frame.width  # type: ignore[unreachable]
            self.grid = [self.grid[0][start : start + width] for start in range(0, len(across), width)]

    def canvas(self, height: float | None = None) -> tuple[Figure, np.ndarray[Any, Any]]:
        num_rows, num_columns = len(self.grid), len(self.grid[0])
        share: dict[str, Any] = {"sharex": True, "sharey": True}
        if getattr(self.frame, "down", None):
            share["sharey"] = "row"
        total = height if height is not None else 0.8 + self.frame.height * num_rows
        return canvas(self.view.title, num_rows, num_columns, total, **share)

    def each(self, axes: np.ndarray[Any, Any]) -> list[tuple[Axes, Panel]]:
        """Return the axes with their panels; the others are hidden."""
        found = []
        for row, panels in zip(axes, self.grid, strict=True):
            for ax, panel in zip(row, panels, strict=False):
                ax.set_title(self._title(panel))
                found.append((ax, panel))
            for ax in row[len(panels) :]:
                ax.set_visible(False)
        return found

    def finish(self, figure: Figure, axes: np.ndarray[Any, Any], y: Callable[[Panel], Axis]) -> None:
        """Write the labels at the outer edges, and a letter at every panel."""
        shown = self.each(axes)
        for ax, panel in shown:
            ax.set_xlabel(self.frame.x.label)
            ax.set_ylabel(y(panel).label)
            ax.label_outer()
        if len(shown) > 1:
            label_panels([ax for ax, _ in shown])

    def _title(self, panel: Panel) -> str:
        parts = []
        for facet in (getattr(self.frame, "down", None), self.frame.across):
            if facet is not None:
                name, titles = facet
                value = panel[name]
                parts.append(titles[value] if titles is not None else name_of(str(value)))
        return textwrap.fill(", ".join(part for part in parts if part), max(14, 78 // len(self.grid[0])))


def _values(facet: tuple[str, Mapping[Any, str] | None] | None, view: View, rows: pl.DataFrame) -> list[Panel]:
    """Return the values of a facet in order: as its titles name them, or as the arms, or as they come."""
    if facet is None:
        return [{}]
    name, titles = facet
    known = rows[name].unique(maintain_order=True).to_list()
    order = view.shown if name == "arm" else list(titles) if titles is not None else known
    return [{name: value} for value in order if value in known or name == "stage"]


def _scale(ax: Axes, which: Literal["x", "y"], axis: Axis, values: pl.Series) -> None:
    """Scale, limit and tick an axis."""
    chosen = getattr(ax, f"set_{which}scale"), getattr(ax, f"set_{which}lim")
    if axis.scale in {"log", "lengths"}:
        chosen[0]("log")
    low, high = axis.limits
    if axis.max_decades is not None:
        low, high = _padded(*_reach(values, axis.max_decades))
    if low is not None or high is not None:
        chosen[1](low, high)
    if axis.scale == "decades":
        decades(ax, which)
    elif axis.scale == "log":
        log_ticks(ax, which)
    elif axis.scale == "steps":
        step_ticks(ax, int(values.max() or 1))  # type: ignore[arg-type]
    elif axis.scale == "lengths":
        lengths = values.unique().sort().to_list()
        getattr(ax, f"{which}axis").set_minor_locator(_NO_TICKS())
        getattr(ax, f"set_{which}ticks")(kept := with_room(lengths, 0.12), [f"{length:g}" for length in kept])


def _NO_TICKS() -> Any:  # noqa: N802
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _reach(values: pl.Series, max_decades: float | None) -> tuple[float, float]:
    finite = values.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return -1.0, 0.0
    high = float(finite.max())
    return max(float(finite.min()), high - (max_decades or math.inf)), high


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.08 * max(high - low, 0.5)
    return low - margin, high + margin


def _dodge(x: np.ndarray[Any, Any], place: int, num_lines: int) -> float:
    """Return the factor that moves a line beside the others on a logarithmic axis."""
    known = np.unique(x)
    gap = float(np.diff(np.log10(known)).min()) if len(known) > 1 else 0.1
    return float(10 ** (min(0.045, gap / (2 * num_lines)) * (place - (num_lines - 1) / 2)))


def _reference(ax: Axes, at: float, name: str, *, horizontal: bool) -> None:
    """Draw a line across the panel; with a name dashed, without one thin."""
    style: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 0.9} if name else {"linewidth": 0.6}
    (ax.axhline if horizontal else ax.axvline)(at, color=INK, **style)
    if name:
        place = ((1, at), ("axes fraction", "data")) if horizontal else ((at, 1), ("data", "axes fraction"))
        ha = "right" if horizontal else "center"
        ax.annotate(
            name, place[0], xycoords=place[1], xytext=(0, 2), textcoords="offset points", ha=ha, va="bottom", fontsize=7
        )


def listed(view: View, means: pl.DataFrame, *, digits: int = 2, scale: float = 1.0) -> str:
    """Return «LSTM 0.91 [0.88, 0.94]; GRU …» of the rows of a summary by arm that have a mean."""
    from pipeline.quantities.words import interval

    rows = means.drop_nulls("mean").sort(view.grid.rank(), maintain_order=True).iter_rows(named=True)
    return "; ".join(f"{name_of(row['arm'])} {interval(row, digits, scale=scale)}" for row in rows)


__all__ = [
    "Axis",
    "Dots",
    "Frame",
    "HeatMaps",
    "Lines",
    "Panel",
    "Pictures",
    "Points",
    "STAGE_TITLES",
    "View",
    "capitalised",
    "listed",
]
