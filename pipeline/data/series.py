"""A user's own series: numbers that follow each other in time, to be predicted `horizon` rows ahead.

    inputs   windows of T successive rows, (N, T, D): the columns `inputs`
    targets  the columns `targets`, `horizon` rows later: at every timestep (N, T, O), or at the last alone (N, O)
    baseline persistence, the value ahead is as the present one, where every target is an input too; else the mean of
             the training targets. Its squared error is that of the *test* split

A table has a row per time: CSV, Parquet, or an NPZ archive, each array of which is a column.
Splits follow each other in time, or are of different groups; no window reaches from one into the next, from a group
into another, or over a gap. Columns are scaled by what the training rows say, so errors are in units of that scale; the
scale stands in the manifest. Windows overlap: one begins at every `stride`-th row. Shapes: N windows, T timesteps.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.config.params import Sizes
from pipeline.config.strict import require
from pipeline.data.dataset import SPLITS, Dataset, Split, Task, make_task
from pipeline.data.files import MAX_NUMBER, Table, read_table
from pipeline.data.generator import AtLengths, draw_rows, split_indices
from pipeline.data.own import FILE_KEYS, OwnData, scale_of
from pipeline.errors import DatasetError

MAX_NUMBERS = 2**29
"""Numbers of a split, 2 GiB in float32."""
CLOSE = 1e-6
"""How far, relative to the usual step, a step of regular time may be from it."""


class Pieces(NamedTuple):
    """The columns of the pieces of every split, each (rows,) float64.

    Attributes:
        parts: By split and piece, the columns by name, scaled.
        scales: What was taken from each column, and what it was divided by.
    """

    parts: dict[str, list[dict[str, np.ndarray]]]
    scales: dict[str, dict[str, float]]


class Times(NamedTuple):
    """The time of every row; int64 where it is exact, else float64.

    Attributes:
        order: By which rows are in order, (N,).
        regular: The number whose steps are regular, (N,).
        per_unit: How many of its units are one of those that messages have: a million microseconds a second.
    """

    order: np.ndarray
    regular: np.ndarray
    per_unit: int = 1


@dataclass(frozen=True, kw_only=True)
class Series(AtLengths, OwnData):
    """Windows of the columns of a table, whatever the scale.

    Attributes:
        lengths: Of windows, in rows, that are prepared even if no study asks for them.
        inputs: Columns that are read.
        targets: Columns that are predicted.
        horizon: How many rows ahead.
        predict: At every timestep, or at the last of a window alone.
        stride: Rows from the beginning of one window to the next.
        scaling: `standard`: minus mean, by standard deviation; `range`: from 0 to 1; both of the training rows.
        missing: Whether a missing number is an error, or filled with the last one of its column, and counted.
        time: The column of times: numbers, dates or months in ISO 8601, ascending; null: every row is one step.
        gaps: Whether an irregular step of time is an error, divides the series, or is ignored.
        group: The column that tells several series in one table apart, one below the other.
        split_by: Whether splits follow each other in time, or are different groups.
        validation_from: The time at which the validation split begins, in place of `shares`.
        test_from: The time at which the test split begins.
    """

    lengths: tuple[int, ...] = ()
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    horizon: int = 1
    predict: Literal["every", "last"] = "every"
    stride: int = 1
    scaling: Literal["standard", "range", "none"] = "standard"
    missing: Literal["refuse", "fill"] = "refuse"
    time: str | None = None
    gaps: Literal["refuse", "divide", "ignore"] = "refuse"
    group: str | None = None
    split_by: Literal["time", "group"] = "time"
    validation_from: Any = None
    test_from: Any = None

    length_reason = "a window and the value {self.horizon} after it lie in one piece of a split"

    def __post_init__(self) -> None:
        for key in ("validation_from", "test_from"):
            value = getattr(self, key)
            if isinstance(value, datetime.date):  # as YAML reads 2020-01-31
                object.__setattr__(self, key, value.isoformat())
            expected = "a number, or a date in ISO 8601"
            require(value is None or isinstance(value, int | float | str | datetime.date), key, expected, value)
        super().__post_init__()
        for key in ("inputs", "targets"):
            names = getattr(self, key)
            require(len(names) > 0 and len({*names}) == len(names), key, "at least one column, each once", list(names))
        for key in ("horizon", "stride"):
            require(getattr(self, key) >= 1, key, "an integer of at least 1", getattr(self, key))
        require(self.gaps == "refuse" or self.time is not None, "gaps", "refuse, without a column `time`", self.gaps)

    def check_division(self, given: bool) -> None:
        """Check that there is one way of dividing the whole, and what it needs."""
        times = self.validation_from is not None, self.test_from is not None
        require(times[0] == times[1], "test_from", "a time with validation_from, and null without", self.test_from)
        if times[0]:
            expected = "null, as validation_from and test_from divide the whole"
            require(self.shares is None, "shares", expected, self.shares)
            require(not given, "validation_from", "null, as every split has its own file", self.validation_from)
            require(self.time is not None, "time", "the column of times, which validation_from is one of", self.time)
            require(self.split_by == "time", "split_by", "time, with validation_from", self.split_by)
        else:
            super().check_division(given)
        if self.split_by == "group":
            require(self.group is not None, "group", "the column of groups, as split_by says", self.group)
            require(not given, "split_by", "time, as every split has its own file", self.split_by)

    @property
    def longest_length(self) -> int:
        """The length of the longest piece of every split, less the horizon."""
        longest = [max(len(columns[self.targets[0]]) for columns in some) for some in self._pieces.parts.values()]
        return min(longest) - self.horizon

    def make(self, length: int, sizes: Sizes) -> tuple[Task, dict[str, Split]]:
        """Return the windows of `length` rows; `sizes` are of generated sequences and change nothing here."""
        splits = {split: self._windows(split, length) for split in SPLITS}
        test, last = splits["test"], (slice(None), -1) if self.predict == "last" else ()
        if {*self.targets} <= {*self.inputs}:
            present = test.inputs[..., [self.inputs.index(name) for name in self.targets]]
            baseline = squared_error(test, present[last]), "persistence"
        else:
            mean = splits["train"].targets.reshape(-1, len(self.targets)).mean(axis=0, dtype=np.float64)
            baseline = squared_error(test, mean), "training mean"
        return make_task(
            length,
            inputs=("real", len(self.inputs)),
            targets=("value", self.predict, len(self.targets)),
            baseline=baseline,
        ), splits

    def _windows(self, split: str, length: int) -> Split:
        read, answered = [], []
        for columns in self._pieces.parts[split]:
            inputs, targets = (
                np.stack([columns[name] for name in names], axis=1).astype(np.float32)
                for names in (self.inputs, self.targets)
            )
            num = len(inputs) - length - self.horizon + 1
            if num > 0:
                read.append(cut_windows(inputs[: len(inputs) - self.horizon], length)[:: self.stride])
                answered.append(cut_windows(targets[self.horizon :], length)[:: self.stride])
        starts = np.cumsum([0, *map(len, read)]).tolist()
        chosen = self.choose(split, starts[-1], f"windows of length {length}")
        num = len(chosen) * length * (len(self.inputs) + len(self.targets))
        if num > MAX_NUMBERS:
            message = f"{len(chosen)} windows of the {split} split hold {num} numbers, more than {MAX_NUMBERS}"
            raise DatasetError(f"{self.whole_path}: {message}; raise stride, or lower max_train")
        pieces = [chosen[(first <= chosen) & (chosen < last)] - first for first, last in pairwise(starts)]
        inputs = np.concatenate([windows[piece] for windows, piece in zip(read, pieces, strict=True)])
        targets = np.concatenate([windows[piece] for windows, piece in zip(answered, pieces, strict=True)])
        return Split(inputs, targets[:, -1] if self.predict == "last" else targets)

    @cached_property
    def _pieces(self) -> Pieces:
        """The columns, read, checked, filled, divided and scaled.

        Raises:
            DatasetError: If a file is not what it should be.
        """
        names = list(dict.fromkeys((*self.inputs, *self.targets)))
        wanted = [*names, *(name for name in (self.time, self.group) if name is not None)]
        parts: dict[str, list[dict[str, np.ndarray]]] = {split: [] for split in SPLITS}
        for given, key in (FILE_KEYS if self.given else {"": "data_file"}).items():
            table = read_table(self.paths(key)[0], wanted)
            series = self._groups(table)
            values = {name: self._numbers(table, name, list(series.values())) for name in names}
            times, starts = self._times(table, list(series.values()))
            whole = [(given, rows) for rows in series.values()]
            segments = whole if given else self._divide(table, series, times.order, starts)
            for split, rows in segments:
                for piece in self._without_gaps(table, rows, times):
                    parts[split].append({name: values[name][piece] for name in names})
        for split, some in parts.items():
            longest = max((len(columns[names[0]]) for columns in some), default=0)
            if longest <= self.horizon:
                path = self.paths(FILE_KEYS[split])[0] if self.given else self.whole_path
                expected = f"a piece of more rows than the horizon, {self.horizon}, in every split"
                remedy = "lower horizon" if self.given else "lower horizon, or divide otherwise"
                raise DatasetError(f"{path}: expected {expected}, the longest of {split} has {longest}; {remedy}")
        scales = {}
        for name in names:
            train = np.concatenate([columns[name] for columns in parts["train"]])
            minus, by = scale_of(train, self.scaling, f"{self.whole_path}: column {name!r}", "every training row")
            scales[name] = {"minus": minus, "divided_by": by}
        for columns in (columns for some in parts.values() for columns in some):
            for name, scale in scales.items():
                columns[name] = (columns[name] - scale["minus"]) / scale["divided_by"]
                if np.abs(columns[name]).max(initial=0) > MAX_NUMBER:
                    message = f"column {name!r} varies too little in training for what follows, so there is no scale"
                    raise DatasetError(f"{self.whole_path}: {message}; write scaling: none")
        return Pieces(parts, scales)

    def _groups(self, table: Table) -> dict[str, np.ndarray]:
        """Return the rows of every group, in order."""
        if self.group is None:
            return {"": np.arange(len(table))}
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(table.texts(self.group, name="name of a group")):
            rows.setdefault(name, []).append(row)
        return {name: np.array(some) for name, some in rows.items()}

    def _numbers(self, table: Table, name: str, series: list[np.ndarray]) -> np.ndarray:
        """Return a column without missing numbers, and note how many were filled.

        Raises:
            DatasetError: If one is missing and not filled, or a row has several.
        """
        numbers, num_filled = table.numbers(name).copy(), 0
        if numbers.ndim > 1:
            got = f"expected one number a row, got shape {numbers.shape[1:]}; save every column under a name of its own"
            raise DatasetError(f"{table.path}, array {name!r}: {got}")
        for rows in series:
            gone = np.isnan(numbers[rows])
            if gone.any() and self.missing == "refuse":
                message = "a number is missing; missing: fill takes the last one before it"
                raise DatasetError(f"{table.where(int(rows[np.argmax(gone)]), name)}: {message}")
            if gone[0]:
                message = "a number is missing, and there is none before it to fill it with; leave the row out"
                raise DatasetError(f"{table.where(int(rows[0]), name)}: {message}")
            numbers[rows] = numbers[rows][np.maximum.accumulate(np.where(gone, 0, np.arange(len(rows))))]
            num_filled += int(gone.sum())
        if num_filled:
            filled = f"{num_filled} missing of {len(numbers)} numbers of {name!r} are as the last one before"
            self.notes.append(f"{table.path.name}: {filled}")
        return numbers

    def _times(self, table: Table, series: list[np.ndarray]) -> tuple[Times, list[float]]:
        """Return the time of every row, its place in its group without a column, and where later splits begin.

        Raises:
            DatasetError: If a time is none, or does not come after the one before.
        """
        if self.time is None:
            places = np.zeros(len(table))
            for rows in series:
                places[rows] = np.arange(len(rows))
            return Times(places, places), []
        texts = table.texts(self.time, name="time")
        keys = [key for key in ("validation_from", "test_from") if getattr(self, key) is not None]
        times, starts, bad = parse_times(texts, [str(getattr(self, key)) for key in keys])
        if bad is not None:
            expected = "a number or a date in ISO 8601 (2020-01-31, 2020-01-31T12:00), of one kind in the column"
            if bad >= len(texts):
                key = keys[bad - len(texts)]
                got = f"{getattr(self, key)!r}; the column begins with {texts[0]!r}"
                raise DatasetError(f"{table.path}: {key}: expected {expected}, got {got}")
            raise DatasetError(f"{table.where(bad, self.time)}: expected {expected}, got {texts[bad]!r}")
        if starts and starts[0] >= starts[1]:
            got = f"got {self.test_from!r} after {self.validation_from!r}"
            raise DatasetError(f"{table.path}: test_from: expected a time after validation_from, {got}")
        for rows in series:
            steps = np.diff(times.order[rows])
            if (steps <= 0).any():
                at = int(np.argmax(steps <= 0))
                here, before = (texts[rows[i]] for i in (at + 1, at))
                message = f"expected a time after {before!r}, got {here!r}; sort the rows, or name the column `group`"
                raise DatasetError(f"{table.where(int(rows[at + 1]), self.time)}: {message}")
        return times, starts

    def _divide(
        self, table: Table, series: dict[str, np.ndarray], times: np.ndarray, starts: list[float]
    ) -> list[tuple[str, np.ndarray]]:
        """Return the rows of every series in each split.

        Raises:
            DatasetError: If there are too few groups.
        """
        if self.split_by == "group":
            assert self.shares is not None  # noqa: S101 - see `check_division`
            names = list(series)
            parts = split_indices(np.zeros(len(names), dtype=np.uint8), self.shares, self.seed)
            for split, chosen in parts.items():
                if len(chosen) == 0:
                    got = f"{len(names)} groups, too few for a share of {getattr(self.shares, split)}"
                    raise DatasetError(f"{table.path}, column {self.group!r}: {got}; {split} needs at least one")
            return [(split, series[names[i]]) for split, chosen in parts.items() for i in sorted(chosen)]
        if self.shares is not None:
            known = np.unique(times)
            starts = [known[min(cut, len(known) - 1)] for cut in self.shares.cuts(len(known))]
        pieces = []
        for split, (first, last) in zip(SPLITS, pairwise([-np.inf, *starts, np.inf]), strict=True):
            inside = (rows[(times[rows] >= first) & (times[rows] < last)] for rows in series.values())
            pieces += [(split, rows) for rows in inside if len(rows)]
        return pieces

    def _without_gaps(self, table: Table, rows: np.ndarray, times: Times) -> Sequence[np.ndarray]:
        """Return the rows between the gaps of time.

        Raises:
            DatasetError: If there is one and gaps are refused.
        """
        regular = times.regular[rows]
        steps = np.diff(regular)
        if self.time is None or self.gaps == "ignore" or len(steps) < 2:  # noqa: PLR2004 - one step is as usual as any
            return [rows]
        is_exact = regular.dtype == np.int64
        usual, counts = np.unique(steps if is_exact else np.round(steps / steps.min(), 9), return_counts=True)
        step = usual[np.argmax(counts)] * (1 if is_exact else steps.min())
        if is_exact:  # but for dates, which are rounded to a microsecond
            rounding = min(1, step / 1000) if times.per_unit > 1 else 0
        else:
            rounding = 4 * np.spacing(np.abs(regular).max())  # of two times at each of two steps
        ends = np.flatnonzero(np.abs(steps - step) > CLOSE * step + rounding)
        if len(ends) and self.gaps == "refuse":
            here, before = (str(table.columns[self.time][rows[i]]) for i in (ends[0] + 1, ends[0]))
            comes, expected = (float(one) / times.per_unit for one in (steps[ends[0]], step))
            message = f"{here!r} comes {comes:g} after {before!r}, expected {expected:g} as elsewhere"
            unit = "" if is_number(here) else " (in seconds, months in months)"
            remedy = "write gaps: divide (no window reaches over a gap) or ignore"
            hint = ", or dates as 2020-01-31" if len(here) == len("20200131") and here.isdigit() else ""
            raise DatasetError(f"{table.where(int(rows[ends[0] + 1]), self.time)}: {message}{unit}; {remedy}{hint}")
        if len(ends):
            self.notes.append(f"{table.path.name}: divided at {len(ends)} gaps of time")
        return np.split(rows, ends + 1)

    def draw_one(self, dataset: Dataset, one: Split) -> str:
        """Return numbers timestep by timestep; of several columns, a row for each with its name."""
        if self.inputs == self.targets and len(self.inputs) == 1:
            return super().draw_one(dataset, one)
        targets = np.atleast_2d(one.targets)
        rows = {name: [f"{x:.2f}" for x in one.inputs[:, i]] for i, name in enumerate(self.inputs)}
        answers = {f"target {name}": [f"{x:.2f}" for x in targets[:, i]] for i, name in enumerate(self.targets)}
        return draw_rows(rows | {name: [""] * (len(one.inputs) - len(some)) + some for name, some in answers.items()})

    def source(self) -> dict[str, Any]:
        """Return the sha256 of every file, and how each column was scaled."""
        return super().source() | {"scaling": self._pieces.scales}


def parse_times(texts: Sequence[str], starts: Sequence[str] = ()) -> tuple[Times, list[float], int | None]:
    """Return the times of N rows, those at which splits start, and which text of both is no time, or None.

    Numbers are taken as they are, dates in microseconds: exactly, where no row has a fraction. Dates that are all of
    the same day and time of their month are regular in months, though these are of different lengths; when splits start
    has no part in that.
    """
    row, num, every = 0, len(texts), [*texts, *starts]
    none = Times(np.zeros(num), np.zeros(num))
    try:
        if is_number(texts[0]):
            numbers: list[float] = []
            for row, text in enumerate(every):  # noqa: B007 - which one it is stands in the answer
                numbers.append(number_of(text))
            kept, begin = numbers[:num], numbers[num:]
            if all(isinstance(one, int) for one in kept) and max(map(abs, kept)) < 2**62:  # no step overflows
                order = np.array(kept, dtype=np.int64)
                return Times(order, order), [math.ceil(one) for one in begin], None
            order = np.array(kept, dtype=np.float64)
            return Times(order, order), begin, None
        dates: list[datetime.datetime] = []
        for row, text in enumerate(every):  # noqa: B007
            dates.append(datetime.datetime.fromisoformat(f"{text}-01" if len(text) == len("2020-01") else text))
            if (dates[-1].tzinfo is None) != (dates[0].tzinfo is None):
                return none, [], row
    except ValueError:
        return none, [], row
    origin = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC if dates[0].tzinfo else None)
    exact: list[float] = [(date - origin) // datetime.timedelta(microseconds=1) for date in dates]
    order = np.array(exact[:num], dtype=np.int64)
    if len({(date.day, date.time(), date.tzinfo) for date in dates[:num]}) > 1:
        return Times(order, order, per_unit=1_000_000), exact[num:], None
    months = np.array([12 * date.year + date.month for date in dates[:num]], dtype=np.int64)
    return Times(order, months), exact[num:], None


def is_number(text: str) -> bool:
    """Return whether a text is a number, be it infinite."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def number_of(text: str) -> float:
    """Return the number that a text is, an integer where it is whole.

    Raises:
        ValueError: If it is none, or not finite.
    """
    number = float(text)
    if "_" in text or not math.isfinite(number):
        raise ValueError
    try:
        return int(text)
    except ValueError:
        return int(number) if number.is_integer() else number


def cut_windows(series: np.ndarray, length: int) -> np.ndarray:
    """Return every window of `length` rows of a series (rows, D), in order: a view, (N, T, D)."""
    return np.lib.stride_tricks.sliding_window_view(series, length, axis=0).swapaxes(1, 2)


def squared_error(split: Split, answers: np.ndarray) -> float:
    """Return the mean squared error of answers that broadcast to the targets."""
    return float(np.mean((split.targets.astype(np.float64) - answers) ** 2))
