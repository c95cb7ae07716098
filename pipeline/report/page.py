"""The page: one self-contained HTML file from what the rest of the report computed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from pipeline.figures.decoders import decodes
from pipeline.figures.stages import compares_cells
from pipeline.figures.words import name_of, number
from pipeline.quantities import GridTables
from pipeline.quantities.solved import has_criterion

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ShownFigure:
    """A figure on the page: its anchor, finding, caption and SVG."""

    anchor: str
    kind: str
    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class ShownGrid:
    """A grid on the page: the table of its selected settings, its figures and what went wrong."""

    name: str
    dataset: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[ShownFigure]
    failures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ShownStudy:
    """A study on the page."""

    name: str
    question: str
    grids: Sequence[ShownGrid]


def render(context: Mapping[str, Any]) -> bytes:
    """Return index.html; a name that the template asks for and the context lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "arm": name_of}
    styles = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return environment.get_template("page.html.jinja").render(**context, styles=styles).encode()


def inline(svg: bytes, name: str, title: str) -> Markup:
    """Return an SVG to be put into a page among others: without its prolog, its ids made unique by `name`."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    label = Markup.escape(title)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))  # noqa: S704 - drawn by us


def interval(value: float | None, low: float | None, high: float | None, percent: bool = False) -> str:
    """Return «0.0081 [0.0070, 0.0094]», the value alone where there is no interval, «n/a» where there is none.

    Digits are those that the interval's half-width gives meaning to: two of its own.
    """
    if value is None:
        return "n/a"
    scale, unit = (100.0, " %") if percent else (1.0, "")
    if low is None or high is None:
        return f"{number(scale * value)}{unit}"
    half = scale * (high - low) / 2
    if half == 0 or not 1e-7 < half < math.inf:
        return f"{number(scale * value)}{unit} [{number(scale * low)}, {number(scale * high)}]"
    places = max(0, 1 - math.floor(math.log10(half)))
    return f"{scale * value:.{places}f}{unit} [{scale * low:.{places}f}, {scale * high:.{places}f}]"


def settings_table(tables: GridTables, summary: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table of selected settings; the first of them says the arm, or the cell."""
    axes = [column for column in summary.columns if "." in column and summary[column].is_not_null().any()]
    classify, criterion = summary["test_error"].is_not_null().any(), has_criterion(tables.runs)
    header = ["cell" if compares_cells(tables) else "arm", "T"]
    header += [axis.rpartition(".")[2].replace("_", " ") for axis in axes]
    header += ["seeds ok", "test loss"]
    header += ["wrong sequences" if decodes(tables) else "test error"] * classify
    header += ["reached criterion", "median step"] * criterion
    header += ["ms per step", "gradient check error"]
    rows = []
    for row in summary.filter("selected").iter_rows(named=True):
        cells = [name_of(row["arm"]), str(row["length"]), *(_text(row[axis]) for axis in axes)]
        cells += [f"{row['num_ok']} of {row['num_seeds']}", _interval_of(row, "test_loss")]
        cells += [_interval_of(row, "test_error", percent=True)] * classify
        if criterion:
            cells += [_interval_of(row, "solved_share", percent=True)]
            cells += [_never(row) if row["criterion_step"] is None else f"{row['criterion_step']:.0f}"]
        milliseconds = None if row["step_time_s"] is None else 1000 * row["step_time_s"]
        rows.append([*cells, number(milliseconds, 2), number(row["gradient_check_error"], 2)])
    return header, rows


def told(failure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `failures` as the page says it."""
    places = (("step", "diverged_step"), ("timestep", "diverged_timestep"), ("in", "diverged_quantity"))
    where = ", ".join(f"{word} {failure[key]}" for word, key in places if failure[key] is not None)
    first, _, rest = (failure["status_message"] or "no message").partition("\n")
    return {
        "label": failure["label"],
        "seeds": ", ".join(str(seed) for seed in failure["seed"]),
        "status": failure["status"].replace("_", " "),
        "where": where or "unknown",
        "message": first,
        "details": rest,
        "selected": failure["selected"],
    }


def _interval_of(row: Mapping[str, Any], name: str, *, percent: bool = False) -> str:
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"], percent)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "n/a" if value is None else str(value)


def _never(row: Mapping[str, Any]) -> str:
    return "n/a" if row["solved_share"] is None else "not reached"
