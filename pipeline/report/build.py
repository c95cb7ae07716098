"""From result tables to reports/: the site and its figures, the README and its pictures, tables, plots and metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pipeline.claims import judge, load_rules
from pipeline.config import Paths, Study, write_whole
from pipeline.errors import PipelineError
from pipeline.figures.catalogue import figures_of
from pipeline.figures.style import to_png, to_svg_and_png
from pipeline.quantities import Grid, grids_of
from pipeline.quantities.settings import settings_table
from pipeline.report.page import ShownFigure, ShownGrid, ShownStudy, content, render, shown_failure, shown_settings
from pipeline.report.tables import failures, metrics, plot_tables, provenance
from pipeline.results import SCHEMAS, read_table

OWNED = {"site": (".html", ".svg", ".png"), "pictures": (".png",), "tables": (".csv",), "plots": (".csv",)}
"""The folders below reports/ that are the report's own, and the kinds of file that it removes from them."""

PICTURE_DPI = 100
"""Of the pictures in the README: smaller than the site's."""


class ReportError(PipelineError):
    """The report cannot be written; the message names the file."""


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
    grids = {name: _grids(paths, name, study) for name, study in studies.items()}
    every = [grid for mine in grids.values() for grid in mine]
    verdicts, checks = judge(rules, every)
    files: dict[str, bytes] = {}
    shown = [
        ShownStudy(
            name=name,
            question=study.question,
            grids=[_shown(paths, grid, study.grids[grid.name].figures, files) for grid in grids[name]],
        )
        for name, study in studies.items()
    ]
    every_setting = pl.concat([settings_table(grid) for grid in every], how="diagonal")
    csv = {"tables/settings": every_setting, "tables/claims": verdicts, "tables/claim_checks": checks}
    csv |= {f"plots/{name}": frame for name, frame in plot_tables(every).items()}
    files |= {f"{name}.csv": frame.write_csv().encode() for name, frame in csv.items()}
    files["metrics.json"] = metrics(every, verdicts)
    trial_ids = every_setting.select("label", "trial_id").rows()
    facts = {"provenance": provenance(scale, every), "trial_ids": trial_ids}
    context = content(scale, shown, verdicts, checks, facts)
    files["site/index.html"] = render("page.html.jinja", context)
    files["README.md"] = render("readme.md.jinja", context)
    write_files(paths.reports, files)
    return paths.reports / "site" / "index.html"


def _grids(paths: Paths, name: str, study: Study) -> list[Grid]:
    tables = {table: read_table(table, paths.results(name)) for table in SCHEMAS}
    return grids_of(name, tables, study.select.over if study.select else ())


def _shown(paths: Paths, grid: Grid, wanted: tuple[str, ...] | None, files: dict[str, bytes]) -> ShownGrid:
    """Return a grid for the page; the files of its figures are added to `files`."""
    header, rows = shown_settings(grid, settings_table(grid))
    figures = []
    for frame in figures_of(grid, wanted):
        view, path = frame.view(grid), f"figures/{grid.study}/{grid.name}/{frame.name}"
        drawn = frame.draw(grid)
        svg, png = to_svg_and_png(drawn)
        files |= {f"site/{path}.svg": svg, f"site/{path}.png": png}
        if f"pictures/{grid.study}.png" not in files:  # the first figure of a study stands for it in the README
            files[f"pictures/{grid.study}.png"] = to_png(drawn, dpi=PICTURE_DPI)
        figures.append(ShownFigure(kind=frame.name, path=path, title=view.title, caption=view.caption))
    bad = [shown_failure(row) for row in failures(grid).iter_rows(named=True)]
    remarks = _remarks(paths, grid.dataset)
    return ShownGrid(grid=grid, remarks=remarks, header=header, rows=rows, figures=figures, failures=bad)


def _remarks(paths: Paths, dataset: str) -> Sequence[str]:
    """Return the remarks on a prepared dataset; none where tables were brought without what they were made from.

    Raises:
        ReportError: If the digest of the dataset is not one.
    """
    path = paths.dataset_digest(dataset)
    if not path.is_file():
        return ()
    try:
        remarks: Sequence[str] = json.loads(path.read_text(encoding="utf-8"))["remarks"]
    except (ValueError, KeyError, TypeError) as error:
        again = f"`dvc repro prepare@{dataset}` makes it anew"
        raise ReportError(f"{path}: not the digest of a dataset ({error!r}); {again}") from None
    return remarks


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` below `folder` by relative name, then remove the report's earlier files that are not among them.

    Raises:
        ReportError: If a file cannot be written.
    """
    for name, written in files.items():
        write_whole(folder / name, written, ReportError)
    for part, kinds in OWNED.items():
        for path in sorted((folder / part).rglob("*"), reverse=True):
            if path.suffix in kinds and path.relative_to(folder).as_posix() not in files:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
