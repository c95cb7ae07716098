"""One look for all figures: 6.5 inches wide, and told apart by colour, dashes and marker, also in grey.

Figures are plain `matplotlib.figure.Figure` objects: no pyplot, no backend, no global state. A function that draws is
`styled`; what it draws is saved by `to_svg` and `to_png`, which give identical bytes for identical figures.
"""

from __future__ import annotations

import functools
import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)
from PIL import Image

P = ParamSpec("P")

WIDTH = 6.5
PNG_DPI, SCREEN_DPI = 150, 110
DOTTED = (0, (1, 1.5))
INK, FAINT = "#22282e", "#8a929a"

_RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#5b636b",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "ytick.color": INK,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "text.color": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "gradient-dynamics",
}


@dataclass(frozen=True)
class Look:
    """How a series is drawn; each of the three tells it apart on its own."""

    colour: str
    dashes: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a line."""
        return {"color": self.colour, "linestyle": self.dashes}


LOOKS = {
    "elman": Look("#d1580b", "solid", "o"),
    "lstm": Look("#12416e", (0, (6, 1.5)), "^"),
    "lstm c": Look("#12416e", (0, (1, 1.2)), "D"),
    "gru": Look("#58bab0", (0, (6, 1.5, 1, 1.5)), "s"),
    "elman_relu": Look("#93308a", (0, (4, 1)), "v"),
    "elman_leaky_relu": Look("#c79a2b", (0, (2, 1)), "P"),
}
"""A cell has one look in every figure; their lightness differs too, so that they survive a grey print."""

_SPARE = (
    Look("#4c2a85", "solid", "X"),
    Look("#c2456d", (0, (5, 1)), "p"),
    Look("#6b8f2a", (0, (3, 1, 1, 1)), "h"),
    Look("#6f6f6f", (0, (1, 1)), "<"),
    Look("#b9770e", (0, (8, 2)), ">"),
    Look("#2e6fb7", (0, (2, 2)), "d"),
    Look("#0b7a6b", (0, (6, 1, 1, 1, 1, 1)), "*"),
    Look("#8cc0e8", (0, (12, 2)), "8"),
    Look("#7a3b12", (0, (3, 3)), "^"),
    Look("#e39ac0", (0, (8, 1, 3, 1)), "v"),
    Look("#1d1d1d", (0, (1, 2.5)), "s"),
    Look("#cdb42b", (0, (4, 1, 1, 1, 1, 1, 1, 1)), "o"),
)
"""Looks of what is no cell: twelve of them can be told apart."""

GATE_LOOKS = {
    gate: Look(colour, dashes, marker)
    for gates, colour, dashes, marker in (
        ("hgn", "#d1580b", "solid", "o"),
        ("ir", "#58bab0", (0, (6, 1.5)), "s"),
        ("fz", "#12416e", (0, (6, 1.5, 1, 1.5)), "^"),
        ("o", "#93308a", (0, (1, 1.2)), "D"),
    )
    for gate in gates
}
"""The tanh block of each cell (h, g, n) looks alike, so that cells can be compared."""


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """Return a look for each name: a cell's own, or the next spare one."""
    strangers = [name for name in names if name not in LOOKS]
    spare = {name: _SPARE[i % len(_SPARE)] for i, name in enumerate(strangers)}
    return {name: LOOKS.get(name) or spare[name] for name in names}


def state_looks(arms: Sequence[str]) -> dict[tuple[str, str], Look]:
    """Return a look for each arm's h and c: a cell state has its arm's colour, and dashes and marker of its own."""
    looks = looks_of(arms)
    cell_states = {arm: LOOKS.get(f"{arm} c") or Look(look.colour, (0, (1, 1.2)), "D") for arm, look in looks.items()}
    return {(arm, "h"): look for arm, look in looks.items()} | {(arm, "c"): cell_states[arm] for arm in arms}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return `draw` under the project's look, whatever rc parameters the caller has."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(sns.axes_style("ticks") | sns.plotting_context("paper") | _RC):
            return draw(*args, **kwargs)

    return wrapped


class Drawing(Figure):
    """A figure that a notebook shows as it is saved; without pyplot it would show its address only."""

    def _repr_png_(self) -> bytes:
        return to_png(self, dpi=SCREEN_DPI)


def canvas(
    title: str, num_rows: int, num_columns: int, height: float, **kwargs: Any
) -> tuple[Figure, np.ndarray[Any, Any]]:
    """Return a figure of the common width with its finding as title, and its axes (rows, columns)."""
    figure = Drawing(figsize=(WIDTH, height), layout="constrained")
    _write_title(figure, title)
    axes = figure.subplots(num_rows, num_columns, squeeze=False, **kwargs)
    return figure, axes


def _write_title(figure: Figure, title: str) -> None:
    """Write the title in lines that end where the figure does; a longer word is a line of its own."""
    lines, written = list[str](), figure.suptitle("", x=0.008, ha="left", fontsize=9, fontweight="bold")
    for word in title.split():
        longer = f"{lines[-1]} {word}" if lines else word
        written.set_text(longer)
        if lines and written.get_window_extent().x1 <= 0.985 * figure.bbox.x1:
            lines[-1] = longer
        else:
            lines.append(word)
    written.set_text("\n".join(lines))


