from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import vl_convert
import yaml
from dvc_render.vega import VegaRenderer

from pipeline.config import Paths
from pipeline.errors import TableError
from pipeline.report.tables import PLOT_DIGITS
from tests.report.conftest import ROOT, TROUBLED, VARIED, build, project
from tests.report.pages import pages_of
from tests.synthetic_results import Shape

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def contents(paths: Paths) -> dict[str, bytes]:
    files = (path for path in paths.reports.rglob("*") if path.is_file())
    return {str(path.relative_to(paths.reports)): path.read_bytes() for path in files}


def leaves(tree: Any) -> Iterator[Any]:
    for value in tree.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


def test_the_readme_of_the_report_has_every_claim_and_a_picture_per_study(built: Paths) -> None:
    text = (built.reports / "README.md").read_text(encoding="utf-8")
    claims = pl.read_csv(built.reports / "tables" / "claims.csv")["claim"]
    assert all(f"| **{claim}** " in text for claim in claims)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert "pictures/cells.png" in links
    assert all((built.reports / link).exists() for link in links)


def test_the_same_tables_give_the_same_bytes(built: Paths, tmp_path_factory: pytest.TempPathFactory) -> None:
    again = project(tmp_path_factory.mktemp("again"), TROUBLED, attends=True)
    build(again)
    first, second = contents(built), contents(again)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_files_of_the_report(built: Paths) -> None:
    names = sorted(contents(built))
    assert {"site/index.html", "README.md", "headline.json", "metrics.json"} <= set(names)
    assert {"tables/claims.csv", "tables/claim_checks.csv", "plots/ledger.csv"} <= set(names)
    assert {"plots/gradient_by_lag.csv", "plots/loss_by_length.csv", "plots/learning_curves.csv"} <= set(names)
    assert {f"site/figures/cells/adding/gradient_by_lag.{kind}" for kind in ("svg", "png")} <= set(names)


def test_metrics_are_strict_json_of_finite_numbers(built: Paths) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads((built.reports / "metrics.json").read_text(), parse_constant=refuse)
    values = list(leaves(found))
    assert all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in values)
    assert found["cells"]["adding"]["num_not_ok"] == 1 + 3
    assert found["cells"]["adding"]["lstm"]["decay_factor_c_end"] == pytest.approx(0.985, abs=0.01)
    assert found["claims"]["num_not_tested"] > 0  # the claims of studies that were not run
    counts = {key: value for key, value in found["claims"].items() if key.startswith("num_")}
    assert sum(counts.values()) == len(found["claims"]) - len(counts)


def test_the_headline_is_few_numbers_and_counts_every_replica_once(built: Paths) -> None:
    found = json.loads((built.reports / "headline.json").read_text())
    verdicts = pl.read_csv(built.reports / "tables" / "claims.csv")["verdict"].to_list()
    counts = {name: sum(verdict.startswith(name) for verdict in verdicts) for name in list(found) if name != "not_ok"}
    assert found == counts | {"not_ok": 1 + 3}
    assert found["inconclusive"] + found["supported"] + found["contradicted"] > 0
    path = "reports/headline.json"
    assert len("    ".join([path, *found])) <= 80  # what `dvc metrics show` prints on one line


def test_the_ledger_to_plot_is_the_first_check_of_each_claim_as_its_distance(built: Paths) -> None:
    plotted = pl.read_csv(built.reports / "plots" / "ledger.csv")
    claims = pl.read_csv(built.reports / "tables" / "claims.csv")
    assert plotted.select("claim", "verdict").equals(claims.select("claim", "verdict"))
    row = plotted.filter(claim="C2").row(0, named=True)  # a factor that is expected below 1
    claim = claims.filter(claim="C2").row(0, named=True)
    drawn = [-math.log(claim[side]) for side in ("effect", "high", "low")]
    assert [row["distance"], row["low"], row["high"]] == pytest.approx(drawn, rel=10.0 ** (1 - PLOT_DIGITS))
    assert row["expected"] == "below 1"
    assert plotted.filter(pl.col("verdict") == "not tested")["distance"].null_count() > 0


