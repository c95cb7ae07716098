"""What one W&B run shows, as plain data: made from tables alone, the same every time it is made.

A view has two digests. `rows_digest` is over the history, the one thing that W&B can only append to. `digest` is
over everything, so that a view which says nothing new is not sent again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Table:
    """A small table shown in the run; `cells` are plain values, one tuple a row."""

    columns: tuple[str, ...]
    cells: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Table:
        """Return `frame` as plain values."""
        return cls(tuple(frame.columns), tuple(frame.iter_rows()))


@dataclass(frozen=True)
class Picture:
    """A PNG that is drawn only if it is sent: `source` is a digest of what it is drawn from."""

    source: str
    draw: Callable[[], bytes]


@dataclass(frozen=True)
class Files:
    """An artifact: files with a name, a type, aliases and what is known of them."""

    name: str
    type: str
    paths: tuple[Path, ...]
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class RunView:
    """One W&B run, complete.

    Attributes:
        rows: The history, each with its `step`; the position in the sequence is W&B's own `_step`.
    """

    run_id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]
    artifacts: Sequence[Files]

    @cached_property
    def rows_digest(self) -> str:
        """SHA-256 of the history."""
        return digest_of(self.rows)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the run shows."""
        return digest_of(
            {
                "run": [self.run_id, self.name, self.group, self.job_type],
                "config": self.config,
                "rows": self.rows_digest,
                "summary": self.summary,
                "tables": {name: [table.columns, table.cells] for name, table in self.tables.items()},
                "pictures": {name: picture.source for name, picture in self.pictures.items()},
                "artifacts": [
                    [
                        files.name,
                        files.type,
                        files.aliases,
                        files.metadata,
                        [digest_of_file(path) for path in files.paths],
                    ]
                    for files in self.artifacts
                ],
            }
        )


def digest_of(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON; NaN and infinities are written as such."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_frame(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a frame's values, whatever the order of its rows."""
    return hashlib.sha256(frame.sort(frame.columns).write_csv().encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
