from __future__ import annotations

import jinja2
import pytest

from pipeline.report.page import inline, interval, render, told

SVG = (
    b'<?xml version="1.0"?><!DOCTYPE svg><svg width="468pt" height="252pt" viewBox="0 0 468 252">'
    b'<g id="a"/><use href="#a"/></svg>'
)


def test_inline_svg_scales_and_keeps_its_ids_to_itself() -> None:
    text = str(inline(SVG, "fig", 'A "finding" < 1'))
    assert text.startswith('<svg role="img" aria-label="A &#34;finding&#34; &lt; 1"')
    assert "pt" not in text.split(">")[0]
    assert 'id="fig-a"' in text
    assert 'href="#fig-a"' in text


@pytest.mark.parametrize(
    ("bounds", "percent", "said"),
    [
        ((0.5, 0.25, 0.75), False, "0.50 [0.25, 0.75]"),
        ((0.5, 0.25, 0.75), True, "50 % [25, 75]"),
        ((0.99974, 0.99801, 1.00147), False, "0.9997 [0.9980, 1.0015]"),
        ((0.25, 0.25, 0.25), False, "0.250 [0.250, 0.250]"),
        ((0.5, None, None), False, "0.500"),
        ((None, None, None), True, "n/a"),
    ],
)
def test_intervals_are_said(bounds: tuple[float | None, ...], percent: bool, said: str) -> None:
    assert interval(*bounds, percent) == said  # type: ignore[arg-type]


def test_a_name_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'scale' is undefined"):
        render({})


def test_failures_are_told_with_their_first_line() -> None:
    place = {"diverged_step": None, "diverged_timestep": None, "diverged_quantity": None}
    row = {"label": "gru", "seed": [0, 2], "status": "timed_out", "status_message": "slow\nmore", "selected": True}
    said = told(row | place)
    assert (said["seeds"], said["status"], said["where"]) == ("0, 2", "timed out", "unknown")
    assert (said["message"], said["details"]) == ("slow", "more")
