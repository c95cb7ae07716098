"""Words fit one digit of their canvas, which is the target; neither words nor canvas alone say which it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import EOS, PAD, SPLITS, load_dataset, prepare_dataset, read_generator, read_manifest
from pipeline.data.described_digits import DIGITS, WORDS, DescribedDigits, descriptions
from pipeline.data.generator import stream
from pipeline.errors import DatasetError
from tests.data.test_digit_canvases import DIGITS as SHOWN
from tests.data.test_digit_canvases import PLATES, SHARES, read

pytest.importorskip("sklearn")

DESCRIBED = DescribedDigits(
    seed=0, num_lines=2, line_height=12, width=24, min_digits=3, max_digits=4, cell=4, shares=SHARES
)
CROWDED = dataclasses.replace(DESCRIBED, line_height=8, width=45, min_digits=2, max_digits=10, cell=1)

Box = tuple[str, int, int, int]
"""A digit, its plate, its line, and its left edge."""


def boxes_of(canvas: np.ndarray, line_height: int) -> list[Box]:
    """What stands on a canvas, read off its pixels."""
    found = []
    for plate in read(canvas, line_height):
        rows, columns = (canvas == plate).nonzero()
        found.append((DIGITS[(plate - 1) % 10], plate, rows.min() // line_height, columns.min()))
    return found


def fitting(words: list[str], boxes: list[Box]) -> Iterator[Box]:
    """The digits that a description fits, by its grammar."""
    by_name = {box[0]: box for box in boxes}
    for box in boxes:
        line = sorted((other for other in boxes if other[2] == box[2]), key=lambda other: other[3])
        match words:
            case [order, "in", "the", place, "line"]:
                count = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1}[order]
                fits = ["upper", "lower"][box[2]] == place and count < len(line) and line[count] == box
            case ["left" | "right" as side, "of", name]:
                step = 1 if side == "left" else -1
                beside = line.index(box) + step
                fits = 0 <= beside < len(line) and line[beside] == by_name[name]
            case ["above" | "below" as side, name]:
                other = by_name[name]
                shared = {*range(box[3], box[3] + 8)} & {*range(other[3], other[3] + 8)}
                fits = len(shared) > 4 and box[2] - other[2] == (-1 if side == "above" else 1)
            case _:
                raise AssertionError(words)
        if fits:
            yield box


@pytest.mark.parametrize("config", [DESCRIBED, CROWDED])
def test_words_fit_the_described_digit_alone_and_are_aligned_with_its_cells(config):
    split, seen = config.sample(stream(0), 500, config.natural_length, PLATES, SHOWN), set()
    for words, canvas, target, alignment in zip(
        split.inputs.tolist(), split.images, split.targets, split.alignment, strict=True
    ):
        end = words.index(EOS)
        assert words[end + 1 :] == [PAD] * (len(words) - end - 1)
        boxes = boxes_of(canvas, config.line_height)
        assert config.min_digits <= len({box[0] for box in boxes}) == len(boxes) <= config.max_digits
        ((name, plate, _, _),) = fitting([WORDS.tokens[word] for word in words[:end]], boxes)
        assert name == DIGITS[target]
        cell = config.cell
        share = (canvas == plate).reshape(config.height // cell, cell, -1, cell).mean(axis=(1, 3))
        np.testing.assert_array_equal(alignment[end], (share >= 0.5).ravel())
        assert not np.delete(alignment, end, axis=0).any()
        seen |= {*words}
    assert seen >= {*WORDS.encode(["first", "last", *DIGITS, "left", "right", "above", "below", "upper", "lower"])}


def test_descriptions_written_out():
    """Two above three: the lower ones lie 3, and 5 columns off, of 8."""
    lines, lefts, digits = [0, 0, 1, 1, 1], [0, 20, 3, 15, 23], [7, 2, 5, 1, 4]
    found = [descriptions(lines, lefts, digits, which) for which in range(5)]
    assert found[0] == (["first in the upper line"], ["left of two", "above five"])
    assert found[1] == (["second in the upper line", "last in the upper line"], ["right of seven", "above four"])
    assert found[2] == (["first in the lower line"], ["below seven", "left of one"])
    assert found[3] == (["second in the lower line"], ["right of five", "left of four"])
    assert found[4] == (["third in the lower line", "last in the lower line"], ["below two", "right of one"])


def test_neither_words_nor_canvas_alone_say_more_than_the_baseline():
    """Of every canvas each place is meant as often; after every word each digit but a named one is as frequent."""
    four = dataclasses.replace(DESCRIBED, min_digits=4)
    split = four.sample(stream(1), 12000, four.natural_length, PLATES, SHOWN)
    order = [
        [box[0] for box in boxes_of(canvas, 12)].index(DIGITS[target])
        for canvas, target in zip(split.images[:3000], split.targets, strict=False)
    ]
    assert (np.abs(np.bincount(order) / 3000 - 1 / 4) < 0.03).all()
    for word in (*WORDS.encode(["first", "second", "last", "upper", "lower", "left", "right", "above", "below"]),):
        counts = np.bincount(split.targets[(split.inputs == word).any(axis=1)], minlength=10)
        error = np.sqrt(counts.sum() * 0.09)
        assert (np.abs(counts - counts.mean()) < 4 * error).all()
    for digit, word in enumerate(WORDS.encode(DIGITS)):
        counts = np.bincount(split.targets[(split.inputs == word).any(axis=1)], minlength=10)
        assert counts[digit] == 0
        others = np.delete(counts, digit)
        assert (np.abs(others - others.mean()) < 4 * np.sqrt(others.mean())).all()
    dataset = DESCRIBED.generate(6, Sizes(10, 10, 10))
    assert (dataset.baseline_loss, dataset.baseline_name) == (pytest.approx(np.log(12) / 2), "image alone")


def test_a_split_shows_its_own_images_only():
    splits, parts = DESCRIBED.generate(6, Sizes(300, 50, 50)).splits, DESCRIBED.images_by_split()
    assert DESCRIBED.leaks(DESCRIBED.generate(6, Sizes(300, 50, 50))) == {"validation": 0, "test": 0}
    for name in SPLITS:
        known = {image.tobytes() for image in parts[name][0]}
        for canvas in splits[name].images[:50]:
            windows = np.lib.stride_tricks.sliding_window_view(canvas, (8, 8)).reshape(-1, 8, 8)
            assert len(known & {window.tobytes() for window in windows}) >= 3


def test_the_task_says_what_the_arrays_are_and_what_is_prepared_is_what_was_made(tmp_path, config_path, sizes):
    folder, path = tmp_path / "data" / "described_digits", config_path("described_digits")
    prepare_dataset("described_digits", path, (), sizes, folder)
    made, loaded = read_generator(path).generate(6, sizes), load_dataset(folder, None)
    assert loaded.digest == made.digest
    assert dataclasses.replace(DESCRIBED, seed=1).generate(6, sizes).digest != made.digest
    assert (loaded.input_kind, loaded.input_size, loaded.input_tokens) == ("token", len(WORDS), WORDS.tokens)
    assert (loaded.target_kind, loaded.target_at, loaded.output_size) == ("class", "last", 10)
    assert (loaded.padded, loaded.frame_shape, loaded.target_tokens) == (True, (24, 24), DIGITS)
    assert read_manifest(folder).variant(None).roles == ("inputs", "targets", "alignment", "images")
    test = loaded.splits["test"]
    for role, array in made.splits["test"].arrays.items():
        np.testing.assert_array_equal(test.arrays[role], array)
    assert {role: array.dtype for role, array in test.arrays.items()} == {
        "inputs": np.uint8,
        "targets": np.uint8,
        "alignment": bool,
        "images": np.float32,
    }
    (folder / "length-6" / "test.images.npy").unlink()
    with pytest.raises(DatasetError, match=r"test\.images\.npy: missing"):
        load_dataset(folder, None)


def test_the_drawing_is_a_canvas_below_what_is_said_of_it(sizes):
    dataset = DESCRIBED.generate(6, sizes)
    train = dataset.splits["train"]
    labels, *rows = DESCRIBED.draw(dataset).splitlines()
    said = " ".join(WORDS.decode(train.inputs[0])[:-1])
    assert labels.startswith(f"{said}: {DIGITS[train.targets[0]]}  ")
    y, x = np.unravel_index(train.images[0].argmax(), (24, 24))
    assert rows[y][2 * x : 2 * x + 2] == "@@"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_lines": 3}, "num_lines: expected 2, an upper and a lower line, got 3"),
        ({"width": 48}, "width: expected at most 47 pixels: 5 digits of a line, got 48"),
        ({"width": 44, "max_digits": 11}, "max_digits: expected an integer from 1 to 10, all that the lines have room"),
        (
            {"max_digits": 1, "min_digits": 1},
            "max_digits: expected an integer from 2 to 10, for no digit is shown twice",
        ),
        ({"min_digits": 1}, "min_digits: expected an integer from 2 to 4: of one alone the canvas says it all, got 1"),
    ],
)
def test_fields_out_of_range(change, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(DESCRIBED, **change)


def test_a_split_without_an_image_of_some_digit():
    with pytest.raises(DatasetError, match="a split has no image of eight, nine; give it a larger share"):
        DESCRIBED.sample(stream(0), 2, 6, PLATES[:8], SHOWN[:8])
