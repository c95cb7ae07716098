from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import TableError
from pipeline.results import SCHEMAS, digest_tables, write_table


def test_the_digest_of_a_study_names_every_table_and_changes_with_it(tmp_path: Path) -> None:
    for table, columns in SCHEMAS.items():
        write_table(table, pl.DataFrame(schema=columns), tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"of the desktop")
    before = digest_tables(tmp_path)
    assert list(before) == list(SCHEMAS)
    assert before["curves"] == hashlib.sha256((tmp_path / "curves.parquet").read_bytes()).hexdigest()
    rows = pl.DataFrame([{"trial_id": "a", "seed": 0}], schema=SCHEMAS["curves"])
    write_table("curves", rows, tmp_path)
    after = digest_tables(tmp_path)
    assert [table for table in SCHEMAS if after[table] != before[table]] == ["curves"]


def test_a_table_that_is_missing_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"trials\.parquet: cannot be read: No such file"):
        digest_tables(tmp_path)
