"""Every figure draws without a warning (they are errors here), whatever went wrong in the study."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from matplotlib.artist import Artist
from matplotlib.text import Text

from pipeline import figures
from pipeline.errors import ConfigError
from pipeline.figures.catalogue import FIGURES, check_figures, discover, figures_of
from pipeline.figures.style import to_svg
from pipeline.quantities import Grid
from tests.figures.conftest import changed, grids
from tests.figures.test_outcomes import ERRORS, with_errors
from tests.figures.test_training import LOSSES, with_unseen
from tests.synthetic_attention import attending, autoencoding, captioning, describing, writing
from tests.synthetic_attention import grid as shown_grid
from tests.synthetic_decoding import ATTENTION, RECURRENCE, SCHEDULES, decoding_grid
from tests.synthetic_dynamics import orbit_grid
from tests.synthetic_results import Shape, Variant

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "figure.py"


def names(grid: Grid) -> list[str]:
    return [frame.name for frame in figures_of(grid)]


def test_figures_stand_in_the_order_of_a_report(exact: list[Grid]) -> None:
    assert names(exact[0])[:3] == ["gradient_by_lag", "gradient_heatmap", "loss_by_length"]
    assert set(names(exact[1])) == {
        "gradient_by_lag",
        "gradient_heatmap",
        "error_by_cell",
        "growth_by_singular_value",
        "learning_curves",
        "clipping_ledger",
        "spectrum",
        "eigenvalue_cloud",
    }


def test_every_figure_is_of_some_grid(measured: Grid, many: Grid, deep: Grid) -> None:
    variants = {"K = 4": Variant("lstm", backward_length=4), "full": Variant("lstm")}
    cut = grids(Shape(variants=variants, digits_length=None))[0]
    digits = grids(Shape())[1]
    tested = with_unseen(with_errors(measured, ERRORS), LOSSES)
    decoders = [decoding_grid(arms) for arms in (ATTENTION, SCHEDULES, RECURRENCE)]
    shown = [shown_grid(["dot"], attending({"dot": 0.9})), shown_grid(["a"], captioning({"a": 0.9}))]
    shown += [
        shown_grid(["a"], describing({"a": 0.9})),
        shown_grid(["lstm"], autoencoding),
        shown_grid(["lstm"], writing),
    ]
    found = [names(grid) for grid in (measured, many, deep, cut, digits, tested, *decoders, *shown, orbit_grid())]
    assert set(itertools.chain(*found)) == set(FIGURES)
    assert len(FIGURES) == 36


@pytest.mark.parametrize("grid", [0, 1])
def test_draws_where_replicas_diverged_and_settings_failed(broken: list[Grid], grid: int) -> None:
    for frame in figures_of(broken[grid]):
        assert b"<svg" in to_svg(frame.draw(broken[grid]))
        caption = frame.view(broken[grid]).caption
        assert "seed" in caption, frame.name
        assert "ended ok" in caption or "failed" in caption or "diverged" in caption, frame.name


def test_captions_and_titles_leave_no_place_unfilled(many: Grid, deep: Grid, exact: list[Grid]) -> None:
    for grid in (many, deep, *exact):
        for frame in figures_of(grid):
            view = frame.view(grid)
            text = f"{view.title} {view.caption}"
            assert not re.search(r"\{\w*\}|None|nan\b|  |\.\.", text), f"{frame.name}: {text}"


def test_figures_of_a_recurrent_network_are_of_no_encoder_and_decoder(measured: Grid) -> None:
    placed = ("traces", "eigenvalues", "gates", "jacobians", "lyapunov")
    encoder = {name: measured[name].with_columns(part=pl.lit("encoder")) for name in placed}
    curves = measured["curves"].with_columns(part=pl.col("part").replace("recurrent", "encoder"))
    left = set(names(changed(measured, curves=curves, **encoder)))
    of_any = {
        "loss_by_length",
        "criterion_by_length",
        "learning_curves",
        "clipping_ledger",
        "smoothness",
        "truncation_bias",
    }
    assert left == of_any | {"gradient_into_encoder"}


def test_draws_one_seed_at_one_length() -> None:
    shape = Shape(lengths=(10,), learning_rates=(0.01,), num_seeds=1, cells=("gru",), digits_length=None, measures=True)
    (grid,) = grids(shape)
    for frame in figures_of(grid):
        assert b"<svg" in to_svg(frame.draw(grid))


def test_nothing_is_drawn_where_everything_failed() -> None:
    shape = Shape(lengths=(10,), learning_rates=(0.01,), cells=("gru", "lstm"), digits_length=None)
    (one,) = grids(replace(shape, broken={"gru, T=10, lr=0.01": "error"}))
    left = one.runs.filter(arm="gru")
    assert (
        names(changed(one, runs=left, all_runs=left, **{name: frame.clear() for name, frame in one.long.items()})) == []
    )


@pytest.mark.parametrize("grid", ["many", "deep"])
def test_titles_and_legends_lie_apart_and_on_the_page(request: pytest.FixtureRequest, grid: str) -> None:
    drawn = request.getfixturevalue(grid)
    for frame in figures_of(drawn):
        figure = frame.draw(drawn)
        figure.draw_without_rendering()
        panels = [ax for ax in figure.axes if ax.get_visible()]
        titles = {*figure.texts, *(child for ax in panels for child in ax.get_children() if _is_title(child))}
        boxes = [item.get_window_extent() for item in [*titles, *figure.legends]]
        for first, second in itertools.combinations(boxes, 2):
            assert not first.overlaps(second), frame.name
        for legend in figure.legends:
            assert figure.bbox.x0 <= legend.get_window_extent().x0, frame.name
            assert legend.get_window_extent().x1 <= figure.bbox.x1, frame.name


def _is_title(artist: Artist) -> bool:
    """Return whether a child of axes is a title that says something; axes have no other text above them."""
    return isinstance(artist, Text) and artist.get_text() != "" and artist.get_fontweight() == "bold"


def test_the_same_tables_give_the_same_bytes() -> None:
    first, second = (grids(Shape(measures=True, digits_length=None))[0] for _ in range(2))
    for frame in figures_of(first):
        assert to_svg(frame.draw(first)) == to_svg(frame.draw(second)), frame.name


def test_a_grid_may_choose_its_figures_and_their_order(exact: list[Grid]) -> None:
    wanted = ("learning_curves", "gate_distribution", "gradient_by_lag")
    assert [frame.name for frame in figures_of(exact[0], wanted)] == ["learning_curves", "gradient_by_lag"]
    assert not list(figures_of(exact[0], ()))


def test_an_unknown_figure_is_named_with_its_neighbour() -> None:
    check_figures(tuple(FIGURES), "here")
    check_figures(None, "here")
    with pytest.raises(ConfigError, match="^here: unknown figure 'gradient_by_lags'; did you mean 'gradient_by_lag'"):
        check_figures(("gradient_by_lags",), "here")


@pytest.mark.parametrize("name", ["", "gradient-by-lag", "a/b", "../a", "größe", "a b"])
def test_a_figure_has_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^figure {name!r}: expected a name of letters, digits and _ only$"):
        replace(FIGURES["gradient_by_lag"], name=name)


def test_a_figure_of_a_function_says_which_quantity_its_rows_are_of() -> None:
    with pytest.raises(ConfigError, match="^figure 'gradient_by_lag': expected the quantity of its rows, or means"):
        replace(FIGURES["gradient_by_lag"], quantity=None)


def test_a_figure_is_added_by_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: list[Grid]
) -> None:
    (tmp_path / "step_times.py").write_text(EXAMPLE.read_text())
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    found = discover()
    monkeypatch.delitem(sys.modules, "pipeline.figures.step_times")
    assert list(found) == [*FIGURES, "step_time"]
    view = found["step_time"].view(exact[0])
    assert "(8.00 ms)" in view.title
    assert "All 9 replicas ended ok." in view.caption
    assert to_svg(found["step_time"].draw(exact[0])) == to_svg(found["step_time"].draw(exact[0]))
    assert len(EXAMPLE.read_text().splitlines()) <= 25
