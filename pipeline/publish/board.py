"""What the W&B Report and the saved view show, as plain data: sections of panels over metrics that runs log.

A panel is made only of what a run of its study was seen to log: `views.py` says what that is, and this module looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from pipeline.config import Paths
from pipeline.publish.media import Chart, Maps
from pipeline.publish.views import RunView, short, views_of
from pipeline.quantities.selection import evenly
from pipeline.quantities.settings import OF_METRIC
from pipeline.quantities.words import interval
from pipeline.results import read_table

TITLE = "Gradient dynamics"
"""Of the one Report and the one saved view of a project: by it they are found again."""

MAX_LOOKED = 12
"""Settings of a study whose runs are looked at, evenly over the plan: they say which metrics there are."""

MAX_LINES, MAX_SCATTERS, MAX_FIGURES = 15, 6, 24
"""Panels of a kind in one section."""

MAX_APART, MAX_TOGETHER = 3, 10
"""Charts of one metric have a panel each up to so many; more of them share one, up to so many lines."""

EFFECTS = ("test_loss", "decay_factor_h/end", "decay_factor_c/end", "test_error", "solved_share")
"""Numbers of the summary that are drawn by setting, and against the numbers that settings differ in."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Metrics over training steps: a mean with the ends of its interval, or means of several."""

    title: str
    metrics: tuple[str, ...]
    log: bool


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """A number of the summary of each run against a field of its spec."""

    title: str
    field: str
    summary: str
    log_x: bool
    log_y: bool


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A number of the summary of each run, a bar per setting."""

    title: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Media:
    """Pictures: of each logged step, or once."""

    title: str
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """A chart that was logged as a table per step, with a slider over steps."""

    title: str
    key: str
    x: str
    y: str
    stroke: str


Kind = TypeVar("Kind", Chart, Maps)
Panel = Lines | Bars | Scatter | Media | Stepped


@dataclass(frozen=True, kw_only=True)
class Section:
    """One study.

    Attributes:
        group: Of its runs.
        panels: Over the runs of its settings.
        figures: Pictures that the run of the study itself has: the report's.
        artifacts: Type and name of what belongs to it.
    """

    study: str
    group: str
    question: str
    panels: tuple[Panel, ...]
    figures: Media | None
    artifacts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Board:
    """Everything: the ledger as Markdown, empty where no report was built, and a section per study."""

    ledger: str
    sections: tuple[Section, ...]


def board_of(paths: Paths, questions: Mapping[str, str]) -> Board:
    """Return the board of studies, from their result tables and the report's ledger.

    Args:
        paths: The project.
        questions: Of each study by name, in the order of their sections.

    Raises:
        TableError: If a study has no tables, or they do not have their columns.
    """
    sections = tuple(_section(paths, study, question) for study, question in questions.items())
    return Board(ledger=_ledger(paths), sections=sections)


def _section(paths: Paths, study: str, question: str) -> Section:
    settings = read_table("settings", paths.results(study)).sort("position")
    views = list(views_of(paths, study, positions=evenly(settings.height, MAX_LOOKED)))
    trials, of_study = views[:-1], views[-1]
    figures = Media(title="The report's figures", keys=tuple(of_study.pictures)[:MAX_FIGURES])
    made = dict.fromkeys((files.type, files.name) for view in views for files in (*view.inputs, *view.artifacts))
    return Section(
        study=study,
        group=short(study),
        question=question,
        panels=(*_stepped(trials), *_lines(trials), *_effects(settings, trials), *_media(trials)),
        figures=figures if figures.keys else None,
        artifacts=tuple(files for files in made if files[0] in {"dataset", "result"}),
    )


def _lines(views: Sequence[RunView]) -> Iterator[Lines]:
    """Yield a panel per chart with its mean and interval, and one per metric of many charts with their means."""
    logged = dict.fromkeys(key for view in views for row in view.rows for key in row)
    charts: dict[str, list[str]] = {}
    for key in logged:
        if key.endswith("/mean"):
            charts.setdefault(key.partition("/")[0], []).append(key.removesuffix("/mean"))
    order = [metric for metric in (*OF_METRIC, *sorted(charts.keys() - OF_METRIC.keys())) if metric in charts]
    panels = []
    for metric in order:
        mine, words = sorted(charts[metric], key=lambda chart: ("validation" not in chart, chart)), _words(metric)
        log = metric in OF_METRIC and OF_METRIC[metric].scale == "log10"
        if len(mine) > MAX_TOGETHER:
            few = tuple(f"{chart}/mean" for chart in mine[:MAX_TOGETHER])
            title = f"{words}, {len(few)} of {len(mine)} charts, means over seeds"
            panels.append(Lines(title=title, metrics=few, log=log))
        elif len(mine) > MAX_APART:
            means = tuple(f"{chart}/mean" for chart in mine)
            panels.append(Lines(title=f"{words}, means over seeds", metrics=means, log=log))
        else:
            for chart in mine:
                metrics = tuple(f"{chart}/{end}" for end in ("mean", "low", "high") if f"{chart}/{end}" in logged)
                band = " with 95 % interval" if len(metrics) > 1 else ""
                panels.append(Lines(title=f"{_words(chart)}, mean over seeds{band}", metrics=metrics, log=log))
    yield from panels[:MAX_LINES]


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", ", ")


def _effects(settings: pl.DataFrame, views: Sequence[RunView]) -> Iterator[Bars | Scatter]:
    """Yield the first effects by setting, and effects against the numbers that settings differ in."""
    summaries = {key for view in views for key in view.summary}
    for effect in [effect for effect in EFFECTS if f"{effect}/mean" in summaries][:2]:
        yield Bars(title=f"{_words(effect)} by setting", summary=f"{effect}/mean")
    numbers = [name for name in settings.columns if "." in name and settings[name].dtype.is_numeric()]
    pairs = [
        (field, effect)
        for effect in EFFECTS
        if f"{effect}/mean" in summaries
        for field in numbers
        if settings[field].drop_nulls().n_unique() > 1
    ]
    for field, effect in pairs[:MAX_SCATTERS]:
        values = settings[field].drop_nulls()
        low, high = (float(str(end)) for end in (values.min(), values.max()))
        is_log = 0 < 10 * low <= high
        words = f"{_words(effect)} against {_words(field.rpartition('.')[2])}"
        yield Scatter(title=words, field=field, summary=f"{effect}/mean", log_x=is_log, log_y=effect == "test_loss")


def _stepped(views: Sequence[RunView]) -> Iterator[Stepped]:
    for key, chart in _logged(views, Chart).items():
        yield Stepped(title=chart.title, key=key, x=chart.x, y=chart.y, stroke=chart.stroke)


def _media(views: Sequence[RunView]) -> Iterator[Media]:
    for key in (*_logged(views, Maps), *dict.fromkeys(key for view in views for key in view.pictures)):
        yield Media(title=_words(key), keys=(key,))


def _logged(views: Sequence[RunView], kind: type[Kind]) -> dict[str, Kind]:
    """Return the first medium of a kind by the name under which runs log it."""
    found: dict[str, Kind] = {}
    for view in views:
        for media in view.media.values():
            for key, medium in media.items():
                if isinstance(medium, kind):
                    found.setdefault(key, medium)
    return found


def _ledger(paths: Paths) -> str:
    """Return a row per claim in Markdown."""
    path = paths.reports / "tables" / "claims.csv"
    if not path.is_file():
        return ""
    lines = ["| verdict | claim | statement | effect | seeds | study |", "| --- | --- | --- | --- | --- | --- |"]
    for row in pl.read_csv(path).iter_rows(named=True):
        effect = interval({"mean": row["effect"], "low": row["low"], "high": row["high"]}, 3)
        cells = (
            f"{row['mark']} {row['verdict']}",
            row["claim"],
            row["statement"],
            effect,
            row["num_seeds"],
            row["study"],
        )
        lines.append("| " + " | ".join(re.sub(r"\s+", " ", str(cell)).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)
