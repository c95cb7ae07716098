from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.report.build import ReportError, write_files


def test_only_the_reports_own_stale_files_go(tmp_path: Path) -> None:
    for name in ("site/figures/b/old.svg", "site/figures/notes.txt", "tables/old.csv", "mine.csv", "plots/old.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    write_files(tmp_path, {"site/figures/a/new.svg": b"<svg/>", "site/index.html": b"page"})
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert not (tmp_path / "site" / "figures" / "b").exists()
    assert left == {"site/figures/a/new.svg", "site/figures/notes.txt", "mine.csv", "site/index.html"}
    assert (tmp_path / "site" / "index.html").read_bytes() == b"page"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "site").write_text("a file where a folder should be")
    with pytest.raises(ReportError, match=r"site/new.svg: cannot be written: "):
        write_files(tmp_path, {"site/new.svg": b"<svg/>"})
