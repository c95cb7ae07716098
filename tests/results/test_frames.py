from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

import numpy as np
import polars as pl
import pytest

from pipeline.core.training.rows import FACTS
from pipeline.errors import TableError
from pipeline.results import SCHEMAS, STATUSES
from pipeline.results.frames import failed_trials_frame, long_frame, spec_columns, trials_frame
from pipeline.results.schema import IDENTITY_COLUMNS


@dataclass(frozen=True)
class Model:
    name: Literal["gru"]
    hidden_size: int
    embedding_size: int | None
    dropout: float | None
    biased: bool


@dataclass(frozen=True)
class Spec:
    model: Model
    seeds: tuple[int, ...]


SPEC = Spec(Model("gru", 8, None, None, True), (3, 5))
ABOUT: dict[str, Any] = {
    "trial_id": "abc",
    "dataset_digest": "digest",
    "code_digest": "code",
    "facts": {"hostname": "here", "git_revision": None, "platform": "not a column"},
}


def row(seed: int, **known: object) -> dict[str, object]:
    given = (*IDENTITY_COLUMNS, "dataset_digest", "hostname", "git_revision")
    return {**{name: None for name in SCHEMAS["trials"] if name not in given}, "seed": seed, **known}


def curve(**changed: object) -> dict[str, object]:
    nothing = {fact: np.array([value, value]) for fact, value in FACTS.items()}
    columns = {"seed": np.array([0, 1]), "step": [1, 1], "metric": np.array(["loss", "norm"])}
    return {**columns, **nothing, "split": np.array(["test", ""]), "layer": [0, -1], "value": [0.5, np.nan], **changed}


def test_a_long_frame_has_the_declared_columns_and_the_trial_id() -> None:
    frame = long_frame("curves", curve(value=np.array([0.5, 1.5], dtype=np.float32)), "abc")
    assert dict(frame.schema) == SCHEMAS["curves"]
    assert frame.select("trial_id", "seed", "step", "metric", "split", "layer", "value").rows() == [
        ("abc", 0, 1, "loss", "test", 0, 0.5),
        ("abc", 1, 1, "norm", None, None, 1.5),
    ]
    assert frame["gate"].null_count() == 2


def test_values_that_are_not_finite_stay_as_they_are() -> None:
    values = long_frame("curves", curve(value=[-np.inf, np.nan]), "abc")["value"]
    assert values[0] == -np.inf
    assert values.is_nan().to_list() == [False, True]


