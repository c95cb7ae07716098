"""The digits are scikit-learn's, each in one split, and the permuted ones are the same in one other order."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.dataset import SPLITS
from pipeline.data.digits import Digits, load_images
from pipeline.data.generator import Shares, split_indices
from pipeline.errors import DatasetError

pytest.importorskip("sklearn")

SHARES = Shares(train=0.7, validation=0.15, test=0.15)
PLAIN = Digits(seed=0, permuted=False, shares=SHARES)
PERMUTED = Digits(seed=0, permuted=True, shares=SHARES)
SIZES = Sizes(1, 1, 1)


def test_images_are_the_known_ones_scaled_to_one():
    from sklearn.datasets import load_digits

    pixels, labels = load_images()
    original = load_digits()
    np.testing.assert_array_equal(pixels.reshape(-1, 8, 8) * 16, original.images)
    np.testing.assert_array_equal(labels, original.target)
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_every_image_is_in_one_split_and_every_digit_is_split_alike():
    labels = load_images()[1]
    indices = split_indices(labels, SHARES, seed=0)
    assert sorted(np.concatenate(list(indices.values()))) == list(range(1797))
    for split in SPLITS:
        expected = getattr(SHARES, split) * np.bincount(labels)
        assert (np.abs(np.bincount(labels[indices[split]]) - expected) <= 1).all()
        assert (np.diff(labels[indices[split]].astype(int)) < 0).any()  # not sorted by digit


def test_the_split_depends_on_the_seed():
    labels = load_images()[1]
    first, second = (split_indices(labels, SHARES, seed)["test"] for seed in (0, 1))
    assert set(first) != set(second)


def test_one_bijection_takes_every_plain_image_to_its_permuted_one():
    plain, permuted = PLAIN.generate(64, SIZES), PERMUTED.generate(64, SIZES)
    order = PERMUTED.order()
    assert sorted(order) == list(range(64))
    assert not np.array_equal(order, np.arange(64))
    inverse = np.argsort(order)
    for split in SPLITS:
        np.testing.assert_array_equal(permuted.splits[split].inputs[:, inverse], plain.splits[split].inputs)
        np.testing.assert_array_equal(permuted.splits[split].targets, plain.splits[split].targets)
    assert permuted.digest != plain.digest


def test_the_task_says_what_the_arrays_are():
    dataset = PLAIN.generate(64, SIZES)
    assert (dataset.input_kind, dataset.input_size) == ("real", 1)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "last", 10)
    assert (dataset.baseline_loss, dataset.baseline_name) == (math.log(10), "chance")
    assert dataset.num_timesteps == dataset.length == 64
    train = dataset.splits["train"]
    assert (train.inputs.dtype, train.targets.dtype) == (np.float32, np.uint8)


def test_the_source_names_the_version_and_the_images():
    source = PLAIN.source()
    assert source["num_images"] == 1797
    assert len(source["sha256"]) == 64
    assert source["scikit_learn_version"] == sys.modules["sklearn"].__version__


def test_another_length_than_the_number_of_pixels():
    with pytest.raises(DatasetError, match=r"dataset 'digits': length 50 is impossible; .*write null"):
        PLAIN.generate(50, SIZES)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DatasetError, match="come with scikit-learn, which is not installed; pip install scikit-learn"):
        PLAIN.generate(64, SIZES)


def test_shares_that_do_not_sum_to_one():
    with pytest.raises(InvalidFieldError, match="train, validation and test to sum to 1, got 1.25"):
        Shares(train=0.5, validation=0.25, test=0.5)


def test_shares_sum_to_one_in_spite_of_rounding():
    assert 0.7 + 0.2 + 0.1 != 1
    Shares(train=0.7, validation=0.2, test=0.1)


def test_a_split_without_images():
    with pytest.raises(InvalidFieldError, match="validation: expected a share between 0 and 1, got 0"):
        Shares(train=0.9, validation=0, test=0.1)


def test_a_negative_seed():
    with pytest.raises(InvalidFieldError, match="seed: expected an integer of at least 0, got -1"):
        Digits(seed=-1, permuted=False, shares=SHARES)


def test_the_drawing_is_an_image_of_each_digit():
    dataset = PLAIN.generate(64, SIZES)
    targets, *lines = PLAIN.draw(dataset).splitlines()
    assert targets.split()[1::2] == [str(digit) for digit in dataset.splits["train"].targets[:6]]
    assert len(lines) == 8
    brightest = dataset.splits["train"].inputs[0, :, 0].argmax()
    assert lines[brightest // 8].ljust(16)[2 * (brightest % 8)] == "@"
