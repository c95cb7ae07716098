"""The site in a browser: nothing is missing, nothing hangs over, everybody can use it, the explorer tells the truth."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.results import read_table
from tests.browser import MISSING, Browser
from tests.report.pages import site_of

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
PAGES = ("index.html", "studies/cells.html", "explorer.html", "glossary.html")
AXE = "axe-core@4.14.1"
ARROW_LEFT, ARROW_RIGHT, HOME = ("ArrowLeft", 37), ("ArrowRight", 39), ("Home", 36)

OPEN_ALL = """
for (const details of document.querySelectorAll("details")) details.open = true;
for (const image of document.images) image.loading = "eager";
"""
LOADED = "[...document.images].every((image) => image.complete)"
EMPTY_IMAGES = "return [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src)"
REQUESTS = """return performance.getEntriesByType("resource").map(({name}) => name)
  .filter((name) => !name.startsWith("file:") && !name.startsWith("data:"))"""
OVERHANGING = """
const width = document.documentElement.clientWidth, found = [];
const scrolls = (element) => ["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX);
for (const element of document.body.querySelectorAll("*")) {
  if (element.closest(".hidden, .skip, svg") || !element.getClientRects().length) continue;
  const box = element.getBoundingClientRect();
  const name = `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`;
  let around = element.parentElement;
  while (around && !scrolls(around)) around = around.parentElement;
  if (!around && (box.right > width + 1 || box.left < -1)) found.push(`outside: ${name}`);
  const hides = getComputedStyle(element).overflowX === "hidden";
  if (hides && element.scrollWidth > element.clientWidth + 1) found.push(`clipped: ${name}`);
}
if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
return found;
"""
BLANK_CANVASES = """
return [...document.querySelectorAll("section:not([hidden]) > .chart")].filter((chart) => {
  const canvas = chart.querySelector("canvas");
  if (!canvas) return true;
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return new Set(pixels).size < 10;
}).length;
"""
ON_PAPER = "const {backgroundColor, color} = getComputedStyle(document.body); return [backgroundColor, color]"
READY = "document.body.dataset.ready"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def axe(request: pytest.FixtureRequest) -> str:
    """axe-core's script, from npm, kept between runs."""
    folder = request.config.cache.mkdir("axe")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        if shutil.which("npm") is None:
            pytest.skip("no npm on PATH, which brings axe-core")
        # without a network it is known at once, and not after a minute of trying again
        quietly = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0")
        command = ["npm", "install", "--prefix", str(folder), *quietly, AXE]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode:
            pytest.skip(f"npm cannot bring {AXE}: {asked.stderr.strip()[-200:]}")
    return script.read_text(encoding="utf-8")


def shown(browser: Browser, paths: Paths, page: str, fragment: str = "") -> None:
    browser.open(site_of(paths) / page, fragment)
    if page == "explorer.html":
        browser.wait(READY)
    browser.run(OPEN_ALL)
    browser.wait(LOADED)


@pytest.mark.parametrize("page", PAGES)
def test_everything_is_drawn_and_nothing_hangs_over(page: str, browser: Browser, built: Paths) -> None:
    for width, dark in itertools.product((360, 1280, 1920), (False, True)):
        browser.show(width, dark=dark)
        shown(browser, built, page)
        assert browser.run(OVERHANGING) == [], (width, dark)
        assert browser.run(EMPTY_IMAGES) == []
        assert browser.run(BLANK_CANVASES) == 0
        assert browser.run(REQUESTS) == []
        assert browser.messages() == [], (width, dark)
    browser.show(1000, dark=True, media="print")
    assert browser.run(OVERHANGING) == []
    assert browser.run(ON_PAPER) == ["rgb(255, 255, 255)", "rgb(34, 40, 46)"], "paper is light whatever the screen is"
    browser.show(1000)


@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_no_serious_fault(page: str, browser: Browser, built: Paths, axe: str) -> None:
    for dark in (False, True) if page in {"index.html", "explorer.html"} else (False,):
        browser.show(1280, dark=dark)
        shown(browser, built, page)
        browser.run(axe)
        found = browser.run(
            "return axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations)"
        )
        serious = [fault for fault in found if fault["impact"] in {"serious", "critical"}]
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in serious] == []


def test_the_ledger_is_filtered_and_a_claim_has_an_address(browser: Browser, built: Paths) -> None:
    claims = pl.read_csv(built.reports / "tables" / "claims.csv")
    visible = 'return [...document.querySelectorAll("tbody.claim")].filter((one) => !one.hidden).map((one) => one.id)'
    choose = """
    const list = document.forms[0].elements[arguments[0]];
    list.value = arguments[1];
    list.dispatchEvent(new Event("change", {bubbles: true}));
    """
    shown(browser, built, "index.html")
    assert len(browser.run(visible)) == claims.height
    browser.run(choose, "study", "cells")
    wanted = claims.filter(study="cells")
    assert browser.run(visible) == [f"claim-{claim}" for claim in wanted["claim"]]
    said = browser.run('return document.querySelector(".filter output").value')
    assert said == f"{wanted.height} of {claims.height} claims"
    verdict = wanted["verdict"][0]
    browser.run(choose, "verdict", verdict)
    assert browser.run(visible) == [f"claim-{claim}" for claim in wanted.filter(verdict=verdict)["claim"]]
    browser.open(site_of(built) / "index.html", "#claim-C7")
    assert browser.run('return document.querySelector("#claim-C7 details").open')
    assert not browser.run('return document.querySelector("#claim-C8 details").open')


