"""What the pages say of speed is what was measured last, and the picture shows it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks import pages, pictures, record
from tests.test_architecture import ROOT

LATEST = record.read()


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_says_what_was_measured_last(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == pages.filled(text, LATEST), "python -m benchmarks.pages writes the pages"


def test_every_text_has_a_place_and_every_place_a_text() -> None:
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in pages.PAGES]
    names = {slot["name"] for text in texts for slot in pages.SLOT.finditer(text)}
    assert names == set(pages.TEXTS)
    assert sum(text.count("<!-- speed: ") for text in texts) == sum(len(pages.SLOT.findall(text)) for text in texts)


def test_no_measured_number_stands_outside_the_places() -> None:
    speed = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Speed\n")[1].split("\n## ")[0]
    for text in (speed, readme):
        assert not re.findall(r"\d+\.\d+|\d+ %|\d+%|\d+ (?:ms|MiB|GiB)", pages.SLOT.sub("", text))


@pytest.mark.parametrize(
    ("value", "printed"), [(0.2479, "0.25"), (0.997, "1.0"), (1.25, "1.2"), (9.94, "9.9"), (9.96, "10"), (14.6, "15")]
)
def test_ratios_have_two_digits(value: float, printed: str) -> None:
    assert pages.ratio(value) == printed


def test_paragraphs_and_lists_are_wrapped_and_tables_are_not() -> None:
    table = pages.table(["word"], [["long " * 40]])
    paragraph, listed, same = pages.wrapped(
        "\n\n".join(["word " * 40, "- one\n  more\n- " + "two " * 40, table])
    ).split("\n\n")
    assert max(map(len, paragraph.splitlines())) <= 120
    assert [line[:5] for line in listed.splitlines()] == ["- one", "- two", "  two"]
    assert same == table


def row(who: str, R: int, ms: float, mebibytes: float) -> dict[str, Any]:
    shape = {"cell": "lstm", "B": 32, "H": 32, "T": 200, "num_rounds": 3}
    return shape | {
        "who": who,
        "R": R,
        "ms": ms,
        "lowest_ms": ms - 0.5,
        "highest_ms": ms + 1,
        "peak_bytes": mebibytes * 2**20,
    }


ROWS = [
    row("ours", 1, 4.0, 300), row("ours", 2, 3.0, 308), row("ours", 4, 2.5, 324),
    row("torch_nn", 1, 5.0, 300), row("torch_nn", 2, 6.0, 500),
]  # fmt: skip


def test_one_more_seed_costs_the_difference_from_the_fewest_to_the_most() -> None:
    assert pictures.marginal(ROWS[:3]) == (2.0, 8 * 2**20)  # (4 · 2.5 - 4) / 3 ms
    assert pictures.title_of(ROWS) == (
        "One more seed: 2.0 ms a step and 8 MiB here; at best 5.0 ms and 200 MiB as a process of its own"
    )


def test_the_caption_says_of_how_many_rounds() -> None:
    assert "Medians of 3 rounds" in pictures.caption_of(ROWS)
    assert "Measured once" in pictures.caption_of([ROWS[0] | {"num_rounds": 1}])


def test_the_picture_shows_the_rows() -> None:
    time, memory = pictures.draw_seeds(ROWS).axes
    lines = {tuple(line.get_xdata()): list(line.get_ydata()) for line in time.get_lines()}  # type: ignore[arg-type]
    assert lines == {(1, 2, 4): [4.0, 3.0, 2.5], (1, 2): [5.0, 6.0]}
    held = [list(line.get_ydata()) for line in memory.get_lines()]  # type: ignore[arg-type]
    assert held == [[300 / 1024, 308 / 1024, 324 / 1024], [300 / 1024, 500 / 1024]]
    assert (time.get_ylabel(), memory.get_ylabel()) == ("ms", "GiB")
