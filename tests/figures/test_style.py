from __future__ import annotations

import matplotlib
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipeline.figures.gradient_by_lag import draw
from pipeline.figures.style import LOOKS, canvas, looks_of, styled, to_svg
from pipeline.statistics import GridTables


def test_the_same_tables_give_the_same_bytes(exact: list[GridTables]) -> None:
    assert to_svg(draw(exact[0])) == to_svg(draw(exact[0]))


def test_a_figure_leaves_the_callers_look_alone() -> None:
    before = dict(matplotlib.rcParams)

    @styled
    def draw_nothing() -> Figure:
        return canvas("A finding", 1, 1, 1.0)[0]

    to_svg(draw_nothing())
    assert dict(matplotlib.rcParams) == before


def test_cells_differ_in_lightness_dashes_and_marker() -> None:
    cells = [LOOKS[name] for name in ("elman", "lstm", "gru")]
    lightness = sorted(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (to_rgb(look.colour) for look in cells))
    assert min(b - a for a, b in zip(lightness[:-1], lightness[1:], strict=True)) > 0.1
    assert len({look.marker for look in cells}) == len({str(look.dashes) for look in cells}) == 3


@pytest.mark.parametrize("names", [["gru", "other"], ["gru, threshold=1.0", "gru, threshold=2.0"]])
def test_every_name_has_a_look_of_its_own(names: list[str]) -> None:
    assert len({look.colour for look in looks_of(names).values()}) == 2
