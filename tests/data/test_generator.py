"""What every generator promises: the same data again, independent lengths and splits, errors that name the way out."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Paths, Sizes
from pipeline.data import SPLITS, Split, Task, assemble, generators, read_generator
from pipeline.data.fixed_lag_copy import FixedLagCopy
from pipeline.data.generator import SHARES_KEY, Shares, draw_rows, split_indices, stream
from pipeline.data.memory import Adding, CopyMemory, FlipFlop, TemporalOrder
from pipeline.data.tagging import Tagging
from pipeline.errors import ConfigError, DatasetError

DRAWN = {
    "adding": Adding(seed=0, lengths=()),
    "copy_memory": CopyMemory(seed=0, lengths=(), num_symbols=8, num_copied=10),
    "fixed_lag_copy": FixedLagCopy(seed=0, lengths=(), num_symbols=6, lag=10, spliced=False, num_streams=None),
    "flip_flop": FlipFlop(seed=0, lengths=(), num_symbols=4, write_probability=0.1, read_probability=0.1),
    "tagging": Tagging(seed=0, lengths=(), num_symbols=4, max_distance=3),
    "temporal_order": TemporalOrder(seed=0, lengths=(), num_distractors=4),
}
PROJECT = Paths.at(Path(__file__).parents[2])


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_again(name, sizes):
    first, second = (DRAWN[name].generate(20, sizes) for _ in range(2))
    assert first.digest == second.digest
    for split in SPLITS:
        np.testing.assert_array_equal(first.splits[split].inputs, second.splits[split].inputs)
        np.testing.assert_array_equal(first.splits[split].targets, second.splits[split].targets)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_is_other_data(name, sizes):
    other = dataclasses.replace(DRAWN[name], seed=1)
    assert other.generate(20, sizes).digest != DRAWN[name].generate(20, sizes).digest


@pytest.mark.parametrize("name", DRAWN)
def test_no_sequence_is_in_two_splits(name, sizes):
    dataset = DRAWN[name].generate(30, sizes)
    rows = [sequence.tobytes() for split in SPLITS for sequence in dataset.splits[split].inputs]
    assert len(set(rows)) == len(rows) == 70


def test_sizes_of_one_split_leave_the_others_alone():
    small, large = (DRAWN["adding"].generate(9, Sizes(num, 10, 10)) for num in (5, 50))
    np.testing.assert_array_equal(small.splits["test"].inputs, large.splits["test"].inputs)


def test_lengths_and_splits_draw_other_numbers():
    adding, drawn = DRAWN["adding"], []
    for length in (10, 20):
        splits = adding.generate(length, Sizes(1, 1, 1)).splits
        drawn += [float(split.inputs[0, 0, 0]) for split in splits.values()]
    assert len(set(drawn)) == 6


def test_streams_depend_on_the_whole_key():
    keys = [(), (1,), (2,), (1, 2), (2, 1), (1, 0, 2)]
    assert len({stream(0, *key).random() for key in keys}) == len(keys)
    assert stream(0, 1).random() != stream(1, 1).random()


def test_the_digest_knows_the_task_and_the_type_but_not_the_name():
    zeros = {split: Split(np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8)) for split in SPLITS}
    signed = {split: Split(np.zeros((2, 3), np.int8), np.zeros(2, np.uint8)) for split in SPLITS}
    task = Task(3, "token", 4, "class", "last", 2, baseline_loss=None, baseline_name=None)
    digest = assemble("a", task, zeros).digest
    assert assemble("b", task, zeros).digest == digest
    assert assemble("a", task, signed).digest != digest
    assert assemble("a", dataclasses.replace(task, output_size=3), zeros).digest != digest


def test_lengths_of_studies_and_of_the_file_come_together():
    adding = Adding(seed=0, lengths=(50, 10))
    assert adding.lengths_to_make("adding", (20, 10)) == (10, 20, 50)


def test_no_length_at_all():
    with pytest.raises(DatasetError, match="dataset 'adding': no length to prepare; list one under `lengths`"):
        DRAWN["adding"].lengths_to_make("adding", ())


def test_an_impossible_length_is_named_with_the_dataset_that_a_user_knows():
    with pytest.raises(DatasetError, match="dataset 'my_adding': length 1 is impossible"):
        DRAWN["adding"].lengths_to_make("my_adding", (20, 1))


def test_a_length_twice():
    with pytest.raises(InvalidFieldError, match="lengths: expected each length once"):
        Adding(seed=0, lengths=(5, 5))


def test_a_negative_seed():
    with pytest.raises(InvalidFieldError, match="seed: expected an integer of at least 0, got -1"):
        Adding(seed=-1, lengths=())


def test_every_generator_of_the_folder_is_found():
    assert list(generators()) == [
        "adding",
        "copy_memory",
        "dates",
        "described_digits",
        "digit_canvases",
        "digits",
        "fixed_lag_copy",
        "flip_flop",
        "images",
        "labelled",
        "lorenz63",
        "matching_digits",
        "moving_digits",
        "numbers",
        "pairs",
        "sentences",
        "series",
        "stdlib_text",
        "tagged",
        "tagging",
        "temporal_order",
        "text",
        "transduction",
    ]


@pytest.mark.slow
def test_every_dataset_of_the_project_is_readable():
    paths = sorted(PROJECT.dataset_config("adding").parent.glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        with pytest.raises(DatasetError, match="length -1 is impossible; .* (at least|from|null)"):
            read_generator(path).check_length(-1)


def test_an_unknown_generator(config_path):
    path = config_path("adding", "generator: ading\nseed: 0\n")
    with pytest.raises(ConfigError, match=r"configs/datasets/adding.yaml.generator: .*'ading'; did you mean 'adding'"):
        read_generator(path)


@pytest.mark.parametrize("text", ["[adding]", "seed: 0"])
def test_a_file_without_a_generator(config_path, text):
    with pytest.raises(ConfigError, match="configs/datasets/adding.yaml: expected a mapping with a generator, one of"):
        read_generator(config_path("adding", text))


def test_a_misspelt_key(config_path):
    path = config_path("adding", "generator: adding\nseed: 0\nlenghts: [5]\n")
    with pytest.raises(ConfigError, match="unknown key 'lenghts'; did you mean 'lengths'"):
        read_generator(path)


def test_rows_are_aligned_and_folded():
    text = draw_rows({"a": ["1"] * 60, "long": ["22"] + [""] * 59})
    first, second = text.split("\n\n")
    assert first.splitlines()[0].startswith("   a   1  1")
    assert first.splitlines()[1] == "long  22"
    assert (first + second).count("1") == 60


def test_datasets_need_numpy_only():
    program = (
        "import sys, pipeline.data; "
        "heavy = {'torch', 'polars', 'ray', 'sklearn', 'PIL', 'pandas', 'matplotlib'} & set(sys.modules); "
        "print(*sorted(heavy))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT.root, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("\n", "")


def as_before(labels, shares, seed):
    """Which members belong to each split where every label is cut by itself, as `split_indices` once was."""
    rng = stream(seed, *SHARES_KEY)
    parts = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        parts.append(np.split(members, shares.cuts(len(members))))
    return {split: rng.permutation(np.concatenate(some)) for split, *some in zip(SPLITS, *parts, strict=True)}


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.9, 0.09, 0.01), (0.05, 0.05, 0.9)])
def test_small_classes_share_what_rounding_leaves_only_where_a_split_would_have_none(shares):
    shares, num_mended = Shares(*shares), 0
    for num_labels, size in itertools.product((1, 2, 3, 26), range(1, 12)):
        labels = np.repeat(np.arange(num_labels), size)
        found, before = split_indices(labels, shares, seed=0), as_before(labels, shares, seed=0)
        assert sorted(np.concatenate([*found.values()])) == [*range(len(labels))]
        same = all(np.array_equal(found[split], before[split]) for split in SPLITS)
        is_lacking = min(map(len, before.values())) == 0
        assert same or is_lacking
        if not same:
            num_mended += 1
            assert min(map(len, found.values())) > 0
            assert {*labels[found["train"]]} == {*labels}
    assert num_mended > 0


def test_classes_of_four_have_some_in_every_split():
    found = split_indices(np.repeat(np.arange(26), 4), Shares(0.8, 0.1, 0.1), seed=0)
    assert [len(found[split]) for split in SPLITS] == [84, 10, 10]
