from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pipeline.figures.style import (
    LOOKS,
    NUM_COLOURS,
    canvas,
    decades,
    log_ticks,
    looks_of,
    state_looks,
    styled,
    to_png,
    to_small_png,
    to_svg,
    with_room,
)


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


def test_twelve_strangers_differ_in_colour_dashes_and_marker() -> None:
    looks = looks_of([f"arm {i}" for i in range(12)]).values()
    for part in ("colour", "marker"):
        assert len({getattr(look, part) for look in looks}) == 12
    assert len({str(look.dashes) for look in looks}) == 12


def test_a_cell_state_has_its_arms_colour_and_dashes_of_its_own() -> None:
    looks = state_looks(["lstm", "LSTM, chrono"])
    for arm in ("lstm", "LSTM, chrono"):
        assert looks[arm, "c"].colour == looks[arm, "h"].colour
        assert looks[arm, "c"].dashes != looks[arm, "h"].dashes


def test_labels_without_room_are_left_out_and_the_longest_stays() -> None:
    lengths = [50, 100, 200, 400, 750, 1000, 2000]
    assert with_room(lengths, 0.1) == [50, 100, 200, 400, 1000, 2000]
    assert with_room(lengths, 0.0) == lengths
    assert with_room([20], 0.1) == [20]


@pytest.mark.parametrize(("limits", "labels"), [((0.01, 1.0), {"0.01", "0.1", "1"}), ((0.16, 0.17), {"0.165"})])
def test_logarithmic_ticks_are_plain_numbers(limits: tuple[float, float], labels: set[str]) -> None:
    figure, axes = canvas("A finding", 1, 1, 2.0)
    axes[0, 0].set(yscale="log", ylim=limits)
    log_ticks(axes[0, 0], "y")
    figure.draw_without_rendering()
    assert labels <= {label.get_text() for label in axes[0, 0].get_yticklabels()}


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((-6.0, 0.0), {"$10^{-6}$", "$10^{-3}$", "$10^{0}$"}),
        ((-1.2, -0.1), {"0.1", "0.2", "0.5"}),
        ((0.0, 0.1), {"1.1"}),
    ],
)
def test_logarithms_are_shown_as_what_they_are_of(limits: tuple[float, float], labels: set[str]) -> None:
    figure, axes = canvas("A finding", 1, 1, 2.0)
    axes[0, 0].set_ylim(*limits)
    decades(axes[0, 0])
    figure.draw_without_rendering()
    shown = {label.get_text().replace("$10^{-1}$", "0.1") for label in axes[0, 0].get_yticklabels()}
    assert labels <= shown


def test_a_small_picture_looks_as_the_large_one_does() -> None:
    def drawn() -> Figure:
        figure, axes = canvas("A finding", 1, 2, 2.0)
        axes[0, 0].plot(range(9), color="tab:red")
        axes[0, 1].imshow(np.random.default_rng(0).random((30, 30)), cmap="viridis")
        return figure

    whole, small = to_png(drawn(), 100), to_small_png(drawn(), 100)
    assert small == to_small_png(drawn(), 100)
    assert len(small) < 0.6 * len(whole)
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in (whole, small)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 1.0  # of 255
    assert len(np.unique(pixels[1].reshape(-1, 3), axis=0)) <= NUM_COLOURS


@pytest.mark.parametrize(
    "title",
    [
        "Lowest test loss: Adam (0.0193), ahead of RMSProp (0.0616) in a comparison paired by seed",
        "MWMW " * 30,
        "il.t " * 40,
        "Antidisestablishmentarianism" * 5,
        "one",
    ],
)
def test_a_title_is_broken_where_the_figure_ends(title: str) -> None:
    figure, _ = styled(canvas)(title, 1, 1, 2.0)
    shown = figure.get_suptitle()
    assert shown.split() == title.split()
    figure.draw_without_rendering()
    lines = shown.split("\n")
    ends = []
    for line in lines:
        figure.suptitle(line, x=0.008, ha="left", fontsize=9, weight="bold")
        assert figure._suptitle is not None
        ends.append(figure._suptitle.get_window_extent().x1)
    fits = [end <= figure.bbox.x1 for line, end in zip(lines, ends, strict=True) if " " in line]
    assert all(fits)
    assert all(end > 0.8 * figure.bbox.x1 for end in ends[:-1])  # and not before