def legend_below(figure: Figure, looks: Mapping[str, Look]) -> None:
    """Put a legend of labels and looks below the panels and make the figure taller by it.

    It has at most four columns, fewer of long labels.
    """
    wrapped = [textwrap.fill(label, _LABEL) for label in looks]
    num_columns = _legend_columns(wrapped)
    rows = [wrapped[start::num_columns] for start in range(num_columns)]  # matplotlib fills column by column
    lines = max((sum(1 + label.count("\n") for label in column) for column in rows), default=0)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.155 * lines)
    handles = [Line2D([], [], **look.line, marker=look.marker) for look in looks.values()]
    figure.legend(handles, wrapped, loc="outside lower center", ncols=num_columns, columnspacing=1.5)


_LABEL = 52
"""Letters of a line of a legend."""


def _legend_columns(labels: Sequence[str]) -> int:
    lengths = [max(map(len, label.split("\n"))) for label in labels]
    if len(labels) <= 5 and sum(0.75 + 0.057 * length for length in lengths) < WIDTH:
        return max(1, len(labels))
    longest = max(lengths, default=1)
    return max(1, min(4, len(labels), int((WIDTH - 0.1) / (0.62 + 0.057 * longest))))


def label_panels(axes: Sequence[Axes]) -> None:
    """Put a, b, c … in front of the titles of several panels."""
    if len(axes) < 2:
        return
    for letter, ax in zip("abcdefghijkl", axes, strict=False):
        ax.set_title(f"{letter}  {ax.get_title(loc='left')}".rstrip(), loc="left")


class _Decades(MaxNLocator):
    """Ticks of log10 values: whole powers of ten; 1, 2 and 5 times them where the axis has fewer than two."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return where ticks stand between two values."""
        if vmax - vmin > 2.0:
            return super().tick_values(vmin, vmax)
        powers = range(math.floor(vmin), math.ceil(vmax))
        ticks = [power + math.log10(factor) for power in powers for factor in (1, 2, 5)]
        return np.array(ticks) if vmax - vmin > 0.3 else MaxNLocator(4).tick_values(vmin, vmax)


def decades(ax: Axes, axis: str = "y") -> None:
    """Show the values of an axis, which are log10, as powers of ten; over less than three decades as plain numbers."""
    chosen = getattr(ax, f"{axis}axis")
    chosen.set_major_locator(_Decades(nbins=7, integer=True))

    def text(exponent: float, _: int | None) -> str:
        low, high = sorted(chosen.get_view_interval())
        return f"{10.0**exponent:.2g}" if high - low < 3 and low > -4 else _power(exponent)

    chosen.set_major_formatter(FuncFormatter(text))


def _power(exponent: float) -> str:
    whole = abs(exponent - round(exponent)) < 1e-9
    return f"$10^{{{round(exponent)}}}$" if whole else f"{10.0**exponent:.2g}"


def log_ticks(ax: Axes, axis: str) -> None:
    """Label a logarithmic axis: powers of ten, 2 and 5 times them where there is room, evenly in a small range."""
    chosen = getattr(ax, f"{axis}axis")
    low, high = getattr(ax, f"get_{axis}lim")()
    wide = high / low
    few = low > 0 and math.floor(math.log10(high)) - math.ceil(math.log10(low)) < 1  # fewer than two powers of ten
    powers = LogLocator(subs=(1.0, 2.0, 5.0) if wide < 30 or few else (1.0,))
    chosen.set_major_locator(powers if wide > 3 else MaxNLocator(4))
    chosen.set_minor_locator(NullLocator())
    plain = StrMethodFormatter("{x:g}")
    chosen.set_major_formatter(plain if wide < 1e4 else LogFormatterMathtext())


def step_ticks(ax: Axes, last: int) -> None:
    """Scale the horizontal axis logarithmically from training step 0 on: 0, 1, 10, 100, ..."""
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, *(10**power for power in range(7) if 10**power <= last)])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(-0.15, last * 1.3)


def with_room(lengths: Sequence[int], room: float) -> list[int]:
    """Return the lengths whose labels have room on a logarithmic axis, shortest first, the longest among them.

    Args:
        lengths: Shortest first, at least one.
        room: What a label takes, as a share of the axis from the shortest to the longest.
    """
    kept: list[int] = []
    least = room * np.log(lengths[-1] / lengths[0])
    for length in reversed(lengths):
        if not kept or np.log(kept[-1] / length) >= least:
            kept.append(length)
    return kept[::-1]


def to_svg_and_png(figure: Figure) -> tuple[bytes, bytes]:
    """Return the figure in both formats; it is laid out once, which takes longer than drawing it."""
    svg = to_svg(figure)
    figure.set_layout_engine("none")
    return svg, to_png(figure)


def to_svg(figure: Figure) -> bytes:
    """Return the figure as SVG, the same bytes for the same figure."""
    return _saved(figure, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def to_png(figure: Figure, dpi: int = PNG_DPI) -> bytes:
    """Return the figure as PNG, the same bytes for the same figure."""
    return _saved(figure, format="png", dpi=dpi, metadata={"Software": None})


def to_small_png(figure: Figure, dpi: int) -> bytes:
    """Return the figure as PNG of 256 colours, a third of the bytes: for what Git is to hold."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(to_png(figure, dpi))) as whole:
        whole.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


NUM_COLOURS = 256


def _saved(figure: Figure, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, **kwargs)
    return buffer.getvalue()
