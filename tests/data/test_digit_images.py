"""Each split has the images of the dataset of single digits, and draws from them alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import Sizes
from pipeline.data.dataset import SPLITS, Split
from pipeline.data.digits import Digits, ShowsDigits, draw_images
from pipeline.data.generator import Shares

pytest.importorskip("sklearn")

SHARES = Shares(train=0.7, validation=0.15, test=0.15)


class Recorded(ShowsDigits):
    """What each split is drawn with, instead of sequences."""

    shares = SHARES

    def task_of(self, length, train):
        return None

    def sample(self, rng, num, length, images, digits):
        return Split(np.array([num, len(images), rng.random(), length]), digits)


def test_the_images_of_a_split_are_those_of_the_single_digits():
    single = Digits(seed=3, permuted=False, shares=SHARES).generate(64, Sizes(1, 1, 1))
    for split, (images, digits) in Recorded(seed=3).images_by_split().items():
        np.testing.assert_array_equal(images.reshape(-1, 64, 1), single.splits[split].inputs)
        np.testing.assert_array_equal(digits, single.splits[split].targets)


def test_no_image_is_in_two_splits():
    parts = Recorded(seed=0).images_by_split()
    together = [image.tobytes() for split in SPLITS for image in parts[split][0]]
    assert len(set(together)) == len(together) == 1797


def test_every_split_is_drawn_from_its_own_images_and_stream():
    parts, (_, drawn) = Recorded(seed=0).images_by_split(), Recorded(seed=0).make(5, Sizes(3, 2, 1))
    assert [drawn[split].inputs[0] for split in SPLITS] == [3, 2, 1]
    assert [drawn[split].inputs[1] for split in SPLITS] == [len(parts[split][0]) for split in SPLITS]
    assert len({drawn[split].inputs[2] for split in SPLITS}) == 3
    assert {drawn[split].inputs[3] for split in SPLITS} == {5}
    for split in SPLITS:
        np.testing.assert_array_equal(drawn[split].targets, parts[split][1])


def test_images_stand_side_by_side_and_are_folded():
    images = np.zeros((3, 2, 20))
    images[:, 1, 0] = 0.5, 1, 1
    assert draw_images(images, ["a", "b", "c"]).splitlines() == [
        "a" + " " * 42 + "b",
        "",
        "==".ljust(43) + "@@",
        "",
        "c",
        "",
        "@@",
    ]


def test_a_label_that_is_wider_than_its_image():
    label, row = draw_images(np.ones((2, 1, 1)), ["first", "2"]).splitlines()
    assert (label, row) == ("first   2", "@@      @@")
