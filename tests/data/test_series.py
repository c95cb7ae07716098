"""The series is that of statsmodels, cut into windows within one split, scaled by what was to train on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Sizes
from pipeline.data import load_dataset, prepare_dataset
from pipeline.data.dataset import SPLITS
from pipeline.data.series import Sunspots, cut_windows, persistence_loss
from pipeline.errors import DatasetError

statsmodels = pytest.importorskip("statsmodels")

SUNSPOTS = Sunspots(lengths=(), validation_from=1885, test_from=1947)
SIZES = Sizes(1, 1, 1)


def test_the_series_is_the_known_one():
    from statsmodels.datasets import sunspots as original

    series = SUNSPOTS.values()
    data = original.load_pandas().data
    np.testing.assert_array_equal(series, data["SUNACTIVITY"])
    assert data["YEAR"].iloc[[0, -1]].tolist() == [1700, 2008]
    assert (series[0], series[1957 - 1700], len(series)) == (5, 190.2, 309)  # the largest, in 1957


def test_windows_written_out():
    split = cut_windows(np.arange(5.0), 3)
    assert split.inputs[..., 0].tolist() == [[0, 1, 2], [1, 2, 3]]
    assert split.targets[..., 0].tolist() == [[1, 2, 3], [2, 3, 4]]


@pytest.mark.parametrize("length", [1, 20, 61])
def test_the_splits_put_together_are_the_series(length):
    dataset = SUNSPOTS.generate(length, SIZES)
    series = SUNSPOTS.values()
    mean, deviation = series[:185].mean(), series[:185].std()
    whole = []
    for split in SPLITS:
        inputs, targets = dataset.splits[split].inputs[..., 0], dataset.splits[split].targets[..., 0]
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
        np.testing.assert_array_equal(inputs[1:], targets[:-1])  # a window begins at every year
        whole += [*inputs[0], *targets[:, -1]]
    np.testing.assert_allclose(np.array(whole) * deviation + mean, series, atol=1e-4)


def test_no_year_is_in_two_splits():
    dataset = SUNSPOTS.generate(20, SIZES)
    assert {split: len(dataset.splits[split].inputs) for split in SPLITS} == {
        "train": 185 - 20,
        "validation": 62 - 20,
        "test": 62 - 20,
    }


def test_only_the_training_years_scale_the_series():
    series = SUNSPOTS.values()
    dataset = SUNSPOTS.generate(1, SIZES)
    train = dataset.splits["train"]
    years = np.append(train.inputs[:, 0, 0], train.targets[-1, 0, 0]).astype(np.float64)
    assert years.mean() == pytest.approx(0, abs=1e-6)
    assert years.std() == pytest.approx(1, abs=1e-6)
    first = dataset.splits["test"].inputs[0, 0, 0]
    assert first == pytest.approx((series[247] - series[:185].mean()) / series[:185].std(), rel=1e-6)


def test_the_baseline_is_the_error_of_persistence_on_the_test_split():
    series = SUNSPOTS.values()
    changes = np.diff(series[247:])  # from 1947 on
    dataset = SUNSPOTS.generate(1, SIZES)
    assert dataset.baseline_loss == pytest.approx(np.mean(changes**2) / series[:185].var(), rel=1e-5)
    windows = np.array([changes[start : start + 20] for start in range(42)])
    longer = SUNSPOTS.generate(20, SIZES)
    assert longer.baseline_loss == pytest.approx(np.mean(windows**2) / series[:185].var(), rel=1e-5)
    assert longer.baseline_loss == persistence_loss(longer.splits["test"])
    assert longer.baseline_name == "persistence"


def test_the_mean_is_a_worse_answer_than_persistence():
    test = SUNSPOTS.generate(20, SIZES).splits["test"]
    assert persistence_loss(test) < np.var(test.targets.astype(np.float64))


def test_the_task_says_what_the_arrays_are():
    dataset = SUNSPOTS.generate(20, SIZES)
    assert (dataset.input_kind, dataset.input_size) == ("real", 1)
    assert (dataset.target_kind, dataset.target_at, dataset.output_size) == ("value", "every", 1)
    assert dataset.num_timesteps == dataset.length == 20
    for split in dataset.splits.values():
        assert split.inputs.shape == split.targets.shape == (len(split.inputs), 20, 1)
        assert split.inputs.dtype == split.targets.dtype == np.float32


def test_the_same_again():
    assert SUNSPOTS.generate(20, SIZES).digest == SUNSPOTS.generate(20, Sizes(9, 9, 9)).digest
    other = dataclasses.replace(SUNSPOTS, validation_from=1886)
    assert other.generate(20, SIZES).digest != SUNSPOTS.generate(20, SIZES).digest


def test_what_is_loaded_is_what_was_generated(tmp_path, config_path):
    folder = tmp_path / "data" / "sunspots"
    prepare_dataset("sunspots", config_path("sunspots"), (), SIZES, folder)
    made, loaded = SUNSPOTS.generate(20, SIZES), load_dataset(folder, 20)
    assert (loaded.digest, loaded.baseline_loss) == (made.digest, made.baseline_loss)
    for split in SPLITS:
        np.testing.assert_array_equal(loaded.splits[split].targets, made.splits[split].targets)


def test_the_source_names_the_version_and_the_file():
    source = SUNSPOTS.source()
    path = Path(statsmodels.__file__).parent / source["file"]
    assert source["statsmodels_version"] == statsmodels.__version__
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("length", [0, 62])
def test_a_window_longer_than_a_split(length):
    with pytest.raises(DatasetError, match=rf"'sunspots': length {length} is impossible; .*from 1 to 61"):
        SUNSPOTS.generate(length, SIZES)


@pytest.mark.parametrize(
    ("field", "year", "message"),
    [
        ("validation_from", 1701, "validation_from: expected a year from 1702 to 2005, got 1701"),
        ("validation_from", 2006, "validation_from: expected a year from 1702 to 2005, got 2006"),
        ("test_from", 1886, "test_from: expected a year from 1887 to 2007, got 1886"),
        ("test_from", 2008, "test_from: expected a year from 1887 to 2007, got 2008"),
    ],
)
def test_a_split_without_a_year_to_predict(field, year, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(SUNSPOTS, **{field: year})


def test_the_shortest_splits_have_one_window():
    shortest = Sunspots(lengths=(), validation_from=2005, test_from=2007).generate(1, SIZES)
    assert len(shortest.splits["validation"].inputs) == len(shortest.splits["test"].inputs) == 1
    assert math.isfinite(shortest.baseline_loss)


def test_without_statsmodels(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(DatasetError, match="comes with statsmodels, which is not installed; pip install statsmodels"):
        SUNSPOTS.generate(20, SIZES)


def test_another_series_than_expected(monkeypatch, tmp_path):
    path = tmp_path / "sunspots.csv"
    path.write_text('"YEAR","SUNACTIVITY"\n1700,5\n1701,11\n')
    monkeypatch.setattr(Sunspots, "path", lambda _: path)
    with pytest.raises(DatasetError, match="expected the years 1700 to 2008, got 2 from 1700; install the version"):
        SUNSPOTS.generate(20, SIZES)


def test_the_drawing_is_the_numbers():
    dataset = SUNSPOTS.generate(5, SIZES)
    inputs, targets = SUNSPOTS.draw(dataset).split("\n\n")[0].splitlines()
    assert inputs.split() == ["input", *(f"{x:.2f}" for x in dataset.splits["train"].inputs[0, :, 0])]
    assert targets.split() == ["target", *(f"{x:.2f}" for x in dataset.splits["train"].targets[0, :, 0])]
