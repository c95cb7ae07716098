"""Every image is counted against the others by the digit that scikit-learn says it shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.dataset import SPLITS
from pipeline.data.digit_sequences import MatchingDigits
from pipeline.data.generator import Shares
from pipeline.errors import DatasetError

pytest.importorskip("sklearn")

SHARES = Shares(train=0.7, validation=0.15, test=0.15)
MATCHING = MatchingDigits(seed=0, lengths=(), num_digits=3, shares=SHARES)


@pytest.mark.parametrize(("num_digits", "length"), [(3, 8), (1, 5), (10, 6), (2, 52)])
def test_targets_and_alignment_counted_by_hand(num_digits, length):
    dataset = dataclasses.replace(MATCHING, num_digits=num_digits).generate(length, Sizes(60, 20, 20))
    parts = MATCHING.images_by_split()
    for split in SPLITS:
        labels = {image.tobytes(): int(digit) for image, digit in zip(*parts[split], strict=True)}
        arrays = dataset.splits[split]
        for inputs, targets, alignment in zip(arrays.inputs, arrays.targets, arrays.alignment, strict=True):
            assert len({image.tobytes() for image in inputs}) == length
            digits = [labels[image.tobytes()] for image in inputs]
            assert len(set(digits)) <= num_digits
            assert targets.tolist() == [digits.count(digit) - 1 for digit in digits]
            expected = [[digits[t] == digits[s] and t != s for s in range(length)] for t in range(length)]
            assert alignment.tolist() == expected


def test_digits_are_drawn_alike_and_in_any_order():
    dataset = MATCHING.generate(4, Sizes(4000, 1, 1))
    images, digits = MATCHING.images_by_split()["train"]
    index = {image.tobytes(): i for i, image in enumerate(images)}
    chosen = np.array([[index[image.tobytes()] for image in sequence] for sequence in dataset.splits["train"].inputs])
    assert (np.abs(np.bincount(digits[chosen].ravel()) / 16_000 - 1 / 10) < 0.015).all()
    assert len(set(chosen.ravel())) == len(images)
    means = chosen.mean(axis=0)
    assert (np.abs(means - (len(images) - 1) / 2) < 4 * len(images) / np.sqrt(12 * 4000)).all()


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = MATCHING.generate(8, sizes)
    assert (dataset.input_kind, dataset.input_size, dataset.frame_shape) == ("real", 64, (8, 8))
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "every", 8)
    assert dataset.target_tokens == ("0", "1", "2", "3", "4", "5", "6", "7")
    assert dataset.num_timesteps == dataset.length == 8
    test = dataset.splits["test"]
    assert (test.inputs.shape, test.targets.shape, test.alignment.shape) == ((20, 8, 64), (20, 8), (20, 8, 8))
    assert (test.inputs.dtype, test.targets.dtype, test.alignment.dtype) == (np.float32, np.uint8, bool)
    assert MATCHING.source()["num_images"] == 1797


def test_the_baseline_knows_how_often_each_number_is_the_answer():
    dataset = MATCHING.generate(8, Sizes(500, 1, 1))
    shares = np.unique(dataset.splits["train"].targets, return_counts=True)[1] / 4000
    assert dataset.baseline_loss == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-12)
    assert dataset.baseline_name == "unigram"


def test_the_same_again_and_other_data_with_another_seed(sizes):
    digest = MATCHING.generate(4, sizes).digest
    assert MATCHING.generate(4, sizes).digest == digest
    assert dataclasses.replace(MATCHING, seed=1).generate(4, sizes).digest != digest


@pytest.mark.parametrize("length", [1, 79])
def test_a_length_without_matches_or_without_images(length, sizes):
    message = rf"length {length} is impossible; no image is shown twice, .*from 2 to 78"  # 26 eights to test with
    with pytest.raises(DatasetError, match=message):
        MATCHING.generate(length, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_digits": 0}, "num_digits: expected an integer from 1 to 10, got 0"),
        ({"num_digits": 11}, "num_digits: expected an integer from 1 to 10, got 11"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_fields_out_of_range(change, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(MATCHING, **change)


def test_the_drawing_is_a_sequence_of_images_below_their_targets(sizes):
    dataset = MATCHING.generate(4, sizes)
    labels, *rows = MATCHING.draw(dataset).splitlines()
    assert labels.split()[1::2] == [str(target) for target in dataset.splits["train"].targets[0]]
    brightest = int(dataset.splits["train"].inputs[0, 0].argmax())
    assert rows[brightest // 8].ljust(16)[2 * (brightest % 8)] == "@"
