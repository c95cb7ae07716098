"""Publishes finished studies to W&B; what fails there is a warning in one line and never an exception."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config import Params, Paths, write_digest
from pipeline.publish import workspace
from pipeline.publish.board import board_of
from pipeline.publish.client import Client, LiveRun, is_installed, is_refused
from pipeline.publish.mode import Mode, app_url, asked_mode, find_key, hosts, resolve_mode
from pipeline.publish.views import RunView, digest_of, view_of_report, views_of
from pipeline.results import read_table

BOARD_FILE = "report.json"
"""In the folder of the run folders: the Report and the view as they would be sent."""

_log = logging.getLogger(__name__)


class Publisher:
    """Sends finished studies to W&B, from the tables alone.

    After the first failure online (a dead or silent server, a refused key) everything goes to offline run folders:
    nobody waits for W&B more than once. Content that was published already is not sent again.

    Args:
        paths: The project; run folders go to `wandb/` in it, or in `WANDB_DIR`.
        params: Mode, project and entity; `WANDB_MODE` and `WANDB_DISABLED` override the mode.

    Attributes:
        asked: What was asked for, wherever it was.
        mode: What is done now: `offline` after a failure online.
        num_failed: Settings and studies that could not be published at all.

    Raises:
        ConfigError: If a variable of W&B's has an unknown value.
    """

    def __init__(self, paths: Paths, params: Params) -> None:
        self._paths, self._tracking = paths, params.tracking
        self.asked = asked_mode(params.tracking.mode, os.environ)
        self.mode: Mode = resolve_mode(self.asked, os.environ)
        if self.mode != "disabled" and not is_installed("wandb"):
            _log.warning("W&B: wandb is not installed, nothing is published; `pip install wandb`, or mode: disabled")
            self.mode = "disabled"
        self.folder = Path(os.environ.get("WANDB_DIR") or paths.home).resolve() / "wandb"
        self._records = Records(self.folder)
        self._client = Client(self.folder, params.tracking, find_key(os.environ))
        self.num_failed = 0

    @property
    def is_as_asked(self) -> bool:
        """Whether everything went where it was asked to go, by whatever means it was asked."""
        return self.num_failed == 0 and self.asked in {"auto", self.mode}

    def study(self, study: str) -> None:
        """Publish a run for every finished setting of a study and one for the study, from its result tables.

        Raises:
            TableError: If the study has no result tables, or they do not have their columns.
        """
        read_table("settings", self._paths.results(study))  # no results are an error also where nothing is published
        for view in views_of(self._paths, study) if self.mode != "disabled" else ():
            self.publish(view)

    def report(self, studies: Sequence[str]) -> None:
        """Publish the run of the report, if there is one, made of the tables of `studies`."""
        if self.mode != "disabled" and (view := view_of_report(self._paths, studies)) is not None:
            self.publish(view)

    def board(self, questions: Mapping[str, str]) -> Iterator[str]:
        """Make or update the project's one Report and its saved view, and yield what became of them, line by line.

        Without a key, or where W&B does not answer or take it, what would be sent is written into a file.

        Args:
            questions: Of each study by name.

        Raises:
            TableError: If a study has no result tables, or they do not have their columns.
        """
        has_workspaces = is_installed("wandb_workspaces")
        if self.mode == "disabled" or not has_workspaces:
            missing = "" if has_workspaces else "wandb-workspaces is not installed; "
            yield f"report: {missing}nothing is made" if missing else "report: W&B is disabled, nothing is made"
            return
        board, problem = board_of(self._paths, questions), "W&B is offline"
        entity, project = self._tracking.entity, self._tracking.project
        if self.mode == "online":
            try:
                api = self._client.open_api()
                place = workspace.place_of(api, entity, project)
                for kind, address in workspace.send(api, workspace.requests_of(board, place), place).items():
                    yield f"{kind}: {address}"
            except Exception as error:
                self.num_failed += 1
                refused = "refuses the API key" if is_refused(error) else "failed"
                problem = f"{hosts(os.environ)[0]} {refused}: {cause_of(error)}"
            else:
                return
        place = workspace.Place(entity or workspace.UNKNOWN_ENTITY, project, app_url(os.environ))
        path = self.folder / BOARD_FILE
        write_digest(path, workspace.requests_of(board, place))
        yield f"report: {problem}; what would be sent is in {path}"
        yield "report: with a key (`wandb login`, or WANDB_API_KEY) `python stages/publish.py --report` sends it"

    def close(self) -> None:
        """End W&B's service process; the publisher may be used again after."""
        try:
            self._client.close()
        except Exception as error:
            _log.warning("W&B: did not close: %s", cause_of(error))

    def publish(self, view: RunView) -> None:
        """Send one run, if it would say anything new; what fails is a warning, and counted."""
        if self.mode == "disabled":
            return
        try:
            digest = self._digest(view)
            if not self._records.is_current(view.run_id, digest, self.mode):
                pictures = _draw(view)
                self._deliver(view, pictures)
                complete = len(pictures) == len(view.pictures)
                self._records.write(view.run_id, Record(digest, self.mode, complete))
        except Exception as error:
            self.num_failed += 1
            _log.warning("W&B: %s, %s: not published: %s", view.group, view.name, cause_of(error))

    def send_online(self, view: RunView) -> None:
        """Send the run of a trial that has ended, whatever else is done offline; raises whatever wandb raises."""
        pictures = _draw(view)
        self._client.send(view, pictures, "online", self._records.staging(view.run_id))
        self._records.remove_folders(view.run_id)
        complete = len(pictures) == len(view.pictures)
        self._records.write(view.run_id, Record(self._digest(view), "online", complete))

    def open_live(self, view: RunView) -> LiveRun | None:
        """Return the run of a trial under way, see `Client.open_live`."""
        return self._client.open_live(view, self._records.staging(view.run_id))

    def _deliver(self, view: RunView, pictures: dict[str, bytes]) -> None:
        staging = self._records.staging(view.run_id)
        if self.mode == "online":
            try:
                self._client.send(view, pictures, "online", staging)
            except Exception as error:
                self.mode = "offline"
                self.close()  # a run that failed to start still holds its id in the service process
                _log.warning(
                    "W&B: %s failed: %s; writing offline from here on, `python stages/publish.py` sends it later",
                    hosts(os.environ)[0],
                    cause_of(error),
                )
            else:
                self._records.remove_folders(view.run_id)
                return
        self._records.remove_folders(view.run_id)
        self._client.send(view, pictures, "offline", staging)

    def _digest(self, view: RunView) -> str:
        """Return the digest of what is shown and where: another project has its own runs."""
        return digest_of([view.digest, self._tracking.project, self._tracking.entity, hosts(os.environ)])


def _draw(view: RunView) -> dict[str, bytes]:
    """Return the pictures of a view that can be drawn."""
    drawn = {}
    for name, picture in view.pictures.items():
        try:
            drawn[name] = picture.draw()
        except Exception as error:
            _log.warning("W&B: %s: published without its picture %r: %s", view.run_id, name, cause_of(error))
    return drawn


def cause_of(error: Exception) -> str:
    """Return type and message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


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
        write_digest(self._path(run_id), asdict(record))

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
        """W&B appends a number where two runs of an id start in the same second; `client` a digest of new rows.

        Neither is as long as a trial id, with which the run of a study is followed by that of a grid called `study`.
        """
        pattern = re.compile(rf"{kind}-\d{{8}}_\d{{6}}-{re.escape(run_id)}(-[0-9a-f]{{8}})?(-\d{{1,6}})?")
        return sorted(path for path in self._folder.glob(f"{kind}-*") if pattern.fullmatch(path.name))

    def _path(self, run_id: str) -> Path:
        return self._folder / "published" / f"{run_id}.json"
