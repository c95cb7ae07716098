"""A trial of the result tables is trained again from its row alone, and every row is compared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.__main__ import main
from pipeline.config import Params, Paths, Sizes
from pipeline.data import prepare_dataset
from pipeline.errors import SweepError
from pipeline.results import read_table, write_table
from pipeline.sweep import rerun
from pipeline.sweep.rerun import rerun as run_again

from .fakes import FakeTrain, sweep


@pytest.fixture
def swept(project: tuple[Paths, Params]) -> tuple[Paths, Params, str]:
    """A project whose study has been swept, and one of its trials."""
    paths, params = project
    sweep(paths, params, FakeTrain(diverges_on="lstm"))
    return paths, params, read_table("settings", paths.results("cells"))["trial_id"][0]


def again(swept: tuple[Paths, Params, str], train: Any) -> tuple[bool, str]:
    stream = io.StringIO()
    return rerun(*swept, stream=stream, train=train), stream.getvalue()


class OtherLoss(FakeTrain):
    """Trains as it did, but for the last bit of one number."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        result = super().__call__(*args, **options)
        result.rows[1]["best_validation_loss"] += 2.0**-52
        return result


def test_rows_agree_and_the_trial_store_is_not_asked(swept: tuple[Paths, Params, str], tmp_path: Path) -> None:
    for path in swept[0].default_store.rglob("*.zip"):
        path.unlink()
    agrees, said = again(swept, FakeTrain())
    assert agrees
    first, *_, last = said.splitlines()
    assert first == f"rerun: cells: elman, lr=0.1 (trial {swept[2]}), 2 seeds"
    assert last == "all rows of 12 tables agree to the bit"
    assert not list(swept[0].default_store.rglob("*.zip"))


def test_the_last_bit_of_one_seed_is_a_difference(swept: tuple[Paths, Params, str]) -> None:
    agrees, said = again(swept, OtherLoss())
    assert not agrees
    assert "the rows differ: trials.best_validation_loss, row 1: " in said


def test_a_diverged_trial_can_be_repeated(swept: tuple[Paths, Params, str]) -> None:
    paths, params, _ = swept
    diverged = read_table("trials", paths.results("cells")).filter(status="diverged")["trial_id"][0]
    assert again((paths, params, diverged), FakeTrain(diverges_on="lstm"))[0]


def test_other_code_is_told(swept: tuple[Paths, Params, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = swept[0].results("cells")
    trials = read_table("trials", folder).with_columns(code_digest=pl.lit("0" * 16), git_revision=pl.lit("abc123"))
    renamed = pl.col("trial_id").replace(swept[2], "f" * 16)
    write_table("trials", trials.with_columns(renamed), folder)
    for table in ("settings", "curves"):
        write_table(table, read_table(table, folder).with_columns(renamed), folder)
    agrees, said = again((*swept[:2], "f" * 16), FakeTrain())
    assert agrees
    assert "the code has changed since: digest " in said
    assert "then 0000000000000000; `git checkout abc123` has that" in said


@pytest.mark.parametrize("status", ["error", "timed_out", "censored"])
def test_what_has_no_end_to_compare_is_refused(swept: tuple[Paths, Params, str], status: str) -> None:
    folder = swept[0].results("cells")
    write_table("trials", read_table("trials", folder).with_columns(status=pl.lit(status)), folder)
    with pytest.raises(SweepError, match=f"expected replicas that ended ok or diverged; got {status}"):
        again(swept, FakeTrain())


def test_other_data_are_refused(swept: tuple[Paths, Params, str]) -> None:
    paths = swept[0]
    config = paths.dataset_config("adding")
    config.write_text(config.read_text().replace("seed: 1", "seed: 2"))
    prepare_dataset("adding", config, [4, 6], Sizes(8, 4, 4), paths.dataset("adding"))
    with pytest.raises(SweepError, match="adding: expected data of digest .*: other data, other numbers"):
        again(swept, FakeTrain())


def test_an_unknown_trial_has_its_neighbours_named(
    swept: tuple[Paths, Params, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params, known = swept
    with pytest.raises(SweepError, match=f"unknown trial '{known[:-1]}x'; did you mean '{known}'"):
        run_again(paths, params, f"{known[:-1]}x")
    monkeypatch.chdir(paths.root)
    assert main(["rerun", "nothing"]) == 2
    assert "unknown trial 'nothing'" in capsys.readouterr().err


def test_the_beginning_of_one_id_is_enough_and_that_of_several_is_refused(swept: tuple[Paths, Params, str]) -> None:
    paths, params, known = swept
    agrees, said = again((paths, params, known[:-1]), FakeTrain())
    assert agrees
    assert f"(trial {known})" in said
    with pytest.raises(SweepError, match="4 trials begin with ''"):
        run_again(paths, params, "")


def test_without_results_it_says_so(project: tuple[Paths, Params]) -> None:
    with pytest.raises(SweepError, match="none is there"):
        rerun(*project, "f" * 16)


def test_a_training_that_fails_is_an_error(swept: tuple[Paths, Params, str]) -> None:
    with pytest.raises(SweepError, match=f"trial {swept[2]}: RuntimeError: no kernel for elman"):
        again(swept, FakeTrain(fails_on="elman"))
