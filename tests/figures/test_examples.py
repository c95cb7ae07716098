from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes

from pipeline.figures import examples
from pipeline.figures.examples import captions, cells_of, drawn_texts, reconstructions, samples
from pipeline.figures.style import to_svg
from pipeline.quantities import Grid
from tests.synthetic_attention import attending, autoencoding, captioning, grid, writing
from tests.synthetic_decoding import with_tables

INSIDE = {"plain": 0.8, "doubly stochastic": 0.6}
ERRORS = {"plain": 0.1, "doubly stochastic": 0.05}
LOSSES = {"lstm": 0.02, "gru": 0.04}


def errors(arm: str, seed: int) -> dict[str, object]:
    return {"test_error": ERRORS[arm] + 0.01 * seed}


def losses(arm: str, seed: int) -> dict[str, object]:
    return {"test_loss": LOSSES[arm] + 0.01 * seed, "baseline_loss": 0.1}


@pytest.fixture(scope="module")
def captioned() -> Grid:
    broken = {"doubly stochastic#0": "diverged", "plain#1": "error"}
    return grid(list(INSIDE), captioning(INSIDE), num_seeds=3, broken=broken, trial=errors)


@pytest.fixture(scope="module")
def coded() -> Grid:
    return grid(list(LOSSES), autoencoding, num_seeds=3, broken={"lstm#0": "diverged", "gru#2": "error"}, trial=losses)


@pytest.fixture(scope="module")
def written() -> Grid:
    broken = {"lstm#0": "timed_out", "lstm#1": "diverged", "gru#1": "error"}
    return grid(["gru", "lstm"], writing, num_seeds=3, broken=broken, trial=losses)


def test_each_figure_is_of_what_was_kept(captioned: Grid, coded: Grid, written: Grid) -> None:
    figures, grids = (captions, reconstructions, samples), (captioned, coded, written)
    found = [[figure.is_of(tables) for tables in grids] for figure in figures]
    assert found == [[True, False, False], [False, True, False], [False, False, True]]
    assert not any(figure.is_of(grid(["dot"], attending({"dot": 0.9}))) for figure in figures)


def test_captions_are_those_of_the_best_arm_with_its_words(captioned: Grid) -> None:
    drawn = captions.view(captioned).rows
    assert drawn.select("arm", "seed").unique().rows() == [("doubly stochastic", 1)]
    words = drawn.select("example", "output_position", "written", "true").unique(maintain_order=True)
    assert words.rows()[3:] == [(1, 1, "seven", "seven"), (1, 2, "one", "four"), (1, 3, "<eos>", "<eos>")]
    inside = drawn.filter("aligned")
    assert inside["source_position"].to_list() == [3, 9, 2, 11]
    assert inside["weight"].to_list() == pytest.approx([0.6] * 4)


def test_the_title_states_right_captions_and_attention(captioned: Grid) -> None:
    title = captions.view(captioned).title
    assert title.startswith("«doubly stochastic» writes 94 %")
    assert "60 % of its attention" in title
    runs = captioned.runs.with_columns(test_error=pl.lit(None, pl.Float64))
    unknown = captions.view(with_tables(captioned, runs=runs, curves=captioned["curves"].clear())).title
    assert unknown.startswith("Plain")
    assert "%" not in unknown


@pytest.mark.parametrize(
    ("num_cells", "aspect", "shape"),
    [(12, 8 / 24, (2, 6)), (49, 1.0, (7, 7)), (70, 20 / 60, (5, 14)), (14, 0.5, (2, 7))],
)
def test_cells_are_as_square_as_can_be(num_cells: int, aspect: float, shape: tuple[int, int]) -> None:
    assert cells_of(num_cells, aspect) == shape


def panels(tables: Grid) -> list[Axes]:
    return [ax for ax in captions.draw(tables).axes if ax.get_visible()]


def titles(axes: list[Axes]) -> list[str]:
    return [ax.get_title(loc="left") for ax in axes]


