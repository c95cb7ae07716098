"""The words of a canvas are what is read on it line by line, and each is aligned with the cells under its digit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import EOS, PAD, SPLITS, Split, load_dataset, prepare_dataset, read_generator
from pipeline.data.digit_canvases import WORDS, DigitCanvases, covered_cells
from pipeline.data.generator import Shares, stream
from pipeline.errors import DatasetError

pytest.importorskip("sklearn")

SHARES = Shares(train=0.7, validation=0.15, test=0.15)
CANVASES = DigitCanvases(
    seed=0, num_lines=2, line_height=12, width=24, min_digits=1, max_digits=3, cell=4, shares=SHARES
)
CROWDED = dataclasses.replace(CANVASES, num_lines=3, line_height=9, width=28, min_digits=5, max_digits=9, cell=1)
FULL = dataclasses.replace(CANVASES, num_lines=3, line_height=8, width=24, min_digits=9, max_digits=9)

DIGITS = (np.arange(1000) % 10).astype(np.uint8)
PLATES = np.broadcast_to(np.arange(1, 1001, dtype=np.float32)[:, None, None], (1000, 8, 8))
"""A thousand images of one brightness each, which tells them apart: what a canvas shows can be read off its pixels."""


def shown(split: Split, config: DigitCanvases) -> Iterator[tuple[list[int], np.ndarray, list[int], np.ndarray]]:
    """Yield what is read on each canvas, the canvas, its target and its alignment, where no plate is there twice."""
    for canvas, target, alignment in zip(split.inputs, split.targets.tolist(), split.alignment, strict=True):
        plates = read(canvas, config.line_height)
        if len(set(plates)) == len(plates):
            assert all((canvas == plate).sum() == 64 for plate in plates)
            yield plates, canvas, target, alignment


def read(canvas: np.ndarray, line_height: int) -> list[int]:
    """Return the brightness of every plate on a canvas, line by line, from left to right."""
    plates = []
    for line in np.split(canvas, len(canvas) // line_height):
        columns = line.max(axis=0).astype(int).tolist()
        while any(columns):
            first = next(x for x, brightness in enumerate(columns) if brightness)
            assert len(set(columns[first : first + 8])) == 1
            plates.append(columns[first])
            columns[: first + 8] = [0] * (first + 8)
    return plates


@pytest.mark.parametrize("config", [CANVASES, CROWDED, FULL])
def test_the_words_are_what_is_read_line_by_line(config):
    split = config.sample(stream(0), 300, config.natural_length, PLATES, DIGITS)
    assert split.inputs.shape == (300, config.height, config.width)
    num_read = []
    for plates, _, target, _ in shown(split, config):
        words = [(plate - 1) % 10 + 3 for plate in plates]
        assert target == [*words, EOS, *[PAD] * (config.max_digits - len(words))]
        num_read.append(len(words))
    assert len(num_read) > 250
    assert set(num_read) == set(range(config.min_digits, config.max_digits + 1))


@pytest.mark.parametrize("config", [CANVASES, CROWDED, dataclasses.replace(CANVASES, line_height=15, cell=3)])
def test_a_word_is_aligned_with_the_cells_that_its_digit_covers_at_least_by_half(config):
    split, cell = config.sample(stream(1), 100, config.natural_length, PLATES, DIGITS), config.cell
    for plates, canvas, _, alignment in shown(split, config):
        cells = canvas.reshape(config.height // cell, cell, config.width // cell, cell)
        for u, plate in enumerate(plates):
            share = (cells == plate).mean(axis=(1, 3))
            np.testing.assert_array_equal(alignment[u], (share >= 0.5).ravel())
            assert alignment[u].any()
        assert not alignment[len(plates) :].any()


def test_cells_written_out():
    aligned = covered_cells(np.array([2, 1]), np.array([4, 3]), 12, 16, 4).reshape(2, 3, 4).astype(int)
    assert aligned[0].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]  # rows half, whole, half
    assert aligned[1].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]  # 12 of 16, 9 of 16; 3 of 16 at the left


def test_numbers_and_places_vary():
    split = CANVASES.sample(stream(0), 3000, CANVASES.natural_length, PLATES, DIGITS)
    num_words = (split.targets > EOS).sum(axis=1)
    assert (np.abs(np.bincount(num_words)[1:] / 3000 - 1 / 3) < 0.03).all()
    alone = split.inputs[num_words == 1] > 0
    tops, lefts = alone.any(axis=2).argmax(axis=1), alone.any(axis=1).argmax(axis=1)
    assert set(tops) == {0, 1, 2, 3, 4, 12, 13, 14, 15, 16}
    assert set(lefts) == set(range(17))


def test_a_split_shows_its_own_images_only():
    framed = dataclasses.replace(CANVASES, num_lines=1, line_height=8, width=8, max_digits=1)
    splits, parts = framed.generate(2, Sizes(300, 50, 50)).splits, framed.images_by_split()
    for split in SPLITS:
        labels = {image.tobytes(): digit for image, digit in zip(*parts[split], strict=True)}
        words = [labels[canvas.tobytes()] + 3 for canvas in splits[split].inputs]
        assert splits[split].targets[:, 0].tolist() == words


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = CANVASES.generate(4, sizes)
    assert (dataset.input_kind, dataset.input_size, dataset.input_tokens) == ("image", 1, None)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "sequence", 13)
    assert (dataset.padded, dataset.target_tokens[3], dataset.target_tokens[12]) == (True, "zero", "nine")
    assert dataset.num_timesteps == dataset.length == CANVASES.natural_length == 4
    test = dataset.splits["test"]
    assert (test.inputs.shape, test.targets.shape, test.alignment.shape) == ((20, 24, 24), (20, 4), (20, 4, 36))
    assert (test.inputs.dtype, test.targets.dtype, test.alignment.dtype) == (np.float32, np.uint8, bool)
    assert 0 == test.inputs.min() < test.inputs.max() <= 1
    assert CANVASES.source()["num_images"] == 1797


def test_the_baseline_knows_how_often_each_word_is_written():
    dataset = CANVASES.generate(4, Sizes(4000, 1, 1))
    end, word = 1 / 3, 2 / 3 / 10
    expected = -(end * np.log(end) + 10 * word * np.log(word))
    assert (dataset.baseline_loss, dataset.baseline_name) == (pytest.approx(expected, abs=0.01), "unigram")


def test_the_same_again_and_other_data_with_another_seed(sizes):
    digest = CANVASES.generate(4, sizes).digest
    assert CANVASES.generate(4, sizes).digest == digest
    assert dataclasses.replace(CANVASES, seed=1).generate(4, sizes).digest != digest


@pytest.mark.parametrize("length", [None, 4])
def test_what_is_prepared_is_what_was_made(length, tmp_path, config_path, sizes):
    folder = tmp_path / "data" / "digit_canvases"
    prepare_dataset("digit_canvases", config_path("digit_canvases"), (), sizes, folder)
    made, loaded = read_generator(config_path("digit_canvases")).generate(4, sizes), load_dataset(folder, length)
    assert loaded.digest == made.digest
    np.testing.assert_array_equal(loaded.splits["test"].alignment, made.splits["test"].alignment)


def test_another_length_than_that_of_the_longest_target(sizes):
    with pytest.raises(DatasetError, match=r"length 3 is impossible; the names of 3 digits .*write null \(or 4\)"):
        CANVASES.generate(3, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_lines": 0}, "num_lines: expected an integer of at least 1, got 0"),
        ({"line_height": 7}, "line_height: expected at least the 8 pixels of a digit, got 7"),
        ({"width": 4}, "width: expected at least the 8 pixels of a digit, got 4"),
        ({"max_digits": 7}, "max_digits: expected an integer from 1 to 6, all that the lines have room for, got 7"),
        ({"min_digits": 4}, r"min_digits: expected an integer from 1 to 3 \(max_digits\), got 4"),
        ({"min_digits": 0}, r"min_digits: expected an integer from 1 to 3 \(max_digits\), got 0"),
        ({"cell": 5}, "cell: expected 1 to 4 pixels that divide the canvas of 24 x 24, got 5"),
        ({"width": 26}, "cell: expected 1 to 4 pixels that divide the canvas of 24 x 26, got 4"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_fields_out_of_range(change, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(CANVASES, **change)


def test_the_drawing_is_a_canvas_below_its_words(sizes):
    dataset = CANVASES.generate(4, sizes)
    labels, *rows = CANVASES.draw(dataset).splitlines()
    train = dataset.splits["train"]
    assert labels[:48].split() == list(WORDS.decode(train.targets[0])[:-1])
    y, x = np.unravel_index(train.inputs[0].argmax(), (24, 24))
    assert rows[y][2 * x : 2 * x + 2] == "@@"
