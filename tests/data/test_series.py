"""A series is that of its table, cut into windows within one piece of a split, scaled by what was to train on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InvalidFieldError, Paths, Sizes
from pipeline.data import read_generator
from pipeline.data.dataset import SPLITS
from pipeline.data.generator import Shares
from pipeline.data.series import Series, cut_windows, parse_times
from pipeline.errors import DatasetError
from tests.test_architecture import ROOT

SHARES = Shares(train=0.6, validation=0.2, test=0.2)
SIZES = Sizes(1, 1, 1)
SUNSPOTS = read_generator(Paths.at(ROOT).dataset_config("sunspots"))


@pytest.fixture(autouse=True)
def _beside_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(content: str, **changes) -> Series:
    Path("a.csv").write_text(content)
    fields = {"lengths": (), "data_file": "a.csv", "inputs": ("x",), "targets": ("x",), "shares": SHARES}
    return Series(**(fields | changes))


def column(values, header="x") -> str:
    return f"{header}\n" + "".join(f"{value}\n" for value in values)


def test_sunspots_are_what_they_were_before_they_were_a_series_of_ones_own():
    dataset = SUNSPOTS.generate(20, SIZES)
    assert dataset.digest == "6e5c6ace974be793d697639ae0cfbd8dc729a3b0d991ccaf5f6ea2cb291adccf"
    assert [len(dataset.splits[split].inputs) for split in SPLITS] == [165, 42, 42]
    assert (dataset.baseline_name, round(dataset.baseline_loss, 6)) == ("persistence", 0.896207)


def test_windows_written_out():
    assert cut_windows(np.arange(4.0)[:, None], 3)[..., 0].tolist() == [[0, 1, 2], [1, 2, 3]]
    made = of(column(range(40)), scaling="none", horizon=2, stride=3).generate(4, SIZES)
    train = made.splits["train"]
    assert train.inputs[:3, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert train.targets[:3, :, 0].tolist() == [[2, 3, 4, 5], [5, 6, 7, 8], [8, 9, 10, 11]]
    assert (len(train.inputs), train.targets.max()) == (7, 23)


@pytest.mark.parametrize("length", [1, 20, 61])
def test_the_splits_put_together_are_the_series(length):
    dataset, series = (
        SUNSPOTS.generate(length, SIZES),
        np.loadtxt(SUNSPOTS.paths("data_file")[0], delimiter=",", skiprows=1),
    )
    values, whole = series[:, 1], []
    for split in SPLITS:
        inputs, targets = dataset.splits[split].inputs[..., 0], dataset.splits[split].targets[..., 0]
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
        whole += [*inputs[0], *targets[:, -1]]
    np.testing.assert_allclose(np.array(whole) * values[:185].std() + values[:185].mean(), values, atol=1e-4)


def test_targets_of_other_columns_at_the_last_timestep():
    content = "x,y\n" + "".join(f"{i},{i * i}\n" for i in range(20))
    made = of(content, targets=("y",), predict="last", scaling="none").generate(3, SIZES)
    assert made.splits["train"].targets.tolist() == [[float(i * i)] for i in range(3, 12)]
    assert (made.target_at, made.baseline_name) == ("last", "training mean")
    expected = np.mean((made.splits["test"].targets - made.splits["train"].targets.mean()) ** 2)
    assert made.baseline_loss == pytest.approx(float(expected))


def test_only_training_rows_scale():
    values = [*range(12), *range(100, 108)]
    for scaling, low, high in (("standard", -5.5, 5.5), ("range", 0, 1)):
        made = of(column(values), scaling=scaling).generate(1, SIZES)
        train = made.splits["train"].inputs
        by = np.std(range(12)) if scaling == "standard" else 1
        assert (train.min() * by, made.splits["train"].targets.max() * by) == pytest.approx((low, high), abs=1e-6)


def test_missing_numbers_are_filled_from_the_past_and_counted():
    made = of(column([1, "NA", "NaN", 4, 5, 6, 7, 8, 9, 10]), missing="fill", scaling="none")
    assert made.generate(1, SIZES).splits["train"].inputs.ravel().tolist() == [1, 1, 1, 4, 5]
    assert made.remarks() == ("a.csv: 2 missing of 10 numbers of 'x' are as the last one before",)


def test_gaps_divide_the_series_and_no_window_reaches_over_one():
    days = [1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
    content = "day,x\n" + "".join(f"2020-01-{day:02d},{day}\n" for day in days)
    made = of(content, time="day", gaps="divide", scaling="none")
    inputs, targets = (getattr(made.generate(2, SIZES).splits["train"], role)[..., 0] for role in ("inputs", "targets"))
    assert (np.diff(inputs, axis=1) == 1).all()
    assert (targets - inputs == 1).all()
    assert made.remarks() == ("a.csv: divided at 1 gaps of time",)


def test_months_are_regular_though_they_differ_in_length():
    content = "month,x\n" + "".join(f"{2000 + i // 12}-{i % 12 + 1:02d},{i}\n" for i in range(24))
    made = of(content, time="month", shares=None, validation_from="2001-01", test_from="2001-07").generate(2, SIZES)
    assert [len(split.inputs) for split in made.splits.values()] == [10, 4, 4]


def test_months_are_regular_whenever_the_splits_begin():
    content = "month,x\n" + "".join(f"{2000 + i // 12}-{i % 12 + 1:02d}-15,{i}\n" for i in range(24))
    starts = {"validation_from": "2001-01-01", "test_from": "2001-07-01"}
    made = of(content, time="month", shares=None, **starts).generate(2, SIZES)
    assert [len(split.inputs) for split in made.splits.values()] == [10, 4, 4]


NOW = 1_700_000_000


@pytest.mark.parametrize(
    "times",
    [
        [f"{NOW + i / 10:.1f}" for i in range(40)],  # 10 Hz, in seconds since 1970
        [repr(NOW + i / 10) for i in range(40)],
        [f"2023-11-14T22:13:{i / 10:04.1f}00" for i in range(40)],
        [f"2023-11-14T22:13:{i / 30:09.6f}" for i in range(40)],
        [str(NOW * 10**9 + 100 * i) for i in range(40)],  # nanoseconds
        [str(2**53 + i) for i in range(40)],
        [f"{(i + 1) * 1e-05:.0e}" if i < 9 else repr((i + 1) * 1e-05) for i in range(40)],
        [repr(1e-11 * (i + 1)) for i in range(40)],
    ],
)
def test_times_are_regular_though_floats_hold_them_roughly(times):
    content = "t,x\n" + "".join(f"{time},{i}\n" for i, time in enumerate(times))
    made = of(content, time="t", scaling="none").generate(2, SIZES)
    assert [len(split.inputs) for split in made.splits.values()] == [22, 6, 6]
    gone = "".join(line for i, line in enumerate(content.splitlines(keepends=True)) if i != 11)
    with pytest.raises(DatasetError, match=r"line 12, column 't': .*, expected .* as elsewhere"):
        of(gone, time="t").generate(2, SIZES)


def test_microseconds_are_told_apart():
    content = "t,x\n" + "".join(f"2023-11-14T22:13:00.{i + (i > 10):06d},{i}\n" for i in range(40))
    with pytest.raises(DatasetError, match=r"line 13, column 't': .* comes 2e-06 .* expected 1e-06 as elsewhere"):
        of(content, time="t").generate(2, SIZES)


def test_splits_begin_at_times_that_floats_do_not_tell_apart():
    content = "t,x\n" + "".join(f"{2**53 + i},{i}\n" for i in range(40))
    starts = {"validation_from": 2**53 + 23, "test_from": 2**53 + 31.0}
    made = of(content, time="t", shares=None, scaling="none", **starts).generate(2, SIZES)
    assert [int(split.inputs[0, 0, 0]) for split in made.splits.values()] == [0, 23, 32]  # 31.0 is rounded to 32
    with pytest.raises(DatasetError, match="the longest of test has 0"):
        of(content, time="t", shares=None, **starts | {"test_from": 2**70}).generate(2, SIZES)


def test_groups_are_whole_in_a_split():
    content = "who,x\n" + "".join(f"{who},{10 * j + i}\n" for j, who in enumerate("abcde") for i in range(6))
    made = of(content, group="who", split_by="group", scaling="none").generate(2, SIZES)
    groups = [{*(split.inputs // 10).ravel().tolist()} for split in made.splits.values()]
    assert [len(some) for some in groups] == [3, 1, 1]
    assert set.union(*groups) == {0, 1, 2, 3, 4}


def test_a_column_may_be_called_as_parquet_files_begin():
    made = of(column(range(20), "PAR1"), inputs=("PAR1",), targets=("PAR1",), scaling="none").generate(1, SIZES)
    assert made.splits["train"].inputs.ravel().tolist() == [*range(11)]


def test_parquet_and_npz_are_the_csv():
    polars = pytest.importorskip("polars")
    values = np.sin(np.arange(30.0))
    polars.DataFrame({"x": values}).write_parquet("a.parquet")
    np.savez("a.npz", x=values)
    digests = {
        of(column(values.tolist()), data_file=f"a.{kind}").generate(3, SIZES).digest
        for kind in ("csv", "parquet", "npz")
    }
    assert len(digests) == 1


def test_times_of_every_kind():
    assert parse_times(["1", "2.5"])[0].order.tolist() == [1, 2.5]
    assert np.diff(parse_times(["2020-01-01T00:00", "2020-01-01T00:01"])[0].order).tolist() == [60_000_000]
    assert parse_times(["1" * 400])[2] == parse_times(["1_000"])[2] == parse_times(["inf"])[2] == 0
    assert parse_times(["2020-01-01", "soon"])[2] == parse_times(["2020-01-01"], ["soon"])[2] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "inputs: expected at least one column, each once"),
        ({"horizon": 0}, "horizon: expected an integer of at least 1, got 0"),
        ({"gaps": "divide"}, "gaps: expected refuse, without a column `time`"),
        ({"split_by": "group"}, "group: expected the column of groups, as split_by says"),
        ({"validation_from": 3}, "test_from: expected a time with validation_from"),
        ({"validation_from": 3, "test_from": 4}, "shares: expected null, as validation_from and test_from divide"),
        ({"validation_from": 3, "test_from": 4, "shares": None}, "time: expected the column of times"),
    ],
)
def test_fields_that_do_not_go_together(changes, message):
    with pytest.raises(InvalidFieldError, match=message):
        dataclasses.replace(of(column(range(9))), **changes)


@pytest.mark.parametrize("length", [0, 62])
def test_a_window_longer_than_a_split(length):
    with pytest.raises(DatasetError, match=rf"'series': length {length} is impossible; .*from 1 to 61"):
        SUNSPOTS.generate(length, SIZES)
