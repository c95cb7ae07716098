"""What was published already: a record per run, and the offline run folders that lie beside it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.publish.mode import Mode


@dataclass(frozen=True)
class Record:
    """The content of a run when it was last published; `complete` is false where a picture could not be drawn."""

    digest: str
    mode: Mode
    complete: bool


class Records:
    """The records under `<folder>/published`, where `folder` is the one in which W&B keeps its run folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_current(self, run_id: str, digest: str, mode: Mode) -> bool:
        """Return whether publishing this content in this mode would say nothing new.

        What is online need not be written offline; what is offline counts while its run folder is there.
        """
        record = self.read(run_id)
        if record is None or not record.complete or record.digest != digest:
            return False
        return record.mode == "online" or (mode == "offline" and bool(self.offline_folders(run_id)))

    def read(self, run_id: str) -> Record | None:
        """Return the record of a run; None where there is none that can be read."""
        try:
            return Record(**json.loads(self._path(run_id).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, run_id: str, record: Record) -> None:
        """Keep the record of a run, in place of an older one."""
        path = self._path(run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n")
        temporary.replace(path)

    def offline_folders(self, run_id: str) -> list[Path]:
        """Return the offline run folders of a run, oldest first."""
        return self._run_folders("offline-run", run_id)

    def staging(self, run_id: str) -> Path:
        """Return the folder in which the files of a run's artifacts wait to be uploaded."""
        return self._folder / "staging" / run_id

    def remove_folders(self, run_id: str) -> None:
        """Remove every local folder of a run, so that no `wandb sync` sends what is online or out of date."""
        runs = [folder for kind in ("offline-run", "run") for folder in self._run_folders(kind, run_id)]
        for folder in [*runs, self.staging(run_id)]:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_folders(self, kind: str, run_id: str) -> list[Path]:
        """W&B appends a number where two runs of an id start in the same second; `client` a digest of new rows."""
        pattern = re.compile(rf"{kind}-\d{{8}}_\d{{6}}-{re.escape(run_id)}(-[0-9a-f]{{8}})?(-\d+)?")
        return sorted(path for path in self._folder.glob(f"{kind}-*") if pattern.fullmatch(path.name))

    def _path(self, run_id: str) -> Path:
        return self._folder / "published" / f"{run_id}.json"