def choose(browser: Browser, name: str, value: str) -> None:
    """Choose an entry of one of the explorer's lists as a reader does, and wait until it is drawn."""
    browser.run(f"delete {READY}")
    script = """
    const list = document.querySelector(`[name=${arguments[0]}]`);
    list.value = arguments[1];
    if (list.value !== arguments[1]) throw new Error(`no ${arguments[1]} in ${[...list.options].map((o) => o.value)}`);
    list.dispatchEvent(new Event("change", {bubbles: true}));
    """
    browser.run(script, name, value)
    browser.wait(READY)


def press(browser: Browser, name: str, key: tuple[str, int], ready: str) -> None:
    browser.run("document.querySelector(`[name=${arguments[0]}]`).focus()", name)
    browser.press(*key)
    browser.wait(f"{READY} === arguments[0]", ready)


def cells(browser: Browser, section: str) -> list[list[str]]:
    script = """
    return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]
      .map((row) => [...row.cells].map((cell) => cell.textContent));
    """
    return browser.run(script, section)


def traced(paths: Paths, trial: str, **facts: Any) -> pl.DataFrame:
    """log10 norms by step, timestep and seed, straight from the result table."""
    rows = read_table("traces", paths.results("cells")).filter(trial_id=trial, part="recurrent", **facts)
    return rows.sort("timestep", descending=True)


def test_the_explorer_says_what_the_tables_say(browser: Browser, built: Paths) -> None:
    settings = read_table("settings", built.results("cells")).filter(grid="adding")
    trial = settings.filter(pl.col("label") == "lstm, T=20, lr=0.01")["trial_id"][0]
    browser.show(1280)
    shown(browser, built, "explorer.html")
    browser.messages()
    choose(browser, "setting", trial)
    choose(browser, "quantity", "recurrent c")
    rows = traced(built, trial, quantity="c")
    steps = rows["step"].unique().sort().to_list()
    assert browser.run("return document.querySelector('[name=step]').max") == str(len(steps) - 1)
    for place in (0, 1, 2):  # from the last step, where the slider begins, leftwards by the keyboard
        step = steps[-1 - place]
        if place:
            press(browser, "step", ARROW_LEFT, f"{trial} {len(steps) - 1 - place} 19")
        expected = rows.filter(step=step).group_by("timestep", maintain_order=True).agg(pl.col("log10_norm").mean())
        drawn = cells(browser, "lags")
        assert [int(row[1]) for row in drawn] == expected["timestep"].to_list()
        assert [float(row[3]) for row in drawn] == pytest.approx(expected["log10_norm"].to_list(), abs=6e-4)
        assert all(" to " in row[4] for row in drawn)
    choose(browser, "seed", "1")
    expected = rows.filter(step=steps[-3], seed=1)
    assert [float(row[3]) for row in cells(browser, "lags")] == pytest.approx(
        expected["log10_norm"].to_list(), abs=6e-4
    )
    press(browser, "lag", ARROW_RIGHT, f"{trial} {len(steps) - 3} 18")
    said = browser.run('return document.querySelector("#reading").textContent')
    assert said.startswith(f"Training step {steps[-3]}, lag 1 (t = 19): gradient norm ")
    lead, _, power = said.split("gradient norm ")[1].split(",")[0].partition(" × 10")
    exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    assert float(lead) * 10**exponent == pytest.approx(10 ** expected["log10_norm"][1], rel=0.01)
    heat = cells(browser, "heat")
    every = rows.filter(seed=1).sort("step", "timestep")["log10_norm"].to_list()
    assert [int(row[0]) for row in heat] == steps
    assert [float(value) for row in heat for value in row[1:]] == pytest.approx(every, abs=6e-4)
    assert browser.messages() == []


def test_the_explorer_shows_attention_over_training(browser: Browser, built: Paths) -> None:
    weights = read_table("attention", built.results("cells"))
    trial = weights["trial_id"][0]
    shown(browser, built, "explorer.html", f"#{trial}")
    assert not browser.run('return document.querySelector("#maps").hidden')
    steps = weights["step"].unique().sort().to_list()
    axes = ["output_position", "source_position"]
    mean = weights.filter(step=steps[-1], example=0).group_by(axes).agg(pl.col("weight").mean()).sort(axes)
    drawn = cells(browser, "maps")
    assert [row[0] for row in drawn] == list("xyz")
    assert [float(value) for row in drawn for value in row[1:]] == pytest.approx(mean["weight"].to_list(), abs=6e-4)
    press(browser, "step", HOME, f"{trial} 0 19")
    choose(browser, "seed", "2")
    first = weights.filter(step=0, example=0, seed=2).sort(axes)
    values = [float(value) for row in cells(browser, "maps") for value in row[1:]]
    assert values == pytest.approx(first["weight"].to_list(), abs=6e-4)
    assert "at training step 0" in browser.run('return document.querySelector("#maps-words").textContent')


def test_a_chart_is_printed_light_from_a_dark_screen(browser: Browser, built: Paths) -> None:
    corner = (
        '[...document.querySelector("#lags canvas").getContext("2d").getImageData(1, 1, 1, 1).data.slice(0, 3)].join()'
    )
    browser.show(1280, dark=True)
    shown(browser, built, "explorer.html")
    assert browser.run(f"return {corner}") == "20,24,28"
    browser.show(1280, dark=True, media="print")
    browser.wait(f'{corner} === "255,255,255"')
    assert browser.run('return getComputedStyle(document.querySelector(".controls")).display') != "none"
    browser.show(1280)


def test_an_address_that_is_not_shown_is_said(browser: Browser, built: Paths) -> None:
    browser.open(site_of(built) / "explorer.html", "#0123456789abcdef")
    said = 'document.querySelector("#shown").textContent'
    browser.wait(f'{said}.includes("Trial 0123456789abcdef is not among them.")')
    assert browser.run(f"return {said}").startswith("7 of 8 settings of adding are shown, 1 left no trace.")
