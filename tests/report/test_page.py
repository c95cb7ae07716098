from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from pipeline.claims.ledger import VERDICTS
from pipeline.report import page
from pipeline.report.page import interval, render, shown_failure


@pytest.mark.parametrize(
    ("bounds", "percent", "said"),
    [
        ((0.5, 0.25, 0.75), False, "0.50 [0.25, 0.75]"),
        ((0.5, 0.25, 0.75), True, "50 % [25, 75]"),
        ((0.99974, 0.99801, 1.00147), False, "0.9997 [0.9980, 1.0015]"),
        ((0.25, 0.25, 0.25), False, "0.250 (exact)"),
        ((0.5, None, None), False, "0.500"),
        ((None, None, None), True, "n/a"),
    ],
)
def test_intervals_are_said(bounds: tuple[float | None, ...], percent: bool, said: str) -> None:
    assert interval(*bounds, percent) == said  # type: ignore[arg-type]


def test_a_name_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        render("index.html.jinja", {})


def test_every_verdict_that_may_have_a_reason_has_a_word_for_it() -> None:
    template = (Path(page.__file__).parent / "parts.html.jinja").read_text(encoding="utf-8")
    (words,) = re.findall(r"\{\{ (\{.*?\})\[claim\.verdict\]", template)
    assert {*re.findall(r'"([a-z ]+)": ', words)} == {*VERDICTS} - {"supported", "not tested"}


def test_failures_are_told_with_their_first_line() -> None:
    place = {"diverged_step": None, "diverged_timestep": None, "diverged_quantity": None}
    row = {"label": "gru", "seed": [0, 2], "status": "timed_out", "status_message": "slow\nmore", "selected": True}
    said = shown_failure(row | place)
    assert (said["seeds"], said["status"], said["where"]) == ("0, 2", "timed out", "unknown")
    assert (said["message"], said["details"]) == ("slow", "more")
