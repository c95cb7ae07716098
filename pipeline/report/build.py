"""From result tables to reports/: the page, its figures, tables, plots and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.claims.judge import judge, load_rules
from pipeline.config import Paths, Study
from pipeline.figures.catalogue import Drawing, drawings_of
from pipeline.figures.style import to_svg_and_png
from pipeline.quantities import GridTables, grids_of
from pipeline.report.files import write_files
from pipeline.report.metrics import metrics, plot_tables, to_json
from pipeline.report.page import ShownFigure, ShownGrid, ShownStudy, inline, render, settings_table, told
from pipeline.report.provenance import provenance, trial_ids
from pipeline.report.summary import failures, settings_summary
from pipeline.results import SCHEMAS, read_table

_HERO = "gradient_by_lag"
_FINDINGS = ("loss_by_length", "error_by_cell", "outcome_by_arm")
_MAX_FINDINGS = 2


def build_report(paths: Paths, studies: Mapping[str, Study], scale: str) -> Path:
    """Write the report of `studies` below reports/ and return the path of its page.

    The same tables give the same bytes. Figures and tables of earlier reports that are not part of this one are
    removed.

    Args:
        paths: Where results are and the report goes.
        studies: The studies to report by name, each with result tables.
        scale: Name of the scale that they ran at.

    Raises:
        PipelineError: If a table is missing or wrong, a claim has no rule, or a file cannot be written.
    """
    rules = load_rules(paths, studies)
    grids = [tables for name, study in studies.items() for tables in _grids(paths, name, study)]
    summaries = [settings_summary(tables) for tables in grids]
    verdicts, checks = judge(rules, grids)
    files: dict[str, bytes] = {}
    shown: list[tuple[GridTables, ShownGrid]] = []
    for tables, summary in zip(grids, summaries, strict=True):
        header, rows = settings_table(tables, summary)
        wanted = studies[tables.study].grids[tables.grid].figures
        figures = [_draw(drawing, files) for drawing in drawings_of(tables, wanted)]
        bad = [told(row) for row in failures(tables).iter_rows(named=True)]
        shown.append((tables, ShownGrid(tables.grid, tables.dataset, header, rows, figures, bad)))
    summary = pl.concat(summaries, how="diagonal")
    csv = {"tables/settings": summary, "tables/claims": verdicts, "tables/claim_checks": checks}
    csv |= {f"plots/{name}": frame for name, frame in plot_tables(grids).items()}
    files |= {f"{name}.csv": frame.write_csv().encode() for name, frame in csv.items()}
    files["metrics.json"] = to_json(metrics(grids, summary, verdicts))
    context = _findings([grid for _, grid in shown])
    context |= {
        "scale": scale,
        "studies": _shown_studies(studies, shown, context["hero"]),
        "claims": _with_checks(verdicts, checks),
    }
    context |= {"provenance": provenance(scale, grids), "trial_ids": trial_ids(grids)}
    files["index.html"] = render(context)
    write_files(paths.reports, files)
    return paths.reports / "index.html"


def _grids(paths: Paths, name: str, study: Study) -> list[GridTables]:
    tables = {table: read_table(table, paths.results(name)) for table in SCHEMAS}
    return grids_of(name, tables, study.select.over if study.select else ())


def _draw(drawing: Drawing, files: dict[str, bytes]) -> ShownFigure:
    """Draw a figure, add its two files to `files`, and return it for the page."""
    svg, png = to_svg_and_png(drawing.draw())
    files |= {f"figures/{drawing.name}.svg": svg, f"figures/{drawing.name}.png": png}
    anchor = drawing.name.replace("_", "-")
    return ShownFigure(anchor, drawing.kind, drawing.title, drawing.caption, inline(svg, anchor, drawing.title))


def _findings(grids: Sequence[ShownGrid]) -> dict[str, Any]:
    """Return what the page opens with: the first gradient figure's finding, and those about what was learnt."""
    figures = [(grid, figure) for grid in grids for figure in grid.figures]
    hero = next((figure for _, figure in figures if figure.kind == _HERO), None)
    others = [f"On {grid.dataset}: {figure.title}." for grid, figure in figures if figure.kind in _FINDINGS]
    headline = hero.title if hero else "No gradient was traced yet"
    return {"hero": hero, "headline": f"{headline}.", "findings": others[:_MAX_FINDINGS]}


def _shown_studies(
    studies: Mapping[str, Study], shown: Sequence[tuple[GridTables, ShownGrid]], hero: ShownFigure | None
) -> list[ShownStudy]:
    """Return the studies of the page; the hero figure stands at its top and is not repeated."""
    found: dict[str, list[ShownGrid]] = {name: [] for name in studies}
    for tables, grid in shown:
        rest = [figure for figure in grid.figures if figure is not hero]
        found[tables.study].append(dataclasses.replace(grid, figures=rest))
    return [ShownStudy(name, studies[name].question, grids) for name, grids in found.items()]


def _with_checks(verdicts: pl.DataFrame, checks: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        row | {"checks": checks.filter(pl.col("claim") == row["claim"]).to_dicts()}
        for row in verdicts.iter_rows(named=True)
    ]
