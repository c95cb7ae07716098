"""The site: it is whole, opens from disk, and says what the tables say. What needs no browser."""

from __future__ import annotations

import html
import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline.claims import load_rules
from pipeline.config import Paths, write_digest
from pipeline.report.build import ReportError
from pipeline.report.page import interval
from tests.report.conftest import FIGURES, ROOT, TROUBLED, VARIED, build, project
from tests.report.pages import Page, pages_of, site_of


@pytest.fixture(scope="module")
def pages(built: Paths) -> dict[str, Page]:
    return pages_of(built)


@pytest.fixture(scope="module")
def index(pages: dict[str, Page]) -> Page:
    return pages["index.html"]


@pytest.fixture(scope="module")
def study(pages: dict[str, Page]) -> Page:
    return pages["studies/cells.html"]


def table(paths: Paths, name: str) -> pl.DataFrame:
    return pl.read_csv(paths.reports / "tables" / f"{name}.csv")


def test_it_has_an_index_a_page_per_study_the_explorer_and_a_glossary(pages: dict[str, Page]) -> None:
    assert set(pages) == {"index.html", "studies/cells.html", "explorer.html", "glossary.html"}
    assert all(page.open == [] for page in pages.values())  # every tag is closed, in order: `Page` checks that


def test_it_loads_nothing_from_elsewhere(pages: dict[str, Page]) -> None:
    for page in pages.values():
        sources = [source for source in page.loaded if not source.startswith("data:image/png;base64,")]
        assert sources
        assert all((page.path.parent / source).is_file() for source in sources)
        assert not re.search(r"@import|url\(|https?://|<(iframe|object|embed)\b", page.text)
    assert "@import" not in (css := (pages["index.html"].path.parent / "page.css").read_text())
    assert "url(" not in css


def test_the_index_is_small(index: Page, study: Page) -> None:
    assert len(index.text.encode()) < 1_000_000
    assert len(study.text.encode()) < 2_000_000


def test_every_link_leads_somewhere(pages: dict[str, Page], built: Paths) -> None:
    trials = set(table(built, "settings")["trial_id"])
    for page in pages.values():
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            path, _, fragment = link.partition("#")
            target = (page.path.parent / path).resolve() if path else page.path
            assert target.is_file(), link
            if path.endswith("explorer.html") and fragment:
                assert fragment in trials | {"cells"}
            elif fragment:
                assert fragment in Page(target).ids, link


def test_every_picture_has_the_finding_as_its_text(pages: dict[str, Page], study: Page) -> None:
    texts = [text for source, text in study.images if source.endswith(".svg")]
    assert len(texts) == len(FIGURES)
    assert all(text is not None and len(text) > 20 for text in texts)
    assert all(text is not None for page in pages.values() for _, text in page.images)


