"""Every target is what Python makes of its source, every token's origin is known, and no source is drawn twice."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import EOS, PAD, SPLITS, load_dataset, prepare_dataset, read_generator
from pipeline.data.generator import stream
from pipeline.data.transduction import Transduction, draw_sources, transduce
from pipeline.errors import ConfigError, DatasetError

OPERATIONS = ("reverse", "copy", "sort")
REVERSAL = Transduction(seed=0, lengths=(), operation="reverse", num_symbols=4, min_share=0.5)


def origins_of(source: list[int], operation: str) -> list[int]:
    """Return which source positions the target symbols are made from, in their order."""
    positions = range(len(source))
    return {
        "reverse": list(reversed(positions)),
        "copy": list(positions),
        "sort": sorted(positions, key=lambda s: (source[s], s)),
    }[operation]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_target_and_its_alignment_written_out(operation):
    sources = draw_sources(stream(0), 200, shortest=1, longest=9, num_symbols=5)
    split = transduce(sources, operation)
    assert split.inputs is sources
    assert split.targets.shape == (200, 10)
    for padded, target, alignment in zip(sources.tolist(), split.targets.tolist(), split.alignment, strict=True):
        source = [symbol for symbol in padded if symbol != PAD]
        origins = origins_of(source, operation)
        assert target == [*(source[s] for s in origins), EOS, *[PAD] * (9 - len(source))]
        expected = np.zeros((10, 9), dtype=bool)
        expected[range(len(source)), origins] = True
        np.testing.assert_array_equal(alignment, expected)


def test_lengths_and_symbols_are_drawn_alike():
    sources = draw_sources(stream(0), 8000, shortest=9, longest=12, num_symbols=6)
    present = sources != PAD
    assert (present[:, :-1] >= present[:, 1:]).all()  # padding is at the end only
    shares = np.bincount(present.sum(axis=1), minlength=13)[9:] / 8000
    assert (np.abs(shares - 1 / 4) < 0.02).all()
    symbols = np.bincount(sources[present])
    assert symbols[:3].tolist() == [0, 0, 0]
    assert (np.abs(symbols[3:] / present.sum() - 1 / 6) < 0.01).all()
    assert len(symbols) == 9


@pytest.mark.parametrize(
    ("min_share", "length", "shortest"),
    [(1.0, 7, 7), (0.5, 10, 5), (0.55, 9, 5), (0.55, 20, 11), (0.7, 10, 7), (0.01, 10, 1)],
)
def test_the_shortest_length_is_a_share_of_the_longest(min_share, length, shortest):
    generator = dataclasses.replace(REVERSAL, num_symbols=20, min_share=min_share)
    lengths = (generator.generate(length, Sizes(400, 1, 1)).splits["train"].inputs != PAD).sum(axis=1)
    assert (lengths.min(), lengths.max()) == (shortest, length)


def test_no_source_is_drawn_twice_even_where_there_are_few():
    generator = dataclasses.replace(REVERSAL, num_symbols=2, min_share=0.1)
    splits = generator.generate(6, Sizes(20, 4, 8)).splits
    rows = [source.tobytes() for split in SPLITS for source in splits[split].inputs]
    assert len(set(rows)) == len(rows) == 32


def test_the_operations_read_the_same_sources(sizes):
    drawn = [dataclasses.replace(REVERSAL, operation=operation).generate(8, sizes) for operation in OPERATIONS]
    for dataset in drawn[1:]:
        np.testing.assert_array_equal(dataset.splits["test"].inputs, drawn[0].splits["test"].inputs)
    assert len({dataset.digest for dataset in drawn}) == 3


def test_the_same_again_and_other_data_with_another_seed(sizes):
    digest = REVERSAL.generate(8, sizes).digest
    assert REVERSAL.generate(8, sizes).digest == digest
    assert dataclasses.replace(REVERSAL, seed=1).generate(8, sizes).digest != digest


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = REVERSAL.generate(8, sizes)
    assert (dataset.input_kind, dataset.input_size, dataset.padded) == ("token", 7, True)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "sequence", 7)
    assert dataset.input_tokens == dataset.target_tokens == ("<pad>", "<sos>", "<eos>", "A", "B", "C", "D")
    assert dataset.num_timesteps == dataset.length == 8
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        arrays = dataset.splits[split]
        assert (arrays.inputs.shape, arrays.targets.shape) == ((num, 8), (num, 9))
        assert arrays.alignment.shape == (num, 9, 8)
        assert (arrays.inputs.dtype, arrays.targets.dtype, arrays.alignment.dtype) == (np.uint8, np.uint8, bool)


def test_the_baseline_knows_how_often_each_token_is_written():
    dataset = dataclasses.replace(REVERSAL, min_share=1.0).generate(9, Sizes(5000, 1, 1))
    end, symbol = 1 / 10, 9 / 10 / 4
    expected = -(end * math.log(end) + 4 * symbol * math.log(symbol))
    assert (dataset.baseline_loss, dataset.baseline_name) == (pytest.approx(expected, abs=1e-3), "unigram")


def test_what_is_prepared_is_what_was_made(tmp_path, config_path, sizes):
    folder = tmp_path / "data" / "transduction"
    prepare_dataset("transduction", config_path("transduction"), (), sizes, folder)
    made, loaded = read_generator(config_path("transduction")).generate(8, sizes), load_dataset(folder, 8)
    assert loaded.digest == made.digest
    np.testing.assert_array_equal(loaded.splits["test"].alignment, made.splits["test"].alignment)


def test_an_empty_source(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'transduction': length 0 is impossible; .*at least 1"):
        REVERSAL.generate(0, sizes)


def test_more_sequences_than_there_are_sources(sizes):
    message = "dataset 'transduction': length 3 has 64 sources of that length, expected at least 140, twice as many"
    with pytest.raises(DatasetError, match=message):
        REVERSAL.generate(3, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_symbols": 1}, "num_symbols: expected an integer from 2 to 26, got 1"),
        ({"num_symbols": 27}, "num_symbols: expected an integer from 2 to 26, got 27"),
        ({"min_share": 0.0}, "min_share: expected a share above 0 and at most 1, got 0.0"),
        ({"min_share": 1.5}, "min_share: expected a share above 0 and at most 1, got 1.5"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_fields_out_of_range(change, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(REVERSAL, **change)


def test_an_unknown_operation(config_path):
    text = "generator: transduction\nseed: 0\nlengths: [8]\noperation: revers\nnum_symbols: 4\nmin_share: 1.0\n"
    with pytest.raises(ConfigError, match="operation: unknown value 'revers'; did you mean 'reverse'"):
        read_generator(config_path("transduction", text))


def test_the_drawing_shows_where_each_symbol_is_from(sizes):
    source, target, origins = REVERSAL.draw(REVERSAL.generate(8, sizes)).split("\n\n")[0].splitlines()
    letters, written = source.split()[1:], target.split()[1:]
    assert written == [*reversed(letters), "<eos>"]
    assert origins.split() == ["made", "from", *map(str, range(len(letters), 0, -1))]