def test_each_word_has_its_image_under_a_veil(captioned: Grid) -> None:
    axes = panels(captioned)
    assert titles(axes) == ["image", "three", "nine", "<eos>", "image", "seven", "one ≠ four", "<eos>"]
    veil = np.asarray(axes[6].images[1].get_array())[..., 3]  # the second word, of cell 10
    clear = 0.4 / 11 / 0.6  # of a cell outside, relative to the one inside
    expected = np.full(12, examples.OPACITY * (1 - clear))
    expected[10] = 0.0
    assert veil.ravel() == pytest.approx(expected)
    (border,) = axes[6].collections
    assert np.ptp(np.concatenate([path.vertices for path in border.get_paths()]), axis=0).tolist() == [4, 4]


def test_the_caption_of_captions_says_what_is_shown(captioned: Grid) -> None:
    caption = captions.view(captioned).caption
    assert "the words of «doubly stochastic» (each arm's first seed that did not diverge" in caption
    assert "over 2 seeds with 95 % interval: plain: 0.11" in caption
    assert "1 diverged and 1 failed with an error: diverged and failed ones are not shown" in caption
    assert "Cut" not in caption


def test_long_captions_are_cut_and_a_missing_word_is_marked(captioned: Grid) -> None:
    attention = captioned["attention"]
    long = with_tables(
        captioned, attention=pl.concat([attention, attention.with_columns(pl.col("output_position") + 3)])
    )
    assert "Cut after 5 words." in captions.view(long).caption
    assert titles(panels(long)[:6]) == ["image", "three", "nine", "<eos>", "–", "–"]
    tokens = captioned["tokens"].filter((pl.col("sequence") == "target") | (pl.col("position") < 2))
    assert titles(panels(with_tables(captioned, tokens=tokens))[:4]) == ["image", "three", "– ≠ nine", "– ≠ <eos>"]


def test_images_may_be_left_by_another_replica(captioned: Grid) -> None:
    elsewhere = with_tables(captioned, images=captioned["images"].filter(arm="plain", seed=2))
    assert captions.view(elsewhere).rows.equals(captions.view(captioned).rows)
    assert to_svg(captions.draw(elsewhere)) == to_svg(captions.draw(captioned))


def test_captions_of_one_seed_without_a_known_alignment() -> None:
    one = grid(["plain"], captioning(INSIDE), num_seeds=1, trial=lambda arm, seed: {"test_error": 0.0})
    blank = with_tables(one, attention=one["attention"].with_columns(aligned=pl.lit(None, pl.Boolean)))
    assert "Inside the border" in captions.view(one).caption
    assert "Inside the border" not in captions.view(blank).caption
    to_svg(captions.draw(blank))


def test_reconstructions_are_of_the_first_seed_and_eight_frames(coded: Grid) -> None:
    drawn = reconstructions.view(coded).rows
    assert drawn.select("arm", "seed").unique(maintain_order=True).rows() == [("lstm", 1), ("gru", 0)]
    assert drawn["example"].unique().sort().to_list() == [0, 1]
    assert drawn["frame"].unique().sort().to_list() == [1, 2, 4, 5, 6, 7, 9, 10]
    assert drawn.height == 2 * 2 * 2 * 8 * 36


def test_the_title_states_the_error_relative_to_the_baseline(coded: Grid) -> None:
    title = reconstructions.view(coded).title
    assert "the LSTM leave 34.6 % of the baseline's error, by the GRU 44.7 %" in title
    one = reconstructions.view(grid(["gru"], autoencoding, num_seeds=1, trial=losses))
    assert "the GRU leave 40 %" in one.title
    assert "mean over 1 seed" in one.caption
    unknown = reconstructions.view(
        with_tables(coded, runs=coded.runs.with_columns(baseline_loss=pl.lit(None, pl.Float64)))
    )
    assert unknown.title.endswith("the LSTM and the GRU; no baseline is known")
    assert "baseline" not in unknown.caption


def test_the_input_lies_above_what_each_arm_makes_of_it(coded: Grid) -> None:
    axes = reconstructions.draw(coded).axes
    assert [ax.get_ylabel() for ax in axes[::8]] == ["input", "LSTM", "GRU"] * 2
    assert titles(list(axes[:3])) == ["frame 1", "frame 2", "frame 4"]
    shown = np.array([np.asarray(ax.images[0].get_array()) for ax in axes]).reshape(2, 3, 8, 6, 6)
    assert shown[0, 0, 2, 1, 3] == 1.0  # the dot of the first example is in row 1, and in column 3 of frame 4
    assert shown[:, 1:] == pytest.approx(shown[:, :1].repeat(2, 1) / 2)
    assert {ax.images[0].get_clim() for ax in axes} == {(0.0, 1.0)}


