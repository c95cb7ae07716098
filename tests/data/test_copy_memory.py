"""Copy memory has the layout of the paper's code and the paper's memoryless loss."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.generator import stream
from pipeline.data.memory import CopyMemory
from pipeline.errors import DatasetError

COPY = CopyMemory(seed=0, lengths=(), num_symbols=8, num_copied=10)


def test_a_sequence_written_out():
    split = dataclasses.replace(COPY, num_copied=2).sample(stream(0), 1, 3)
    a, b = split.inputs[0, :2].tolist()
    assert split.inputs[0].tolist() == [a, b, 0, 0, 9, 0, 0]
    assert split.targets[0].tolist() == [0, 0, 0, 0, 0, a, b]


@pytest.mark.parametrize("delay", [1, 2, 30])
def test_layout(delay):
    dataset = COPY.generate(delay, Sizes(50, 1, 1))
    inputs, targets = (getattr(dataset.splits["train"], x) for x in ("inputs", "targets"))
    assert inputs.shape == targets.shape == (50, delay + 20)
    assert (inputs[:, 10 : 10 + delay - 1] == 0).all()
    assert (inputs[:, 10 + delay - 1] == 9).all()
    assert (inputs[:, -10:] == 0).all()
    assert (targets[:, : delay + 10] == 0).all()
    np.testing.assert_array_equal(targets[:, -10:], inputs[:, :10])
    assert (dataset.length, dataset.num_timesteps) == (delay, delay + 20)
    assert dataset.baseline_loss == 10 * math.log(8) / (delay + 20)


def test_symbols_are_one_to_eight_alike():
    copied = COPY.sample(stream(0), 4000, 1).inputs[:, :10]
    symbols, counts = np.unique(copied, return_counts=True)
    assert symbols.tolist() == list(range(1, 9))
    assert (np.abs(counts / copied.size - 1 / 8) < 0.01).all()


def test_the_task_has_ten_symbols_in_and_nine_out(sizes):
    dataset = COPY.generate(5, sizes)
    assert (dataset.input_kind, dataset.input_size) == ("token", 10)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "every", 9)
    train = dataset.splits["train"]
    assert train.inputs.dtype == train.targets.dtype == np.uint8
    assert train.inputs.max() == 9
    assert train.targets.max() == 8


def test_a_delay_without_room_for_the_marker(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'copy_memory': length 0 is impossible; .*at least 1"):
        COPY.generate(0, sizes)


@pytest.mark.parametrize(("num_symbols", "num_copied", "field"), [(1, 1, "num_symbols"), (8, 0, "num_copied")])
def test_fields_out_of_range(num_symbols, num_copied, field):
    with pytest.raises(InvalidFieldError, match=f"{field}: expected an integer"):
        dataclasses.replace(COPY, num_symbols=num_symbols, num_copied=num_copied)


def test_the_drawing_shows_blanks_and_the_marker(sizes):
    dataset = COPY.generate(3, sizes)
    inputs, targets = COPY.draw(dataset).split("\n\n")[0].splitlines()
    copied = [str(symbol) for symbol in dataset.splits["train"].inputs[0, :10]]
    assert inputs.split() == ["input", *copied, ".", ".", "#", *["."] * 10]
    assert targets.split() == ["target", *["."] * 13, *copied]
