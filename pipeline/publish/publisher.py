"""Publishes finished settings and studies to W&B, and never raises: what fails is a warning in one line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.config import Params, Paths
from pipeline.publish.client import Client, is_installed
from pipeline.publish.mode import Mode, find_key, hosts, resolve_mode
from pipeline.publish.records import Record, Records
from pipeline.publish.setting import Setting, Stored, view_setting
from pipeline.publish.study import view_study
from pipeline.publish.view import RunView, digest_of

_log = logging.getLogger(__name__)


class Publisher:
    """A view of finished trials in W&B, from the tables alone.

    After the first failure online (a dead or silent server, a refused key) everything goes to offline run folders:
    a sweep waits for W&B at most once. Content that was published already is not sent again.

    Args:
        paths: The project; run folders go to `wandb/` in it, or in `WANDB_DIR`.
        params: Mode, project and entity; `WANDB_MODE` overrides the mode.

    Attributes:
        num_failed: Settings and studies that could not be published at all.
    """

    def __init__(self, paths: Paths, params: Params) -> None:
        self._paths, self._tracking = paths, params.tracking
        self._mode: Mode = resolve_mode(params.tracking.mode, os.environ)
        if self._mode != "disabled" and not is_installed():
            _log.warning("W&B: wandb is not installed, nothing is published; `pip install wandb`, or mode: disabled")
            self._mode = "disabled"
        folder = Path(os.environ.get("WANDB_DIR") or paths.root).resolve() / "wandb"
        self._records = Records(folder)
        self._client = Client(folder, params.tracking, find_key(os.environ))
        self.num_failed = 0

    @property
    def mode(self) -> Mode:
        """What is done now: `offline` after a failure online."""
        return self._mode

    def setting(self, study: str, setting: Setting, stored: Stored) -> None:
        """Publish one run for a setting whose trial is finished."""
        self._publish(f"{study}, {setting.label}", lambda: view_setting(study, setting, stored))

    def study(self, study: str) -> None:
        """Publish the run of a finished study: settings, report figures, datasets and result tables."""
        self._publish(study, lambda: view_study(self._paths, study))

    def close(self) -> None:
        """End W&B's service process; the publisher may be used again after."""
        try:
            self._client.close()
        except Exception as error:
            _log.warning("W&B: did not close: %s", _cause(error))

    def _publish(self, what: str, make_view: Callable[[], RunView]) -> None:
        if self._mode == "disabled":
            return
        try:
            view = make_view()
            digest = self._digest(view)
            if not self._records.is_current(view.run_id, digest, self._mode):
                pictures = _draw(view, what)
                self._deliver(view, pictures)
                complete = len(pictures) == len(view.pictures)
                self._records.write(view.run_id, Record(digest, self._mode, complete))
        except Exception as error:
            self.num_failed += 1
            _log.warning("W&B: %s: not published: %s", what, _cause(error))

    def _deliver(self, view: RunView, pictures: dict[str, bytes]) -> None:
        staging = self._records.staging(view.run_id)
        if self._mode == "online":
            try:
                self._client.send(view, pictures, "online", staging)
            except Exception as error:
                self._mode = "offline"
                self.close()  # a run that failed to start still holds its id in the service process
                _log.warning(
                    "W&B: %s failed: %s; writing offline from here on, `python stages/publish.py` sends it later",
                    hosts(os.environ)[0],
                    _cause(error),
                )
            else:
                self._records.remove_folders(view.run_id)
                return
        self._records.remove_folders(view.run_id)
        self._client.send(view, pictures, "offline", staging)

    def _digest(self, view: RunView) -> str:
        """Return the digest of what is shown and where: another project has its own runs."""
        return digest_of([view.digest, self._tracking.project, self._tracking.entity, hosts(os.environ)])


def _draw(view: RunView, what: str) -> dict[str, bytes]:
    """Return the pictures of a view that can be drawn."""
    drawn = {}
    for name, picture in view.pictures.items():
        try:
            drawn[name] = picture.draw()
        except Exception as error:
            _log.warning("W&B: %s: published without its picture %r: %s", what, name, _cause(error))
    return drawn


def _cause(error: Exception) -> str:
    """Return type and message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
