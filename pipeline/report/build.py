"""From result tables to reports/: the site with figures and explorer, the README and its pictures, tables, metrics."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert

from pipeline.claims import judge, load_rules, trials_of
from pipeline.config import Paths, Study, write_whole
from pipeline.errors import PipelineError
from pipeline.figures.catalogue import figures_of
from pipeline.figures.style import to_small_png, to_svg_and_png
from pipeline.quantities import Grid, Tables, grids_of
from pipeline.quantities.settings import settings_table
from pipeline.report.explorer import Explored, explored, listing
from pipeline.report.page import ShownFigure, ShownGrid, ShownStudy, asset, content, render, shown_failure
from pipeline.report.tables import failures, headline, metrics, plot_tables, provenance, repetition, rounded
from pipeline.results import SCHEMAS, read_table
from pipeline.results.files import parquet_bytes

OWNED = {
    "site": (".html", ".svg", ".png", ".js", ".css", ".csv", ".parquet"),
    "pictures": (".png",),
    "tables": (".csv",),
    "plots": (".csv",),
}
"""The folders below reports/ that are the report's own, and the kinds of file that it removes from them."""

PICTURE_DPI = 100
"""Of the pictures in the README: smaller than the site's."""

MAX_WORKERS = 8
"""At most so many studies are drawn at once: each has its tables in memory."""

MAX_REMEMBERED = 1000
"""Of a grid with more settings nothing is kept from one figure to the next."""

ASSETS = ("page.css", "page.js", "explorer.js")

Drawn = tuple[dict[str, list[ShownFigure]], Explored, dict[str, bytes]]
"""The figures of a study by grid, what the explorer has of it, and the files of both."""


class ReportError(PipelineError):
    """The report cannot be written; the message names the file."""


def build_report(paths: Paths, studies: Mapping[str, Study], scale: str) -> Path:
    """Write the report of `studies` below reports/ and return the path of its first page.

    The same tables give the same bytes. Figures and tables of earlier reports that are not part of this one are
    removed. Several studies are drawn side by side, each in a process.

    Args:
        paths: Where results are and the report goes.
        studies: The studies to report by name, each with result tables.
        scale: Name of the scale that they ran at.

    Raises:
        PipelineError: If a table is missing or wrong, a claim has no rule, or a file cannot be written.
    """
    rules = load_rules(paths, studies)
    with _drawing(paths, studies) as drawing:
        grids = {name: _grids(paths, name, study)[0] for name, study in studies.items()}
        every = [grid for mine in grids.values() for grid in mine]
        verdicts, checks = judge(rules, every)
        behind = trials_of(rules, every)
        every_setting = pl.concat([settings_table(grid) for grid in every], how="diagonal")
        csv = {"settings": every_setting, "claims": verdicts, "claim_checks": checks, "claim_trials": behind}
        files = {f"tables/{name}.csv": rounded(frame).write_csv().encode() for name, frame in csv.items()}
        files |= {f"site/{name}": data for name, data in files.items()}  # the site goes where reports/tables does not
        plots = plot_tables(every, verdicts, checks)
        files |= {f"plots/{name}.csv": frame.write_csv().encode() for name, frame in plots.items()}
        files |= {"headline.json": headline(every, verdicts), "metrics.json": metrics(every, verdicts)}
        for grid in every:
            _forget_many(grid)
        drawn = drawing()
    shown = []
    for name, study in studies.items():
        figures, _, written = drawn[name]
        files |= written
        parts = [_shown(paths, grid, figures[grid.name]) for grid in grids[name]]
        repeated = repetition(name, scale, grids[name])
        shown.append(ShownStudy(name=name, question=study.question, grids=parts, facts=repeated))
    facts = {"provenance": provenance(scale, every), "code_date": _code_date(paths, every)}
    context = content(scale, shown, verdicts, checks, behind, facts)
    files |= _site(context, [part for _, part, _ in drawn.values()])
    files["README.md"] = render("readme.md.jinja", context)
    write_files(paths.reports, files)
    return paths.reports / "site" / "index.html"


def _site(context: Mapping[str, Any], parts: Sequence[Explored]) -> dict[str, bytes]:
    """Return the pages, what they load, and the explorer's data."""
    files = {f"site/{name}": asset(name) for name in ASSETS}
    for name, up in (("index", ""), ("explorer", ""), ("glossary", "")):
        files[f"site/{name}.html"] = render(f"{name}.html.jinja", {**context, "up": up, "page": name})
    for study in context["studies"]:
        mine = {**context, "up": "../", "page": "study", "study": study}
        files[f"site/studies/{study['name']}.html"] = render("study.html.jinja", mine)
    files["site/vega.js"] = _vega()
    files["site/data/list.js"] = listing(part.entry for part in parts)
    return files


