"""Every kind of interval holds the truth as often as it promises."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pipeline.__main__ import main
from pipeline.quantities import coverage
from tests.quantities.conftest import Z975


@pytest.fixture(scope="module")
def found() -> pl.DataFrame:
    return coverage.coverage(400, (5, 10))


def test_every_kind_covers_as_promised_from_five_seeds_on(found: pl.DataFrame) -> None:
    promised = found.drop_nulls("holds")
    assert promised["kind"].n_unique() == sum(kind.is_held for kind in coverage.KINDS) == 11
    assert promised["mean"].to_numpy().min() >= 0.93, promised
    assert promised["smallest"].to_numpy().min() >= 0.85, promised


def test_where_a_kind_is_known_not_to_hold_is_printed(found: pl.DataFrame) -> None:
    unheld = found.filter(pl.col("kind").str.starts_with("NOT HELD"))
    assert unheld["holds"].is_null().all()
    assert unheld["smallest"].to_numpy().max() < coverage.MIN_SMALLEST


def test_an_interval_that_is_too_narrow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    held = next(kind for kind in coverage.KINDS if kind.name.startswith("mean"))
    monkeypatch.setattr(coverage, "KINDS", (held._replace(measure=coverage._arithmetic),))
    lines: list[str] = []
    assert coverage.run(100, lines.append) == 1
    assert any(line.endswith("FAILS") for line in lines)


@pytest.mark.parametrize(
    ("kind", "half_width"),
    [
        ("ratio of step times", lambda errors, counts: Z975 * np.hypot(*errors)),  # as if of infinitely many portions
        ("ratio of times to the criterion", lambda errors, counts: np.zeros(errors.shape[1])),  # each seed a clock
    ],
)
def test_too_sure_a_clock_is_seen(kind: str, half_width: object, monkeypatch: pytest.MonkeyPatch) -> None:
    own = next(one for one in coverage.KINDS if one.name.startswith(kind))
    monkeypatch.setattr(coverage, "KINDS", (own,))
    assert coverage.run(400, lambda line: None) == 0
    monkeypatch.setattr(coverage, "ratio_half_width", half_width)
    assert coverage.run(400, lambda line: None) == 1


def test_the_command_prints_every_kind_and_refuses_no_samples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "KINDS", coverage.KINDS[:3])
    assert main(["coverage", "--samples", "400"]) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f"n = {n:>2}") for n in (3, 5, 10, 20)] == [3] * 4
    with pytest.raises(SystemExit):
        main(["coverage", "--samples", "0"])
    assert "expected an integer of at least 1, got '0'" in capsys.readouterr().err