def test_headings_have_no_gaps_and_tables_have_captions(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert page.headings[0] == 1
        assert page.headings.count(1) == 1
        assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
        assert page.text.count("<table") == page.text.count("<caption")


def test_the_ledger_has_a_row_per_claim_that_says_what_the_tables_say(index: Page, built: Paths) -> None:
    claims, checks = table(built, "claims"), table(built, "claim_checks")
    assert claims["claim"].to_list() == list(yaml.safe_load((ROOT / "configs" / "claims.yaml").read_text())["claims"])
    assert index.text.count('<tbody role="rowgroup" id="claim-') == claims.height
    for claim in claims.iter_rows(named=True):
        (found,) = re.findall(
            rf'id="claim-{claim["claim"]}".*?</tbody>\n(?=<tbody role|</table>)', index.text, re.DOTALL
        )
        said = " ".join(html.unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", found, flags=re.DOTALL)).split())
        assert claim["statement"] in said
        assert f"{claim['mark']} {claim['verdict']}" in said
        assert interval(claim["effect"], claim["low"], claim["high"]) in said
        for check in checks.filter(claim=claim["claim"]).iter_rows(named=True):
            assert check["measure"] in said
            effect = interval(check["effect"], check["low"], check["high"])
            assert f"{check['role']} {check['expected']} {effect} {check['answer']} {check['num_seeds']}" in said


def test_the_counts_of_verdicts_are_those_of_the_ledger(index: Page, built: Paths) -> None:
    for verdict, count in table(built, "claims")["verdict"].value_counts().iter_rows():
        assert re.search(rf'data-verdict="{verdict}" class="verdict [\w-]+"><b>{count}</b>', index.text)


def test_the_trials_behind_a_claim_are_named_and_name_it(index: Page, study: Page, built: Paths) -> None:
    behind = table(built, "claim_trials").filter(claim="C3")
    assert behind["check"].unique().sort().to_list() == [1, 2, 3]
    assert behind["arm"].unique().sort().to_list() == ["elman", "lstm"]
    assert behind["length"].unique().to_list() == [20]
    (found,) = re.findall(r'id="claim-C3".*?</details>', index.text, re.DOTALL)
    assert set(re.findall(r'href="explorer.html#(\w+)"', found)) == set(behind["trial_id"])
    for trial in behind["trial_id"]:
        assert f"python -m pipeline rerun {behind['trial_id'][0]}" in found
        (row,) = re.findall(rf"<code>{trial}</code></a></td>\n<td>(.*?)</td></tr>", study.text)
        assert 'href="../index.html#claim-C3"' in row


def test_the_hero_says_what_the_heat_maps_show(index: Page, built: Paths) -> None:
    drawn = pl.read_parquet(site_of(built) / "figures" / "cells" / "adding" / "gradient_heatmap.parquet")
    lost = (
        drawn.sort("timestep")
        .group_by("arm", "state", "step", maintain_order=True)
        .agg(lost=pl.col("mean").last() - pl.col("mean").first())
    )
    (said,) = re.findall(r'<h1 id="headline">(.*?)</h1>', index.text)
    for step, ends in ((0, lost.filter(step=0)), (40, lost.sort("step").group_by("arm", "state").last())):
        values = ends["lost"].to_list()
        for value in (min(values), max(values)):
            assert ("none" if abs(value) < 0.25 else f"{value:.1f}") in said, step
    assert index.text.count('class="panel"') == 3  # the Elman network's h, the LSTM's h and c
    assert "before training; after" in next(text for source, text in index.images if source.startswith("data:"))  # type: ignore[operator]


def test_a_study_says_how_its_replicas_ended(study: Page, built: Paths) -> None:
    rows = table(built, "settings")
    header, *cells = study.table("Settings of grid adding: 8")
    assert len(cells) == rows.height
    for row, shown in zip(rows.iter_rows(named=True), cells, strict=True):
        said = dict(zip(header, shown, strict=True))
        assert said["trial"] == row["trial_id"]
        assert [said[name] for name in ("replicas", "ok", "exploded", "failed")] == [
            str(row[f"num_{name}"]) for name in ("seeds", "ok", "diverged", "error")
        ]
        assert said["test loss"] == interval(row["test_loss"], row["test_loss_low"], row["test_loss_high"])
    assert "Of 24 replicas 20 ok, 1 exploded, 0 timed out, 3 failed," in study.words
    assert "step 21, timestep 3, in h" in study.words
    assert "RuntimeError: <the machine> stopped" in study.words
    assert "lstm, T=10, lr=0.003 (not selected)" in study.words
    assert "smoke run" not in study.words


def test_a_study_answers_in_a_sentence_from_the_ledger(study: Page, built: Paths) -> None:
    claims = table(built, "claims").filter(study="cells")
    (said,) = re.findall(r'<p class="answer">(.*?)</p>', study.text, re.DOTALL)
    for claim in claims.iter_rows(named=True):
        effect = interval(claim["effect"], claim["low"], claim["high"])
        assert f"{claim['verdict']}, {effect} where" in said[0].lower() + said[1:]
        assert f"({claim['claim']})" in said


def test_a_study_can_be_repeated(study: Page) -> None:
    (said,) = re.findall(r'<dl class="reproduce">(.*?)</dl>', study.text, re.DOTALL)
    for words in ("git checkout 0123456789abcdef", "dvc repro sweep@cells", f"adding {'ab' * 32}", "2.13.0", "3.11.2"):
        assert f"<code>{words}</code>" in said


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_figure_draws_can_be_had_as_a_table(name: str, study: Page, built: Paths) -> None:
    folder = site_of(built) / "figures" / "cells" / "adding"
    whole, text = pl.read_parquet(folder / f"{name}.parquet"), pl.read_csv(folder / f"{name}.csv")
    assert {"arm", "mean", "low", "high", "num_seeds"} <= set(whole.columns)
    assert text["mean"].to_list() == whole["mean"].to_list()
    for kind in ("svg", "png", "csv", "parquet"):
        assert f"../figures/cells/adding/{name}.{kind}" in study.links
    assert f"its {whole.height} rows" in study.words


@pytest.mark.parametrize(("fixture", "first"), [("built", "cell"), ("varied", "arm")])
def test_the_settings_table_says_what_its_rows_are(fixture: str, first: str, request: pytest.FixtureRequest) -> None:
    page = pages_of(request.getfixturevalue(fixture))["studies/cells.html"]
    assert page.table("Settings of grid adding")[0][:2] == [first, "T"]


@pytest.mark.parametrize("fixture", ["built", "varied"])
def test_a_reader_sees_no_raw_names(fixture: str, request: pytest.FixtureRequest) -> None:
    grids = {check.grid for claim in load_rules(Paths.at(ROOT), {}).claims.values() for check in claim.checks}
    files = {"claims.csv", "claim_checks.csv", "claim_trials.csv", "settings.csv"}
    known = grids | {"W_hh", "σ_max", "x86_64", "h_{T-k}", "h_t", "c_t", "x_t"} | {name.split(".")[0] for name in files}
    for page in pages_of(request.getfixturevalue(fixture)).values():
        assert set(re.findall(r"\w+_[\w{}-]+", page.words)) <= known
        assert not re.search(r"\b(None|null|NaN|undefined)\b", page.words)


def test_variants_are_told_by_their_labels(varied: Paths) -> None:
    page = pages_of(varied)["studies/cells.html"]
    rows = page.table("Settings of grid adding")[1:]
    for label in VARIED.variants:
        named = [row for row in rows if row[0].removesuffix(" (not selected)") == label]
        assert len(named) == len(VARIED.lengths) * len(VARIED.learning_rates)
    assert "ReLU, identity, T=10, lr=0.003" in page.words


def test_the_glossary_has_the_terms_of_the_lecture_notes(pages: dict[str, Page]) -> None:
    words = pages["glossary.html"].words
    for english, korean in (
        ("vanishing gradient", "기울기 소실"),
        ("exploding gradient", "기울기 폭발"),
        ("long-term dependency", "장기 의존성"),
        ("teacher forcing", "교사 강요"),
        ("truncated BPTT", "절단된 BPTT"),
        ("attention", "어텐션"),
        ("alignment", "정렬"),
    ):
        assert f"{english} {korean}" in words


def test_the_page_says_how_many_tokens_of_a_dataset_are_unknown_and_shows_some(tmp_path: Path) -> None:
    paths = project(tmp_path, TROUBLED)
    remark = "length 9, unknown tokens among the inputs: 3.1 % of train, 4 % of validation, 5 % of test"
    write_digest(paths.dataset_digest("adding"), {"remarks": [remark], "examples": ["value 0.25", "marker ^"]})
    build(paths)
    words = pages_of(paths)["studies/cells.html"].words
    assert f"Dataset adding: {remark}." in words
    assert "the first training sequences value 0.25 marker ^" in " ".join(words.split())
    write_digest(paths.dataset_digest("adding"), {"variants": {}})
    with pytest.raises(ReportError, match=r"adding.json: not the digest of a dataset .*`dvc repro prepare@adding`"):
        build(paths)
