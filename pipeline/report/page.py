"""What people read: the page of the site and reports/README.md, from the same content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from pipeline.claims import VERDICTS, chance
from pipeline.quantities import Grid
from pipeline.quantities.decoding import decodes
from pipeline.quantities.outcomes import compares_cells, has_criterion
from pipeline.quantities.words import name_of, number

_HERE = Path(__file__).parent
_HERO = "gradient_by_lag"
_FINDINGS = ("loss_by_length", "error_by_cell", "outcome_by_arm")


@dataclass(frozen=True, kw_only=True)
class ShownFigure:
    """A figure of the report: where its files are, and its words.

    Attributes:
        path: Of its files below the site's folder, without the ending: «figures/cells/adding/gradient_by_lag».
    """

    kind: str
    path: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class ShownGrid:
    """A grid of the report: its selected settings, its figures and what did not end ok.

    Attributes:
        remarks: On the dataset: how many tokens are unknown, and what else of it is not as it was given.
    """

    grid: Grid
    remarks: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[ShownFigure]
    failures: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ShownStudy:
    """A study of the report."""

    name: str
    question: str
    grids: Sequence[ShownGrid]

    @property
    def answer(self) -> ShownFigure | None:
        """The figure that stands for the study: the first of its first grid that has any."""
        return next((figure for grid in self.grids for figure in grid.figures), None)


def content(
    scale: str, studies: Sequence[ShownStudy], verdicts: pl.DataFrame, checks: pl.DataFrame, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that the templates of the page and of the README name."""
    figures = [(grid.grid, figure) for study in studies for grid in study.grids for figure in grid.figures]
    hero = next((figure for _, figure in figures if figure.kind == _HERO), None)
    others = [f"On {grid.dataset}: {figure.title}." for grid, figure in figures if figure.kind in _FINDINGS]
    claims = [
        row | {"checks": checks.filter(pl.col("claim") == row["claim"]).to_dicts()}
        for row in verdicts.iter_rows(named=True)
    ]
    return {
        "scale": scale,
        "studies": studies,
        "hero": hero,
        "headline": f"{hero.title if hero else 'No gradient was traced yet'}.",
        "findings": others[:2],
        "failures": [(grid.grid.name, row) for study in studies for grid in study.grids for row in grid.failures],
        "claims": claims,
        "chance": chance(checks),
        "counts": {verdict: int((verdicts["verdict"] == verdict).sum()) for verdict in VERDICTS},
        **facts,
    }


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """Return a template of this folder filled in; a name that it asks for and the context lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": interval, "cell": _cell}
    styles = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return environment.get_template(template).render(**context, styles=styles).encode()


def interval(value: float | None, low: float | None, high: float | None, percent: bool = False) -> str:
    """Return «0.0081 [0.0070, 0.0094]», «0.13 (exact)» where both ends are the value, «n/a» where there is none.

    Without an interval the value stands alone.

    Digits are those that the interval's half-width gives meaning to: two of its own.
    """
    if value is None:
        return "n/a"
    scale, unit = (100.0, " %") if percent else (1.0, "")
    if low is None or high is None:
        return f"{number(scale * value)}{unit}"
    if low == high:
        return f"{number(scale * value)}{unit} (exact)"
    half = scale * (high - low) / 2
    if not 1e-7 < half < math.inf:
        return f"{number(scale * value)}{unit} [{number(scale * low)}, {number(scale * high)}]"
    places = max(0, 1 - math.floor(math.log10(half)))
    return f"{scale * value:.{places}f}{unit} [{scale * low:.{places}f}, {scale * high:.{places}f}]"


def shown_settings(grid: Grid, settings: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table of selected settings; the first column is the arm, or the cell."""
    axes = [column for column in settings.columns if "." in column and settings[column].is_not_null().any()]
    classify, criterion = settings["test_error"].is_not_null().any(), has_criterion(grid.runs)
    header = ["cell" if compares_cells(grid) else "arm", "T"]
    header += [axis.rpartition(".")[2].replace("_", " ") for axis in axes]
    header += ["seeds ok", "converged", "test loss"]
    header += ["wrong sequences" if decodes(grid) else "test error"] * classify
    header += ["reached criterion", "median step"] * criterion
    header += ["ms per step", "gradient check error"]
    rows = []
    for row in settings.filter("selected").iter_rows(named=True):
        cells = [name_of(row["arm"]), str(row["length"]), *(_text(row[axis]) for axis in axes)]
        cells += [f"{row[ended]} of {row['num_seeds']}" for ended in ("num_ok", "num_converged")]
        cells += [_interval_of(row, "test_loss")]
        cells += [_interval_of(row, "test_error", percent=True)] * classify
        if criterion:
            cells += [_interval_of(row, "solved_share", percent=True)]
            cells += [_never(row) if row["criterion_step"] is None else f"{row['criterion_step']:.0f}"]
        milliseconds = None if row["step_time_s"] is None else 1000 * row["step_time_s"]
        rows.append([*cells, number(milliseconds, 2), number(row["gradient_check_error"], 2)])
    return header, rows


def shown_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `failures` as the page shows it."""
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


def _cell(text: str) -> str:
    """Return text that may stand in a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ").replace("_", r"\_").replace("*", r"\*")