def test_templates_of_plots_draw_what_the_report_writes(built: Paths) -> None:
    """Every anchor is filled, and both versions are drawn: lines of each arm in a grid's panel, a row per claim."""
    plots = {Path(path): asked for one in DVC["plots"] for path, asked in one.items()}
    assert {path.name for path in plots} == {path.name for path in (built.reports / "plots").iterdir()}
    for path, asked in plots.items():
        rows = pl.read_csv(built.root / path, infer_schema=False).to_dicts()
        both = [row | {"rev": rev} for rev in ("HEAD", "workspace") for row in rows]
        drawn = VegaRenderer(both, path.name, template_dir=ROOT / ".dvc" / "plots", **asked).get_filled_template()
        assert "<DVC_METRIC" not in json.dumps(drawn)
        svg = vl_convert.vegalite_to_svg(drawn, vl_version="5.8")
        marks = re.findall(r'<path aria-label="([^"]*)"', svg)
        versions = {rev for mark in marks for rev in ("HEAD", "workspace") if f": {rev}" in mark}
        assert versions == {"HEAD", "workspace"}, path
        if asked["template"] == "arms":
            assert "cells, adding" in svg
            assert {"elman", "lstm"} <= set(re.findall(r"\b(elman|lstm)\b", svg))
        else:
            assert {row["claim"] for row in rows} == set(
                re.findall(r"\bC\d+\b", "".join(re.findall(r">([^<]+)<", svg)))
            )


def test_metrics_and_plots_of_variants(varied: Paths) -> None:
    found = json.loads((varied.reports / "metrics.json").read_text(), parse_constant=pytest.fail)["cells"]["adding"]
    labels = set(VARIED.variants)
    assert set(found) == labels | {"num_replicas", "num_not_ok"}
    assert found["full"]["T20"]["solved_share"] == pytest.approx(2 / 3)
    for name in ("gradient_by_lag", "loss_by_length", "learning_curves"):
        rows = pl.read_csv(varied.reports / "plots" / f"{name}.csv")
        assert rows.columns[:3] == ["study", "grid", "arm"]
        assert set(rows["arm"]) == labels


def test_plots_are_small_tables_of_finite_numbers(built: Paths) -> None:
    drawn = pl.read_csv(built.reports / "plots" / "gradient_by_lag.csv")
    assert drawn.columns[:7] == ["study", "grid", "arm", "state", "stage", "lag", "log10_relative_norm"]
    assert drawn.filter(pl.col("lag") == 0)["log10_relative_norm"].unique().to_list() == [0.0]
    assert drawn["lag"].max() == 19


def test_summary_has_every_setting(built: Paths) -> None:
    rows = pl.read_csv(built.reports / "tables" / "settings.csv")
    assert rows.height == 2 * 2 * 2
    failed = rows.filter(pl.col("label") == "lstm, T=10, lr=0.003").row(0, named=True)
    assert (failed["status"], failed["num_ok"], failed["test_loss"], failed["solved_share"]) == ("error", 0, None, None)
    diverged = rows.filter(pl.col("label") == "elman, T=20, lr=0.01").row(0, named=True)
    assert (diverged["status"], diverged["num_ok"], diverged["num_seeds"]) == ("diverged", 2, 3)


def test_a_study_without_a_finished_trial_is_reported(tmp_path: Any) -> None:
    labels = [f"{cell}, T=10, lr=0.01" for cell in ("elman", "lstm")]
    shape = Shape(lengths=(10,), learning_rates=(0.01,), cells=("elman", "lstm"), digits_length=None)
    paths = project(tmp_path, Shape(**(vars(shape) | {"broken": dict.fromkeys(labels, "error")})))
    page = build(paths, "smoke").read_text()
    assert "No gradient was traced yet." in page
    assert "smoke run" in page
    assert "inconclusive" in page
    assert "Of 6 replicas 0 ok, 0 exploded, 0 timed out, 6 failed" in pages_of(paths)["studies/cells.html"].words


def test_missing_results_are_named(tmp_path: Any) -> None:
    paths = project(tmp_path, Shape(lengths=(10,), cells=("gru",), digits_length=None))
    (paths.results("cells") / "traces.parquet").unlink()
    with pytest.raises(TableError, match="traces.parquet: no such table"):
        build(paths)
