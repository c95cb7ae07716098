"""The adding problem has the answer, the markers and the baseline that it says."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import Sizes
from pipeline.data.generator import stream
from pipeline.data.memory import Adding
from pipeline.errors import DatasetError

ADDING = Adding(seed=0, lengths=())


@pytest.mark.parametrize("num_timesteps", [2, 3, 11, 50])
def test_one_marker_in_each_half_and_the_target_is_the_sum_of_the_marked(num_timesteps):
    split = ADDING.sample(stream(0), 200, num_timesteps)
    values, markers = split.inputs[..., 0], split.inputs[..., 1]
    half = num_timesteps // 2
    assert set(np.unique(markers)) <= {0.0, 1.0}
    assert (markers[:, :half].sum(axis=1) == 1).all()
    assert (markers[:, half:].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(split.targets[:, 0], (values * markers).sum(axis=1))


def test_markers_reach_both_ends_of_each_half():
    markers = ADDING.sample(stream(0), 500, 5).inputs[..., 1]
    assert (markers.sum(axis=0) > 0).all()


def test_values_are_uniform_and_the_baseline_is_the_error_of_predicting_one():
    split = ADDING.sample(stream(0), 50_000, 4)
    values = split.inputs[..., 0]
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(1 / 2, abs=0.005)
    squared_error = np.mean((split.targets.astype(np.float64) - 1) ** 2)
    # four standard errors of the mean; the variance of (u + v - 1)^2 is 1/15 - 1/36
    baseline = ADDING.generate(4, Sizes(1, 1, 1)).baseline_loss
    assert squared_error == pytest.approx(baseline, abs=4 * np.sqrt((1 / 15 - 1 / 36) / 50_000))


def test_the_task_says_what_the_arrays_are(sizes):
    dataset = ADDING.generate(7, sizes)
    assert (dataset.input_kind, dataset.input_size) == ("real", 2)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("value", "last", 1)
    assert dataset.num_timesteps == dataset.length == 7
    for split, num in (("train", 40), ("validation", 10), ("test", 20)):
        assert dataset.splits[split].inputs.shape == (num, 7, 2)
        assert dataset.splits[split].targets.shape == (num, 1)
        assert dataset.splits[split].inputs.dtype == dataset.splits[split].targets.dtype == np.float32


def test_one_timestep_has_no_two_halves(sizes):
    with pytest.raises(DatasetError, match=r"dataset 'adding': length 1 is impossible; .*at least 2"):
        ADDING.generate(1, sizes)


def test_the_drawing_marks_the_values_that_make_the_target(sizes):
    text = ADDING.draw(ADDING.generate(10, sizes))
    values, markers, target = text.split("\n\n")[0].splitlines()
    marked = [values[i : i + 4] for i in range(len(markers)) if markers[i : i + 4] == "^^^^"]
    assert len(marked) == 2
    assert sum(map(float, marked)) == pytest.approx(float(target.split()[1]), abs=0.011)
