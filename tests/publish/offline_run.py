"""Reads a run folder back, with the tool that comes with wandb."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


class OfflineRun:
    """The records of one run folder, by type."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (log,) = folder.glob("*.wandb")
        command = [
            get_core_path(),
            "leet",
            "inspect",
            "--no-observability",
            "--json",
            "--run-file",
            str(log),
            str(folder),
        ]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        self._records = [json.loads(line) for line in answer.stdout.splitlines()]
        self.run: dict[str, Any] = self._of_type("run")[0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, without W&B's own clocks."""
        return [
            {key: value for key, value in record["item"].items() if key not in {"_runtime", "_timestamp"}}
            for record in self._of_type("history")
        ]

    @property
    def config(self) -> dict[str, Any]:
        return self._merged("config")

    @property
    def summary(self) -> dict[str, Any]:
        return self._merged("summary")

    @property
    def artifacts(self) -> list[dict[str, Any]]:
        return self._of_type("artifact")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return self._of_type("metric")

    def media(self, key: str) -> Path:
        """The file that a picture or table of the last row lies in."""
        return self.folder / "files" / self.rows[-1][f"{key}.path"]

    def _of_type(self, name: str) -> list[dict[str, Any]]:
        return [record[name] for record in self._records if record["type"] == name]

    def _merged(self, name: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for record in self._of_type(name):
            merged |= record.get("update", {})
        return merged


def offline_folders(root: Path) -> list[Path]:
    return sorted((root / "wandb").glob("offline-run-*"))
