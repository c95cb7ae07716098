"""A read is answered with the last write, step by step, and the baseline is that of the best memoryless answer."""

from __future__ import annotations

import dataclasses
import math
import string

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.generator import stream
from pipeline.data.memory import FlipFlop
from pipeline.errors import DatasetError

FLIP_FLOP = FlipFlop(seed=0, lengths=(), num_symbols=4, write_probability=0.1, read_probability=0.2)


def drawn(num: int, num_timesteps: int, num_symbols: int = 4, write: float = 0.1, read: float = 0.2):
    probabilities = {"write_probability": write, "read_probability": read}
    return dataclasses.replace(FLIP_FLOP, num_symbols=num_symbols, **probabilities).sample(
        stream(0), num, num_timesteps
    )


def memoryless_loss(num_timesteps: int, num_symbols: int, read: float) -> float:
    flip_flop = dataclasses.replace(FLIP_FLOP, num_symbols=num_symbols, read_probability=read)
    return flip_flop.generate(num_timesteps, Sizes(1, 1, 1)).baseline_loss


@pytest.mark.parametrize("num_symbols", [2, 4, 26])
@pytest.mark.parametrize("num_timesteps", [2, 3, 40])
def test_a_machine_with_one_register_gives_every_target(num_timesteps, num_symbols):
    split = drawn(100, num_timesteps, num_symbols)
    for inputs, targets in zip(split.inputs.tolist(), split.targets.tolist(), strict=True):
        register = None
        for instruction, target in zip(inputs, targets, strict=True):
            if instruction < num_symbols:
                register = instruction
            assert target == (register if instruction == 2 * num_symbols else num_symbols)
        assert inputs[0] < num_symbols
        assert inputs[-1] == 2 * num_symbols


def test_instructions_come_as_often_as_they_should():
    inputs = drawn(4000, 52).inputs[:, 1:-1]
    tolerance = 4 * math.sqrt(1 / 4 / inputs.size)
    assert (inputs < 4).mean() == pytest.approx(0.1, abs=tolerance)
    assert (inputs == 8).mean() == pytest.approx(0.2, abs=tolerance)
    counts = np.bincount(inputs.ravel())
    for first in (0, 4):
        shares = counts[first : first + 4] / counts[first : first + 4].sum()
        assert (np.abs(shares - 1 / 4) < 0.01).all()


def test_nothing_is_ignored_where_every_instruction_is_a_write_or_a_read():
    inputs = drawn(200, 20, write=0.5, read=0.5).inputs
    assert not ((inputs >= 4) & (inputs < 8)).any()


@pytest.mark.parametrize(("num_timesteps", "num_symbols", "read"), [(2, 4, 0.2), (10, 2, 0.5), (50, 4, 0.1)])
def test_the_memoryless_loss_is_that_of_the_best_answer_to_one_instruction(num_timesteps, num_symbols, read):
    split = drawn(400_000 // num_timesteps, num_timesteps, num_symbols, read=read)
    reads = split.inputs == 2 * num_symbols
    assert (split.targets[~reads] == num_symbols).all()
    shares = np.bincount(split.targets[reads]) / reads.sum()
    loss = -(shares * np.log(shares)).sum() * reads.mean()
    assert loss == pytest.approx(memoryless_loss(num_timesteps, num_symbols, read), rel=0.02)
    reads_per_sequence = 1 + read * (num_timesteps - 2)
    assert memoryless_loss(num_timesteps, num_symbols, read) * num_timesteps == pytest.approx(
        reads_per_sequence * math.log(num_symbols), rel=1e-12
    )


def test_the_last_write_lies_one_over_its_probability_back():
    inputs = drawn(20_000, 200).inputs
    back = np.argmax(inputs[:, ::-1] < 4, axis=1)  # from the read at the end
    assert back.mean() == pytest.approx(10, rel=0.03)


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = FLIP_FLOP.generate(10, sizes)
    assert (dataset.input_kind, dataset.input_size) == ("token", 9)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "every", 5)
    assert (dataset.baseline_loss, dataset.baseline_name) == (memoryless_loss(10, 4, 0.2), "memoryless")
    assert dataset.token_groups == {"write": (0, 1, 2, 3), "ignore": (4, 5, 6, 7), "read": (8,)}
    assert dataset.num_timesteps == dataset.length == 10
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        assert dataset.splits[split].inputs.shape == dataset.splits[split].targets.shape == (num, 10)
        assert dataset.splits[split].inputs.dtype == dataset.splits[split].targets.dtype == np.uint8


def test_one_timestep_has_no_write_and_read():
    with pytest.raises(DatasetError, match=r"dataset 'flip_flop': length 1 is impossible; .*at least 2"):
        FLIP_FLOP.generate(1, Sizes(1, 1, 1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_symbols", 1, "num_symbols: expected an integer from 2 to 26, got 1"),
        ("num_symbols", 27, "num_symbols: expected an integer from 2 to 26, got 27"),
        ("write_probability", 0.0, "write_probability: expected a probability between 0 and 1, got 0.0"),
        ("read_probability", 1.0, "read_probability: expected a probability between 0 and 1, got 1.0"),
        ("read_probability", 0.95, "read_probability: expected at most 1 - write_probability = 0.9, got 0.95"),
    ],
)
def test_fields_out_of_range(field, value, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(FLIP_FLOP, **{field: value})


def test_the_drawing_tells_writes_reads_and_the_ignored_apart(sizes):
    dataset = FLIP_FLOP.generate(20, sizes)
    inputs, targets = FLIP_FLOP.draw(dataset).split("\n\n")[0].splitlines()
    train = dataset.splits["train"]
    marks = string.ascii_uppercase[:4] + string.ascii_lowercase[:4] + "?"
    assert inputs.split() == ["input", *(marks[i] for i in train.inputs[0])]
    assert targets.split() == ["target", *("ABCD."[i] for i in train.targets[0])]