def test_the_caption_of_reconstructions_says_what_is_left_out(coded: Grid) -> None:
    caption = reconstructions.view(coded).caption
    assert "8 of 10 frames are shown, evenly spaced." in caption
    assert "geometric mean over 2 seeds with 95 % interval: LSTM: 0.35" in caption
    assert "1 diverged and 1 failed with an error: diverged and failed ones are not shown" in caption


def test_of_many_arms_three_have_a_strip() -> None:
    view = reconstructions.view(grid([f"arm {i}" for i in range(5)], autoencoding, num_seeds=1))
    assert len(view.shown) == 3
    assert "3 of 5 arms are shown" in view.caption
    assert len(reconstructions.draw(view.grid).axes) == 2 * (1 + 3) * 8


def test_the_first_texts_of_each_arm_are_drawn(written: Grid) -> None:
    drawn = drawn_texts(samples.view(written))
    assert drawn.select("arm", "seed", "example").unique(maintain_order=True).rows() == [("gru", 0, 0), ("lstm", 0, 0)]
    texts = dict(drawn.filter(arm="lstm").select("sequence", "text").iter_rows())
    assert list(texts) == ["prompt", "greedy", "sample (temperature 1.0)"]
    assert texts["prompt"] == "def "
    assert texts["greedy"] == "abcd" * 75
    assert texts["sample (temperature 1.0)"].endswith("xyz⏎nyeon")


def test_of_one_arm_there_are_more_prompts() -> None:
    tables = grid(["lstm"], writing)
    assert drawn_texts(samples.view(tables))["example"].unique().sort().to_list() == [0, 1]
    assert titles(list(samples.draw(tables).axes)) == ["a  LSTM", "b  LSTM"]


def test_words_are_put_together_with_gaps(written: Grid) -> None:
    words = with_tables(written, tokens=written["tokens"].with_columns(token=pl.lit("word")))
    assert drawn_texts(samples.view(words))["text"][0] == "word word word word"


def test_the_title_names_the_text_that_repeats_itself_most(written: Grid) -> None:
    title = samples.view(written).title
    assert title.startswith("In the texts of the LSTM greedy repeats most: 1 %")  # it has the lower test loss
    assert "100 % in sample (temperature 1.0)" in title
    greedy = written["tokens"].filter(pl.col("sequence").is_in(["prompt", "greedy"]))
    assert "1 % of runs of 4 characters" in samples.view(with_tables(written, tokens=greedy)).title
    short = samples.view(with_tables(written, tokens=written["tokens"].filter(pl.col("position") < 4))).title
    assert "the GRU and the LSTM" in short
    assert "%" not in short


def test_texts_are_drawn_in_lines_and_cut(written: Grid) -> None:
    figure = samples.draw(written)
    assert titles(list(figure.axes)) == ["a  GRU", "b  LSTM"]
    _, prompt, label, greedy, *_ = (text.get_text() for text in figure.axes[0].texts)
    assert (prompt, label) == ("def ", "greedy")
    lines = greedy.split("\n")
    assert [len(line) for line in lines] == [examples.LETTERS] * examples.MAX_LINES
    assert "".join(lines) == ("abcd" * 75)[: 3 * examples.LETTERS - 1] + "…"
    assert "Texts are cut after 246 letters." in samples.view(written).caption


def test_texts_lie_apart_and_on_the_page(written: Grid) -> None:
    figure = samples.draw(written)
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_the_caption_of_samples_says_what_is_left_out(written: Grid) -> None:
    caption = samples.view(written).caption
    assert "Test loss in nats per token, geometric mean over 2 seeds" in caption
    assert "1 diverged, 1 ran out of time and 1 failed with an error: diverged and failed ones are not shown" in caption


def test_formulas_and_one_seed_without_losses_are_drawn() -> None:
    tables = grid(["lstm"], writing, num_seeds=1)
    to_svg(samples.draw(with_tables(tables, tokens=tables["tokens"].with_columns(token=pl.lit("$")))))
    assert "Test loss" not in samples.view(tables).caption
    short = with_tables(tables, tokens=tables["tokens"].filter(pl.col("position") < 9))
    assert "Texts are cut" not in samples.view(short).caption
