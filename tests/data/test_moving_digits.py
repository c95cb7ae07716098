"""A digit moves by one pixel along each axis and turns at the borders; the targets are told from where it goes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import SPLITS, read_generator
from pipeline.data.digit_sequences import DIRECTIONS, MovingDigits, mean_frame_loss, memoryless_loss
from pipeline.data.generator import Shares, stream
from pipeline.errors import ConfigError, DatasetError

pytest.importorskip("sklearn")

SHARES = Shares(train=0.7, validation=0.15, test=0.15)
MOVING = MovingDigits(seed=0, lengths=(), task="frame", frame_side=12, shares=SHARES)
PLATE, DIGIT = np.ones((1, 8, 8), dtype=np.float32), np.zeros(1, dtype=np.uint8)


def places(frames: np.ndarray, frame_side: int) -> np.ndarray:
    """Return the top and left edge of a white plate in every frame, (2, N, T)."""
    plates = frames.reshape(*frames.shape[:2], frame_side, frame_side) > 0
    assert (plates.sum(axis=(2, 3)) == 64).all()
    return np.array([plates.any(axis=axis).argmax(axis=2) for axis in (3, 2)])


@pytest.mark.parametrize("frame_side", [9, 12, 16])
def test_a_digit_moves_by_one_pixel_along_each_axis_and_turns_at_borders_only(frame_side):
    moving = dataclasses.replace(MOVING, frame_side=frame_side, task="sequence")
    split = moving.sample(stream(0), 200, 30, PLATE, DIGIT)
    where = places(split.inputs, frame_side)
    assert (where.min(), where.max()) == (0, frame_side - 8)
    steps = np.diff(where, axis=2)
    assert set(steps.ravel()) == {-1, 1}
    turns, middle = steps[..., 1:] != steps[..., :-1], where[..., 1:-1]
    np.testing.assert_array_equal(turns, (middle == 0) | (middle == frame_side - 8))


def test_the_direction_of_a_frame_is_where_the_digit_goes_next():
    split = MOVING.sample(stream(0), 200, 12, PLATE, DIGIT)
    longer = MOVING.sample(stream(0), 200, 13, PLATE, DIGIT)
    np.testing.assert_array_equal(longer.inputs[:, :12], split.inputs)
    names = {(-1, -1): "up-left", (-1, 1): "up-right", (1, -1): "down-left", (1, 1): "down-right"}
    steps = np.diff(places(longer.inputs, 12), axis=2)
    for target, *step in zip(split.targets.ravel(), *steps.reshape(2, -1).tolist(), strict=True):
        assert DIRECTIONS[target] == names[tuple(step)]


def test_the_memoryless_loss_is_that_of_the_best_answer_to_the_place():
    split = MOVING.sample(stream(0), 3000, 10, PLATE, DIGIT)
    tops, lefts = places(split.inputs, 12)
    table = np.zeros((25, 4))
    np.add.at(table, ((5 * tops + lefts).ravel(), split.targets.ravel()), 1)
    shares = table / table.sum(axis=1, keepdims=True)
    entropy = -(table * np.log(np.where(shares > 0, shares, 1))).sum() / table.sum()
    assert entropy == pytest.approx(memoryless_loss(12), abs=0.01)
    assert memoryless_loss(12) == pytest.approx(2 * 3 / 4 * math.log(2))
    np.testing.assert_allclose(np.bincount(tops[:, -1]) / 3000, [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], atol=0.03)


def test_the_mean_frame_loss_is_the_variance_of_pixels():
    frames = MOVING.generate(5, Sizes(100, 1, 1)).splits["train"].inputs
    expected = frames.astype(np.float64).reshape(-1, 144).var(axis=0).mean()
    assert mean_frame_loss(frames) == pytest.approx(expected, rel=1e-9)


def test_a_split_shows_its_own_images_only_and_says_which_digit():
    small = dataclasses.replace(MOVING, task="sequence", frame_side=9)
    splits, parts = small.generate(2, Sizes(300, 50, 50)).splits, small.images_by_split()
    for split in SPLITS:
        labels = {image.tobytes(): digit for image, digit in zip(*parts[split], strict=True)}
        first = splits[split].inputs[:, 0].reshape(-1, 9, 9)
        for frame, target in zip(first, splits[split].targets, strict=True):
            boxes = [frame[y : y + 8, x : x + 8] for y in (0, 1) for x in (0, 1)]
            held = [labels[box.tobytes()] for box in boxes if box.tobytes() in labels and box.sum() == frame.sum()]
            assert target in held


def test_the_three_tasks_have_the_same_frames(sizes):
    frame, sequence, rebuilt = (
        dataclasses.replace(MOVING, task=task).generate(6, sizes) for task in ("frame", "sequence", "reconstruct")
    )
    for dataset in (frame, sequence, rebuilt):
        assert (dataset.input_kind, dataset.input_size, dataset.frame_shape) == ("real", 144, (12, 12))
        assert dataset.num_timesteps == dataset.length == 6
        train = dataset.splits["train"]
        assert (train.inputs.shape, train.inputs.dtype, train.alignment) == ((40, 6, 144), np.float32, None)
        np.testing.assert_array_equal(train.inputs, frame.splits["train"].inputs)
    assert (frame.target_kind, frame.target_at, frame.output_size) == ("class", "every", 4)
    assert (frame.baseline_loss, frame.baseline_name) == (memoryless_loss(12), "memoryless")
    assert (frame.target_tokens, frame.splits["train"].targets.shape) == (DIRECTIONS, (40, 6))
    assert (sequence.target_kind, sequence.target_at, sequence.output_size) == ("class", "last", 10)
    assert (sequence.baseline_loss, sequence.baseline_name) == (math.log(10), "chance")
    assert (sequence.target_tokens, sequence.splits["train"].targets.shape) == (tuple("0123456789"), (40,))
    assert frame.splits["train"].targets.dtype == sequence.splits["train"].targets.dtype == np.uint8


def test_what_is_to_be_reconstructed_is_what_was_seen(sizes):
    dataset = dataclasses.replace(MOVING, task="reconstruct").generate(6, sizes)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("value", "sequence", 144)
    assert (dataset.target_tokens, dataset.padded) == (None, False)
    for split in SPLITS:
        np.testing.assert_array_equal(dataset.splits[split].targets, dataset.splits[split].inputs)
    loss = mean_frame_loss(dataset.splits["train"].inputs)
    assert (dataset.baseline_loss, dataset.baseline_name) == (loss, "mean frame")


def test_the_same_again_and_other_data_with_another_seed(sizes):
    digest = MOVING.generate(4, sizes).digest
    assert MOVING.generate(4, sizes).digest == digest
    assert dataclasses.replace(MOVING, seed=1).generate(4, sizes).digest != digest
    assert MOVING.source()["num_images"] == 1797


def test_one_frame(sizes):
    with pytest.raises(DatasetError, match="dataset 'moving_digits': length 1 is impossible; a digit has to move"):
        MOVING.generate(1, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_side": 8}, "frame_side: expected more than the 8 pixels of a digit, got 8"),
        ({"lengths": (5, 5)}, "lengths: expected each length once"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_fields_out_of_range(change, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(MOVING, **change)


def test_an_unknown_task(config_path):
    text = config_path("moving_digits").read_text().replace("task: frame", "task: frames")
    with pytest.raises(ConfigError, match="task: unknown value 'frames'; did you mean 'frame'"):
        read_generator(config_path("moving_digits", text))


def test_the_drawing_says_what_every_frame_is_to_be_called(sizes):
    dataset = MOVING.generate(4, sizes)
    labels = MOVING.draw(dataset).splitlines()[0]
    for t, target in enumerate(dataset.splits["train"].targets[0]):
        assert f"frame {t + 1}: {DIRECTIONS[target]}" in labels or t == 3
    sequence = dataclasses.replace(MOVING, task="sequence")
    named = sequence.draw(sequence.generate(4, sizes))
    assert f"frame 4: {sequence.generate(4, sizes).splits['train'].targets[0]}\n" in named
    rebuilt = dataclasses.replace(MOVING, task="reconstruct")
    assert "frame 4\n" in rebuilt.draw(rebuilt.generate(4, sizes))
