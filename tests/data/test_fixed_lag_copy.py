"""Fixed-lag copy repeats every symbol after the lag, and its losses are those of the best answers, counted."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data.dataset import Split
from pipeline.data.fixed_lag_copy import (
    FixedLagCopy,
    counted_memoryless_loss,
    memoryless_loss,
    spliced_places,
)
from pipeline.data.generator import stream
from pipeline.errors import DatasetError
from tests.core.slowly import slowly

COPY = FixedLagCopy(seed=0, lengths=(), num_symbols=6, lag=10, spliced=False, num_streams=None)
SPLICED = dataclasses.replace(COPY, spliced=True, num_streams=64)


def clock_loss(num_symbols: int, lag: int) -> float:
    """The loss of knowing the place in the block and no symbol."""
    return (1 - 1 / lag) * math.log(num_symbols - 2) / 2


def optimal_loss(length: int, num_symbols: int, lag: int) -> float:
    """The loss of the best answer to all inputs so far.

    A stream that begins p timesteps after a marker lacks p - 1 of its symbols if p < m, all that are still to be said
    if p >= m; and at its first timestep, if that is blank, it is not known whether the marker is due.
    """
    coin_entropy = -math.log(1 / lag) / lag - (1 - 1 / lag) * math.log(1 - 1 / lag)
    return ((lag - 1) * math.log(num_symbols - 2) + coin_entropy) / (2 * length)


def loss_of_knowing(split: Split, seen_of) -> float:
    """The loss of answering with the frequencies of the targets given what is seen at each timestep, in nats."""
    answers: dict[object, Counter[int]] = defaultdict(Counter)
    for inputs, targets in zip(split.inputs.tolist(), split.targets.tolist(), strict=True):
        for t, target in enumerate(targets):
            answers[seen_of(inputs, t)][target] += 1
    total = sum(
        -count * math.log(count / sum(counts.values())) for counts in answers.values() for count in counts.values()
    )
    return total / split.targets.size


@pytest.mark.parametrize(("lag", "num_timesteps"), [(2, 3), (3, 20), (10, 11), (10, 75)])
def test_every_target_is_the_input_of_a_lag_before(lag, num_timesteps):
    split = dataclasses.replace(COPY, lag=lag).sample(stream(0), 200, num_timesteps)
    np.testing.assert_array_equal(split.targets[:, lag:], split.inputs[:, :-lag])


def test_a_block_shows_a_marker_and_symbols_then_as_many_blanks():
    split = COPY.sample(stream(0), 300, 60)
    for inputs, targets in zip(split.inputs, split.targets, strict=True):
        first = inputs.tolist().index(1, 0, 20)
        for start in range(first, 41, 20):
            shown, blanks = inputs[start : start + 10], inputs[start + 10 : start + 20]
            assert shown[0] == 1
            assert set(shown[1:]) <= {2, 3, 4, 5}
            assert not blanks.any()
            assert not targets[start : start + 10].any()
    np.testing.assert_array_equal(split.inputs == 0, split.targets != 0)


def test_streams_begin_at_every_place_of_a_block_alike():
    inputs = COPY.sample(stream(0), 20_000, 20).inputs
    assert ((inputs == 1).sum(axis=1) == 1).all()
    shares = (inputs == 1).mean(axis=0)
    assert (np.abs(shares - 1 / 20) < 4 * math.sqrt(1 / 20 * 19 / 20 / 20_000)).all()


def test_symbols_are_drawn_alike():
    inputs = COPY.sample(stream(0), 2000, 40).inputs
    symbols, counts = np.unique(inputs[inputs > 1], return_counts=True)
    assert symbols.tolist() == [2, 3, 4, 5]
    assert (np.abs(counts / counts.sum() - 1 / 4) < 0.01).all()


@pytest.mark.parametrize(("num_symbols", "lag"), [(6, 10), (4, 3), (5, 2)])
def test_the_memoryless_loss_is_that_of_the_best_answer_to_one_input(num_symbols, lag):
    split = dataclasses.replace(COPY, num_symbols=num_symbols, lag=lag).sample(stream(0), 4000, 40)
    counted = loss_of_knowing(split, lambda inputs, t: inputs[t])
    assert counted == pytest.approx(memoryless_loss(num_symbols, lag), abs=0.005)


def test_the_memoryless_loss_written_out():
    per_blank = 0.1 * math.log(10) + 0.9 * math.log(4 / 0.9)
    assert memoryless_loss(6, 10) == pytest.approx(per_blank / 2, rel=1e-12)
    assert math.exp(memoryless_loss(6, 10)) == pytest.approx(2.1954, abs=5e-5)


@pytest.mark.parametrize("sizes", [(4, 3, 4), *slowly((4, 3, 9), (5, 2, 5), (5, 4, 6))], ids=str)
def test_the_optimal_loss_is_that_of_the_best_answer_to_all_inputs_so_far(sizes):
    num_symbols, lag, length = sizes
    # from a lag on the target is among the inputs, so it is enough to count what is seen before
    split = dataclasses.replace(COPY, num_symbols=num_symbols, lag=lag).sample(stream(0), 40_000, length)
    counted = loss_of_knowing(split, lambda inputs, t: (t, *inputs[: t + 1]) if t < lag else ("seen", inputs[t - lag]))
    assert counted == pytest.approx(optimal_loss(length, num_symbols, lag), rel=0.01)


def place_in_the_block(inputs: list[int], t: int) -> int:
    """Timesteps since the marker; before the first one, counted back from it."""
    since = inputs[max(t - 19, 0) : t + 1][::-1]
    return since.index(1) if 1 in since else (t - inputs.index(1)) % 20


def test_with_a_clock_but_no_memory_of_symbols_only_the_marker_is_known():
    split = COPY.sample(stream(0), 4000, 40)
    assert loss_of_knowing(split, place_in_the_block) == pytest.approx(clock_loss(6, 10), abs=0.005)
    assert math.exp(clock_loss(6, 10)) == pytest.approx(1.8661, abs=5e-5)


@pytest.mark.parametrize("num", [1, 5, 64, 150])
@pytest.mark.parametrize("num_timesteps", [11, 100, 1000])
def test_spliced_is_every_shift_of_a_group_applied_in_place_to_all_streams_before(num, num_timesteps):
    shifts = stream(0).integers(0, 20, num)
    places = np.tile(np.arange(num_timesteps + 20), (num, 1))
    for start in range(0, num, 64):
        for i in range(start, min(start + 64, num)):
            places[start : i + 1, :num_timesteps] = places[start : i + 1, shifts[i] : shifts[i] + num_timesteps].copy()
    np.testing.assert_array_equal(spliced_places(shifts, num_timesteps), places[:, :num_timesteps])


def test_spliced_streams_are_the_same_blocks_and_the_last_of_a_group_is_whole():
    whole, spliced = (
        dataclasses.replace(COPY, spliced=spliced).sample(stream(0), 70, 1000) for spliced in (False, True)
    )
    same = (whole.inputs == spliced.inputs).all(axis=1)
    assert np.flatnonzero(same).tolist() == [63, 69]
    np.testing.assert_array_equal(whole.targets[same], spliced.targets[same])


def test_a_spliced_copy_still_comes_a_lag_after_its_symbol():
    split = SPLICED.sample(stream(0), 64, 1000)
    copied = split.inputs[:, 10:] == 0
    np.testing.assert_array_equal(split.targets[:, 10:][copied], split.inputs[:, :-10][copied])
    np.testing.assert_array_equal(split.inputs == 0, split.targets != 0)


def test_a_clock_on_spliced_streams_pays_for_the_symbols_alone():
    # a stream has 32.5 pieces of 9.5 timesteps on average, of which 36/20 copy a symbol; the rest ends with a whole
    # block, so that its cut block has 135/20 symbols and not 0.45 * 9.5 like any other place
    share = (0.45 * (1000 - 32.5 * 9.5) + (135 / 20 - 0.45 * 9.5) + 32.5 * 36 / 20) / 1000
    splits = [SPLICED.sample(stream(seed), 64, 1000) for seed in range(200)]
    assert np.mean([(split.targets > 1).mean() for split in splits]) == pytest.approx(share, abs=0.002)
    assert math.exp(share * math.log(4)) == pytest.approx(1.675, abs=5e-4)
    for split in splits[:3]:
        counted = loss_of_knowing(split, place_in_the_block)
        assert counted == pytest.approx((split.targets > 1).mean() * math.log(4), abs=0.003)
        assert math.exp(counted) == pytest.approx(1.675, abs=3 * 0.016)


def test_the_memoryless_loss_of_spliced_streams_is_counted():
    dataset = SPLICED.generate(1000, Sizes(1, 1, 1))
    counted = loss_of_knowing(dataset.splits["train"], lambda inputs, t: inputs[t])
    assert dataset.baseline_loss == pytest.approx(counted, rel=1e-12)
    assert dataset.baseline_name == "memoryless"
    assert dataset.baseline_loss < memoryless_loss(6, 10) - 0.08


def test_the_counted_memoryless_loss_of_whole_streams_is_the_closed_form():
    split = COPY.sample(stream(0), 4000, 40)
    assert counted_memoryless_loss(split) == pytest.approx(memoryless_loss(6, 10), abs=0.005)


def test_the_number_of_streams_replaces_the_sizes_of_the_scale(sizes):
    for generator in (SPLICED, dataclasses.replace(COPY, num_streams=64)):
        dataset = generator.generate(30, sizes)
        assert [len(split.inputs) for split in dataset.splits.values()] == [64, 64, 64]


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = COPY.generate(30, sizes)
    assert (dataset.input_kind, dataset.input_size) == ("token", 6)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("class", "every", 6)
    assert (dataset.baseline_loss, dataset.baseline_name) == (memoryless_loss(6, 10), "memoryless")
    assert dataset.token_groups == {"shown": (1, 2, 3, 4, 5), "recalled": (0,)}
    assert dataset.num_timesteps == dataset.length == 30
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        assert dataset.splits[split].inputs.shape == dataset.splits[split].targets.shape == (num, 30)
        assert dataset.splits[split].inputs.dtype == dataset.splits[split].targets.dtype == np.uint8


def test_a_stream_without_a_copy(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'fixed_lag_copy': length 10 is impossible; .*at least 11"):
        COPY.generate(10, sizes)
    assert COPY.generate(11, Sizes(1, 1, 1)).num_timesteps == 11


@pytest.mark.parametrize(
    ("num_symbols", "lag", "num_streams", "message"),
    [
        (3, 10, None, "num_symbols: expected an integer from 4 to 255, got 3"),
        (6, 1, None, "lag: expected an integer of at least 2, got 1"),
        (6, 10, 0, "num_streams: expected an integer of at least 1, or null, got 0"),
    ],
)
def test_fields_out_of_range(num_symbols, lag, num_streams, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(COPY, num_symbols=num_symbols, lag=lag, num_streams=num_streams)


def test_the_drawing_shows_blanks_and_markers(sizes):
    dataset = COPY.generate(12, sizes)
    inputs, targets = COPY.draw(dataset).split("\n\n")[0].splitlines()
    train = dataset.splits["train"]
    assert inputs.split() == ["input", *(".#2345"[symbol] for symbol in train.inputs[0])]
    assert targets.split() == ["target", *(".#2345"[symbol] for symbol in train.targets[0])]
