from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.claims import load_rules
from pipeline.config import Paths, write_digest
from pipeline.errors import TableError
from pipeline.report.build import ReportError
from tests.report.conftest import ROOT, TROUBLED, VARIED, build, project
from tests.synthetic_results import Shape


def contents(paths: Paths) -> dict[str, bytes]:
    files = (path for path in paths.reports.rglob("*") if path.is_file())
    return {str(path.relative_to(paths.reports)): path.read_bytes() for path in files}


def leaves(tree: Any) -> Iterator[Any]:
    for value in tree.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


class Page(HTMLParser):
    """Collects ids, what is loaded, and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.ids.append(value)
            elif name in {"src", "href", "xlink:href", "srcset", "data", "poster"} and value:
                (self.links if tag == "a" else self.loaded).append((tag, value) if tag != "a" else value)  # type: ignore[arg-type]


def page_of(paths: Paths) -> str:
    return (paths.reports / "site" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(built: Paths) -> str:
    return page_of(built)


def test_the_site_loads_nothing_from_elsewhere(page: str, built: Paths) -> None:
    loaded = [value for _, value in Page(page).loaded]
    assert len(loaded) == 3
    assert all((built.reports / "site" / value).is_file() for value in loaded)
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|url\(|https?://", page)
    assert len(page.encode()) < 1_000_000


def test_every_picture_has_the_finding_as_its_text(page: str) -> None:
    texts = re.findall(r'<img src="[^"]+" alt="([^"]+)"', page)
    assert len(texts) == 3
    assert all(len(text) > 20 for text in texts)


def test_every_link_leads_somewhere(page: str, built: Paths) -> None:
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = {value.removeprefix("#") for value in parsed.links if value.startswith("#")}
    assert inside <= set(parsed.ids)
    files = {value for value in parsed.links if not value.startswith("#")}
    assert files
    assert all((built.reports / "site" / value).is_file() for value in files)


def test_the_readme_of_the_report_has_every_claim_and_a_picture_per_study(built: Paths) -> None:
    text = (built.reports / "README.md").read_text(encoding="utf-8")
    claims = pl.read_csv(built.reports / "tables" / "claims.csv")["claim"]
    assert all(f"| **{claim}** " in text for claim in claims)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert "pictures/cells.png" in links
    assert all((built.reports / link).exists() for link in links)


def test_page_opens_with_the_finding_and_tells_what_failed(page: str) -> None:
    assert "<h1>After training at T = 20 the gradient decays tenfold every" in page
    assert "RuntimeError: &lt;the machine&gt; stopped" in page
    assert "step 21, timestep 3, in h" in page
    assert "lstm, T=10, lr=0.003 <small>(not selected)</small>" in page
    assert "smoke run" not in page
    assert "git revision</dt><dd>0123456789abcdef" in page


def test_the_same_tables_give_the_same_bytes(built: Paths, tmp_path_factory: pytest.TempPathFactory) -> None:
    again = project(tmp_path_factory.mktemp("again"), TROUBLED)
    build(again)
    first, second = contents(built), contents(again)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_files_of_the_report(built: Paths) -> None:
    names = sorted(contents(built))
    assert {"site/index.html", "README.md", "metrics.json", "tables/claims.csv", "tables/claim_checks.csv"} <= set(
        names
    )
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


def visible(page: str) -> str:
    """Return the words of a page that a reader sees outside figures."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


@pytest.mark.parametrize(("fixture", "first"), [("built", "cell"), ("varied", "arm")])
def test_the_settings_table_says_what_its_rows_are(fixture: str, first: str, request: pytest.FixtureRequest) -> None:
    page = page_of(request.getfixturevalue(fixture))
    assert f'<thead><tr><th scope="col">{first}</th><th scope="col">T</th>' in page


@pytest.mark.parametrize("fixture", ["built", "varied"])
def test_a_reader_sees_no_raw_names(fixture: str, request: pytest.FixtureRequest) -> None:
    text = visible(page_of(request.getfixturevalue(fixture)))
    grids = {check.grid for claim in load_rules(Paths.at(ROOT), {}).claims.values() for check in claim.checks}
    known = grids | {"W_hh", "σ_max", "x86_64", "h_{T-k}"}
    assert set(re.findall(r"\w+_[\w{}-]+", text)) <= known
    assert not re.search(r"\b(None|null|NaN)\b", text)


def test_variants_are_told_by_their_labels(varied: Paths) -> None:
    page = page_of(varied)
    for label in VARIED.variants:
        assert page.count(f'<th scope="row">{html.escape(label)}</th>') == len(VARIED.lengths)
    assert "adding: ReLU, identity, T=10, lr=0.003" in page


def test_metrics_and_plots_of_variants(varied: Paths) -> None:
    found = json.loads((varied.reports / "metrics.json").read_text(), parse_constant=pytest.fail)["cells"]["adding"]
    labels = set(VARIED.variants)
    assert set(found) == labels | {"num_replicas", "num_not_ok"}
    assert found["full"]["T20"]["solved_share"] == pytest.approx(2 / 3)
    for name in ("gradient_by_lag", "loss_by_length", "learning_curves"):
        rows = pl.read_csv(varied.reports / "plots" / f"{name}.csv")
        assert rows.columns[:3] == ["study", "grid", "arm"]
        assert set(rows["arm"]) == labels


def test_each_check_names_its_grid(page: str, built: Paths) -> None:
    checks = pl.read_csv(built.reports / "tables" / "claim_checks.csv").filter(claim="C4")
    assert checks["grid"].to_list() == ["flip_flop", "adding_50", "sunspots"]
    assert all(f"<small>grid {grid}</small>" in page for grid in checks["grid"])


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


def test_missing_results_are_named(tmp_path: Any) -> None:
    paths = project(tmp_path, Shape(lengths=(10,), cells=("gru",), digits_length=None))
    (paths.results("cells") / "traces.parquet").unlink()
    with pytest.raises(TableError, match="traces.parquet: no such table"):
        build(paths)


def test_the_page_says_how_many_tokens_of_a_dataset_are_unknown(tmp_path: Path) -> None:
    paths = project(tmp_path, TROUBLED)
    remark = "length 9, unknown tokens among the inputs: 3.1 % of train, 4 % of validation, 5 % of test"
    write_digest(paths.dataset_digest("adding"), {"remarks": [remark]})
    build(paths)
    assert f"Dataset adding: {remark}." in html.unescape(page_of(paths))
    write_digest(paths.dataset_digest("adding"), {"variants": {}})
    with pytest.raises(ReportError, match=r"adding.json: not the digest of a dataset .*`dvc repro prepare@adding`"):
        build(paths)
