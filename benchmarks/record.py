"""benchmarks/latest.json: the last measurement of each kind, with the environment that it was made in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config import write_whole

LATEST = Path(__file__).parent / "latest.json"


def read(path: Path = LATEST) -> dict[str, Any]:
    """Return what was measured last; nothing where nothing was."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write(name: str, measured: dict[str, Any], path: Path = LATEST) -> None:
    """Put a measurement in the place of the earlier one of its kind; those of other kinds stay."""
    write_whole(path, (json.dumps(read(path) | {name: measured}, indent=1) + "\n").encode())
