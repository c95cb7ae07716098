"""Temporal order has the positions, the answers and the balance of the authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.config import InvalidFieldError
from pipeline.data.generator import stream
from pipeline.data.memory import TemporalOrder
from pipeline.errors import DatasetError

ORDER = TemporalOrder(seed=0, lengths=(), num_distractors=4)


@pytest.mark.parametrize("num_timesteps", [10, 19, 50, 101])
def test_positions_and_answers(num_timesteps):
    split = ORDER.sample(stream(0), 2000, num_timesteps)
    rows, timesteps = np.nonzero(split.inputs < 2)
    assert np.bincount(rows, minlength=2000).tolist() == [2] * 2000
    p0, p1 = timesteps.reshape(2000, 2).T
    # the formula of the paper's code, in its floating point
    tenth, middle = int(0.1 * num_timesteps), int(0.5 * num_timesteps)
    assert set(p0) == set(range(tenth, 2 * tenth))
    assert set(p1) == set(range(middle, middle + tenth))
    v0, v1 = (split.inputs[np.arange(2000), p] for p in (p0, p1))
    np.testing.assert_array_equal(split.targets, v0 + 2 * v1)


def test_the_four_answers_and_the_four_distractors_are_equally_frequent():
    split = ORDER.sample(stream(0), 10_000, 10)
    assert (np.abs(np.bincount(split.targets, minlength=4) / 10_000 - 1 / 4) < 0.02).all()
    distractors = np.bincount(split.inputs.ravel())[2:]
    assert len(distractors) == 4
    assert (np.abs(distractors / distractors.sum() - 1 / 4) < 0.02).all()


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = ORDER.generate(50, sizes)
    assert (dataset.input_kind, dataset.input_size) == ("token", 6)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "last", 4)
    assert (dataset.baseline_loss, dataset.baseline_name) == (math.log(4), "chance")
    train = dataset.splits["train"]
    assert (train.inputs.shape, train.targets.shape) == ((40, 50), (40,))
    assert train.inputs.dtype == train.targets.dtype == np.uint8


def test_nine_timesteps_have_no_tenth(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'temporal_order': length 9 is impossible; .*at least 10"):
        ORDER.generate(9, sizes)


@pytest.mark.parametrize("num_distractors", [0, 25])
def test_number_of_distractors_out_of_range(num_distractors):
    with pytest.raises(InvalidFieldError, match="num_distractors: expected an integer from 1 to 24"):
        TemporalOrder(seed=0, lengths=(), num_distractors=num_distractors)


def test_the_drawing_shows_the_two_symbols_as_capitals(sizes):
    dataset = ORDER.generate(10, sizes)
    symbols, answer = ORDER.draw(dataset).split("\n\n")[0].splitlines()
    first, second = (symbol for symbol in symbols.split() if symbol in "AB")
    target = dataset.splits["train"].targets[0]
    assert target == "AB".index(first) + 2 * "AB".index(second)
    assert answer == f"target {target}: {first} then {second}"