def test_no_columns_make_an_empty_frame() -> None:
    assert dict(long_frame("traces", {}, "abc").schema) == SCHEMAS["traces"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**curve(), "colour": ["red", "red"]}, "trial abc: table 'curves' has undeclared column 'colour'"),
        ({k: v for k, v in curve().items() if k != "value"}, "trial abc: table 'curves' lacks column 'value'"),
        (curve(step=["one", "two"]), "trial abc: curves.step: expected Int64"),
        (curve(step=np.array([0.5, 1.0])), "trial abc: curves.step: expected Int64, got an array of float64"),
        (curve(step=np.array([2**64 - 1, 0], dtype=np.uint64)), "trial abc: curves.step: expected Int64"),
    ],
)
def test_columns_that_do_not_fit_are_an_error(columns: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        long_frame("curves", columns, "abc")


def test_spec_columns_have_declared_types_even_where_null() -> None:
    found = spec_columns(SPEC)
    assert {name: column.dtype for name, column in found.items()} == {
        "model.name": pl.String(),
        "model.hidden_size": pl.Int64(),
        "model.embedding_size": pl.Int64(),
        "model.dropout": pl.Float64(),
        "model.biased": pl.Boolean(),
    }
    assert found["model.name"].value == "gru"


@dataclass(frozen=True)
class Normal:
    name: Literal["normal"]
    gain: float | None


@dataclass(frozen=True)
class Constant:
    name: Literal["constant"]
    value: float


@dataclass(frozen=True)
class Start:
    gates: Mapping[str, Normal | Constant]
    biases: Mapping[str, float | None]
    extra: Mapping[str, Mapping[str, int]] | None


@dataclass(frozen=True)
class Nested:
    start: Start | None
    window: Optional[Normal]  # noqa: UP045 - typing's spelling too
    either: Union[Normal, Constant, None]  # noqa: UP007
    mode: Literal["fast", "slow"] | None
    share: int | None
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    training: Nested
    seeds: tuple[int, ...]


def test_mappings_have_dotted_columns_of_scalars_and_of_dataclasses() -> None:
    gates = {"f": Normal("normal", None), "i": Constant("constant", 2.0)}
    spec = Nested(Start(gates, {"f": 1.0, "o": None}, {"a": {"b": 3}}), None, None, "fast", None, (0,))
    found = spec_columns(spec)
    assert {name: tuple(column) for name, column in found.items()} == {
        "start.gates.f.name": ("normal", pl.String()),
        "start.gates.f.gain": (None, pl.Float64()),
        "start.gates.i.name": ("constant", pl.String()),
        "start.gates.i.value": (2.0, pl.Float64()),
        "start.biases.f": (1.0, pl.Float64()),
        "start.biases.o": (None, pl.Float64()),
        "start.extra.a.b": (3, pl.Int64()),
        "mode": ("fast", pl.String()),
        "share": (None, pl.Int64()),
    }


@pytest.mark.parametrize("start", [None, Start({}, {}, None), Start({}, {}, {"a": {}})])
def test_parts_that_are_null_and_empty_mappings_have_no_columns(start: Start | None) -> None:
    found = spec_columns(Nested(start, None, None, None, 3, (0,)))
    assert {name: tuple(column) for name, column in found.items()} == {
        "mode": (None, pl.String()),  # a scalar that is null keeps its declared column
        "share": (3, pl.Int64()),
    }


def test_frames_with_and_without_a_part_stack_with_nulls() -> None:
    specs = [Outer(Nested(None, part, None, None, None, (0,)), (0,)) for part in (None, Normal("normal", 0.5))]
    stacked = pl.concat([trials_frame([row(0)], spec, **ABOUT) for spec in specs], how="diagonal")
    assert stacked["training.window.name"].to_list() == [None, "normal"]
    assert stacked["training.window.gain"].to_list() == [None, 0.5]


def test_trials_have_a_row_per_seed_with_spec_and_host() -> None:
    rows = [row(3, status="ok", test_loss=np.float64(0.5)), row(5, status="diverged", diverged_step=7)]
    frame = trials_frame(rows, SPEC, **ABOUT)
    assert frame["seed"].to_list() == [3, 5]
    assert frame["model.hidden_size"].to_list() == [8, 8]
    assert frame["hostname"].to_list() == ["here", "here"]
    assert frame["code_digest"].to_list() == ["code", "code"]
    assert frame["adopted_from"].to_list() == [None, None]
    assert frame["diverged_step"].to_list() == [None, 7]
    assert {name: frame.schema[name] for name in SCHEMAS["trials"]} == SCHEMAS["trials"]


def test_a_row_with_an_unknown_key_is_an_error() -> None:
    with pytest.raises(TableError, match="trial abc: table 'trials' has undeclared column 'lucky'"):
        trials_frame([row(0, lucky=True)], SPEC, **ABOUT)


def test_a_row_without_a_declared_key_is_an_error() -> None:
    incomplete = {name: value for name, value in row(0).items() if name != "test_loss"}
    with pytest.raises(TableError, match="trial abc: table 'trials' lacks column 'test_loss'"):
        trials_frame([incomplete], SPEC, **ABOUT)


def test_a_failed_trial_has_a_row_per_seed_that_says_why() -> None:
    about = {"trial_id": "abc", "dataset_digest": "digest", "code_digest": "code", "git_revision": "c0ffee"}
    frame = failed_trials_frame(SPEC, message="boom", **about)
    assert frame["status"].to_list() == ["error", "error"]
    assert set(frame["status"]) < set(STATUSES)
    assert frame["status_message"].to_list() == ["boom", "boom"]
    assert frame["seed"].to_list() == [3, 5]
    assert frame["test_loss"].null_count() == 2