@functools.cache
def _vega() -> bytes:
    """Return Vega, Vega-Lite and their embedding as one script, from the Python package that brings them."""
    return vl_convert.javascript_bundle().encode()  # type: ignore[call-arg]  # all of it without a snippet


@contextlib.contextmanager
def _drawing(paths: Paths, studies: Mapping[str, Study]) -> Iterator[Callable[[], dict[str, Drawn]]]:
    """Draw every study beside what the body does; what it gets waits, and returns what was drawn by name.

    A single study is drawn in this process: another one would take longer to start.
    """
    if len(studies) < 2:
        yield lambda: {name: draw_study(paths, name, study) for name, study in studies.items()}
        return
    fresh = multiprocessing.get_context("spawn")  # polars' threads do not survive a fork
    num_workers = min(len(studies), os.cpu_count() or 1, MAX_WORKERS)
    with concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=fresh) as pool:
        waiting = {name: pool.submit(draw_study, paths, name, study) for name, study in studies.items()}
        try:
            yield lambda: {name: future.result() for name, future in waiting.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def draw_study(paths: Paths, name: str, study: Study) -> Drawn:
    """Return the figures of a study with their tables, and what the explorer has of it.

    Raises:
        TableError: If a table is missing or wrong.
    """
    grids, tables = _grids(paths, name, study)
    figures: dict[str, list[ShownFigure]] = {}
    files: dict[str, bytes] = {}
    for grid in grids:
        figures[grid.name] = []
        for frame in figures_of(grid, study.grids[grid.name].figures):
            view, path = frame.view(grid), f"figures/{name}/{grid.name}/{frame.name}"
            figure, table = frame.draw(grid), flat(view.frame.table(view))
            svg, png = to_svg_and_png(figure)
            files |= {f"site/{path}.svg": svg, f"site/{path}.png": png}
            files |= {f"site/{path}.csv": table.write_csv().encode(), f"site/{path}.parquet": parquet_bytes(table)}
            if f"pictures/{name}.png" not in files:  # the first figure of a study stands for it in the README
                files[f"pictures/{name}.png"] = to_small_png(figure, PICTURE_DPI)
            words = {"title": view.title, "caption": view.caption}
            figures[grid.name].append(ShownFigure(kind=frame.name, path=path, num_rows=table.height, **words))
            _forget_many(grid)
    part = explored(study.question, grids, tables)
    return figures, part, files | {f"site/{path}": script for path, script in part.scripts.items()}


def _forget_many(grid: Grid) -> None:
    """Let a grid of many settings forget what it computed: memory counts more than time there."""
    if grid.settings.height > MAX_REMEMBERED:
        grid.forget()


def flat(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose lists are text, as CSV has it."""
    return table.with_columns(pl.col(pl.List).list.eval(pl.element().cast(pl.String)).list.join(" "))


def _grids(paths: Paths, name: str, study: Study) -> tuple[list[Grid], Mapping[str, pl.DataFrame]]:
    """Return the grids of a study and its tables, which are read when they are asked for.

    Raises:
        TableError: If a table is missing or wrong.
    """
    tables = Tables(SCHEMAS, lambda table: read_table(table, paths.results(name)), kept_bytes=0)
    for _ in tables.values():  # each can be read
        pass
    return grids_of(name, tables, study.select.over if study.select else ()), tables


def _shown(paths: Paths, grid: Grid, figures: Sequence[ShownFigure]) -> ShownGrid:
    bad = [shown_failure(row) for row in failures(grid).iter_rows(named=True)]
    said = _said(paths, grid.dataset)
    return ShownGrid(grid=grid, **said, settings=settings_table(grid), figures=figures, failures=bad)


def _code_date(paths: Paths, grids: Sequence[Grid]) -> str | None:
    """Return the day of the newest commit that trained, where git knows it."""
    revisions = {revision for grid in grids for revision in grid.all_runs["git_revision"].drop_nulls().unique()}
    days = []
    for revision in sorted(revision.removesuffix("-dirty") for revision in revisions):
        command = ["git", "show", "--no-patch", "--format=%cs", f"{revision}^{{commit}}"]
        with contextlib.suppress(OSError):
            asked = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=False)  # noqa: S603
            days += [asked.stdout.strip()] if asked.returncode == 0 else []
    return max(days, default=None)


def _said(paths: Paths, dataset: str) -> dict[str, Sequence[str]]:
    """Return remarks on a prepared dataset, and examples; none where tables were brought without what they are made of.

    Raises:
        ReportError: If the digest of the dataset is not one.
    """
    path = paths.dataset_digest(dataset)
    if not path.is_file():
        return {"remarks": (), "examples": ()}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {name: said[name] for name in ("remarks", "examples")}
    except (ValueError, KeyError, TypeError) as error:
        again = f"`dvc repro prepare@{dataset}` makes it anew"
        raise ReportError(f"{path}: not the digest of a dataset ({error!r}); {again}") from None


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
