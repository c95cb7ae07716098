"""Every figure draws without a warning (they are errors here), whatever went wrong in the study."""

from __future__ import annotations

import itertools
from dataclasses import replace

import polars as pl
import pytest
from matplotlib.artist import Artist
from matplotlib.text import Text

from pipeline.errors import ConfigError
from pipeline.figures.catalogue import FIGURES, KINDS, check_kinds, drawings_of
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.figures.conftest import grids
from tests.figures.test_error_by_token import with_errors
from tests.figures.test_unseen_lengths import with_unseen
from tests.synthetic_attention import attending, autoencoding, captioning, writing
from tests.synthetic_attention import grid as shown_grid
from tests.synthetic_decoding import ATTENTION, RECURRENCE, SCHEDULES, decoding_grid
from tests.synthetic_results import Shape, Variant

LONG = ("curves", "traces", "eigenvalues", "gates", "jacobians", "lyapunov", "truncation")


def names(tables: GridTables) -> list[str]:
    return [drawing.name for drawing in drawings_of(tables)]


def kinds(tables: GridTables) -> set[str]:
    return {drawing.kind for drawing in drawings_of(tables)}


def test_names_of_figures_say_study_and_grid(exact: list[GridTables]) -> None:
    assert names(exact[0])[:3] == [
        "cells_adding_gradient_by_lag",
        "cells_adding_gradient_heatmap",
        "cells_adding_loss_by_length",
    ]
    assert kinds(exact[1]) == {
        "gradient_by_lag",
        "gradient_heatmap",
        "error_by_cell",
        "growth_by_singular_value",
        "learning_curves",
        "clipping_ledger",
        "spectrum",
        "eigenvalue_cloud",
    }


def test_every_figure_applies_somewhere(measured: GridTables, many: GridTables, deep: GridTables) -> None:
    variants = {"K = 4": Variant("lstm", backward_length=4), "full": Variant("lstm")}
    cut = grids(Shape(variants=variants, digits_length=None))[0]
    digits = grids(Shape())[1]
    told = with_unseen(with_errors(measured, {("elman", "left"): 0.1}), {"elman": 0.1})
    applying = kinds(measured) | kinds(many) | kinds(deep) | kinds(cut) | kinds(digits) | kinds(told)
    applying |= kinds(decoding_grid(ATTENTION)) | kinds(decoding_grid(SCHEDULES)) | kinds(decoding_grid(RECURRENCE))
    applying |= kinds(shown_grid(["dot"], attending({"dot": 0.9}))) | kinds(shown_grid(["a"], captioning({"a": 0.9})))
    applying |= kinds(shown_grid(["lstm"], autoencoding)) | kinds(shown_grid(["lstm"], writing))
    assert applying == {module.__name__.rpartition(".")[2] for module in FIGURES}


@pytest.mark.parametrize("grid", [0, 1])
def test_draws_where_replicas_diverged_and_settings_failed(broken: list[GridTables], grid: int) -> None:
    for drawing in drawings_of(broken[grid]):
        assert b"<svg" in to_svg(drawing.draw())
        assert "seed" in drawing.caption
        assert "ended ok" in drawing.caption or "failed" in drawing.caption or "diverged" in drawing.caption


def test_figures_of_a_recurrent_network_do_not_apply_to_an_encoder_and_a_decoder(measured: GridTables) -> None:
    placed = ("traces", "eigenvalues", "gates", "jacobians", "lyapunov")
    encoder = {name: getattr(measured, name).with_columns(part=pl.lit("encoder")) for name in placed}
    metric = pl.col("metric").str.replace("[", "[encoder.", literal=True)
    curves = measured.curves.with_columns(metric)
    left = kinds(replace(measured, curves=curves, **encoder))
    of_any = {"loss_by_length", "learning_curves", "clipping_ledger", "smoothness", "truncation_bias"}
    assert left == of_any | {"gradient_into_encoder"}


def test_draws_one_seed_at_one_length() -> None:
    shape = Shape(lengths=(10,), learning_rates=(0.01,), num_seeds=1, cells=("gru",), digits_length=None, measures=True)
    (tables,) = grids(shape)
    for drawing in drawings_of(tables):
        assert b"<svg" in to_svg(drawing.draw())


def test_nothing_is_drawn_where_everything_failed() -> None:
    shape = Shape(lengths=(10,), learning_rates=(0.01,), cells=("gru", "lstm"), digits_length=None)
    one = grids(replace(shape, broken={"gru, T=10, lr=0.01": "error"}))[0]
    left = one.runs.filter(arm="gru")
    empty = {name: getattr(one, name).clear() for name in LONG}
    assert names(replace(one, runs=left, all_runs=left, **empty)) == []


@pytest.mark.parametrize("grid", ["many", "deep"])
def test_titles_and_legends_lie_apart_and_on_the_page(request: pytest.FixtureRequest, grid: str) -> None:
    for drawing in drawings_of(request.getfixturevalue(grid)):
        figure = drawing.draw()
        figure.draw_without_rendering()
        panels = [ax for ax in figure.axes if ax.get_visible()]
        titles = {*figure.texts, *(child for ax in panels for child in ax.get_children() if _is_title(child))}
        boxes = [item.get_window_extent() for item in [*titles, *figure.legends]]
        for first, second in itertools.combinations(boxes, 2):
            assert not first.overlaps(second), drawing.kind
        for legend in figure.legends:
            assert figure.bbox.x0 <= legend.get_window_extent().x0, drawing.kind
            assert legend.get_window_extent().x1 <= figure.bbox.x1, drawing.kind


def _is_title(artist: Artist) -> bool:
    """Return whether a child of axes is a title that says something; axes have no other text above them."""
    return isinstance(artist, Text) and artist.get_text() != "" and artist.get_fontweight() == "bold"


def test_a_grid_may_choose_its_figures_and_their_order(exact: list[GridTables]) -> None:
    tables = exact[0]
    wanted = ("learning_curves", "gate_distribution", "gradient_by_lag")
    assert [drawing.kind for drawing in drawings_of(tables, wanted)] == ["learning_curves", "gradient_by_lag"]
    assert not list(drawings_of(tables, ()))


def test_an_unknown_figure_is_named_with_its_neighbour() -> None:
    check_kinds(tuple(KINDS), "here")
    check_kinds(None, "here")
    with pytest.raises(ConfigError, match="^here: unknown figure 'gradient_by_lags'; did you mean 'gradient_by_lag'"):
        check_kinds(("gradient_by_lags",), "here")
