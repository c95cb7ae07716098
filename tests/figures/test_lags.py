from __future__ import annotations

import polars as pl
import pytest
from pipeline.figures.lags import contrast, panels

from pipeline.figures.style import styled, to_svg

VALUES = {("a", 0): 1.0, ("a", 1): 1.2, ("b", 0): 3.0, ("b", 1): 3.2, ("c", 0): 9.0, ("c", 1): 9.2}


def frame(values: dict[tuple[str, int], float]) -> pl.DataFrame:
    rows = [(arm, seed, value) for (arm, seed), value in values.items()]
    return pl.DataFrame(rows, schema=["arm", "seed", "value"], orient="row")


def test_a_kind_is_the_mean_over_its_arms_seed_by_seed() -> None:
    kinds = contrast(frame(VALUES), "value", ["a", "b"])
    assert kinds.select("kind", "mean", "num_seeds", "apart").rows() == [
        ("first", pytest.approx(2.1), 2, True),
        ("other", pytest.approx(9.1), 2, True),
    ]


def test_arms_that_cross_are_not_apart_nor_is_one_seed() -> None:
    crossing = {("a", 0): 1.0, ("a", 1): 9.0, ("c", 0): 8.0, ("c", 1): 2.0}
    assert contrast(frame(crossing), "value", ["a"])["apart"].to_list() == [False, False]
    one = {key: value for key, value in VALUES.items() if key[1] == 0}
    assert contrast(frame(one), "value", ["a"])["apart"].to_list() == [False, False]


def test_what_is_not_finite_is_left_out() -> None:
    kinds = contrast(frame(VALUES | {("c", 0): float("-inf"), ("c", 1): float("nan")}), "value", ["a", "b"])
    assert kinds.select("kind", "apart").rows() == [("first", False)]


def test_a_stage_without_rows_says_so() -> None:
    row = {"stage": "initialisation", "arm": "a", "lag": 0, "mean": 0.0, "low": None, "high": None}
    figure = styled(panels)("Heading", pl.DataFrame([row]), ["a"], {"a": "arm a"}, last="the end", reference="lag 0")
    start, end = figure.axes
    assert [text.get_text() for ax in (start, end) for text in ax.texts] == ["no replica finished"]
    assert start.get_ylabel() == "gradient relative to lag 0"
    assert start.get_xlabel() == end.get_xlabel() == "lag k (timesteps before the end)"
    assert b"<svg" in to_svg(figure)
