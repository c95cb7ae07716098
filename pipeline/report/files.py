"""The files of a report: written whole or not at all, and removed when the report no longer has them."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import PipelineError

OWNED = {
    "figures": (".svg", ".png"),
    "tables": (".csv",),
    "plots": (".csv",),
}
"""The folders below reports/ that are the report's own, and the kinds of file that it removes from them."""


class ReportError(PipelineError):
    """The report cannot be written; the message names the file."""


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` below `folder` by relative name, then remove the report's earlier files that are not among them.

    Each is written under a temporary name and moved into place, so that readers never see half a file.

    Raises:
        ReportError: If a file cannot be written.
    """
    for name, content in files.items():
        _replace(folder / name, content)
    for part, kinds in OWNED.items():
        for path in (folder / part).glob("*"):
            if path.suffix in kinds and f"{part}/{path.name}" not in files:
                path.unlink()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}") from error
