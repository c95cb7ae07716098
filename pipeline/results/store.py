"""The trial store: every finished trial under its id, and the checkpoint of every unfinished one.

The id says what a trial means, so a trial that is there never needs training again, whichever study asks.
"""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config import Paths
from pipeline.errors import StoreError
from pipeline.results.archive import StoredTrial, pack, unpack
from pipeline.results.objects import FolderObjects, Objects, open_objects

_log = logging.getLogger(__name__)


class CheckpointSlot:
    """The one checkpoint of an unfinished trial; a new one replaces the old in one move."""

    def __init__(self, objects: Objects, trial_id: str) -> None:
        self._objects, self._name = objects, f"{trial_id}.checkpoint"

    def load(self) -> bytes | None:
        """Return what `save` was last given, or None."""
        return self._objects.read(self._name)

    def save(self, data: bytes) -> None:
        """Keep `data` in place of the older checkpoint."""
        self._objects.write(self._name, data)

    def clear(self) -> None:
        """Forget the checkpoint: the trial is finished."""
        self._objects.delete(self._name)


class TrialStore:
    """Finished trials by id, in a folder or behind a URL.

    Args:
        url: A folder, or `s3://bucket/folder`, with `?endpoint_override=host:port` for a server of one's own.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self.objects = open_objects(self.url)

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder: on a cluster, every node must then see that folder."""
        return isinstance(self.objects, FolderObjects)

    def ids(self) -> frozenset[str]:
        """Return the id of every finished trial, from one listing."""
        return frozenset(name.removesuffix(".zip") for name in self.objects.names() if name.endswith(".zip"))

    def has(self, trial_id: str) -> bool:
        """Return whether a finished trial lies under this id."""
        return trial_id in self.ids()

    def get(self, trial_id: str) -> StoredTrial | None:
        """Return a finished trial, or None where there is none that can be read.

        A damaged object is put aside as `<id>.zip.damaged` with a warning: it counts as missing and trains again.
        """
        name = f"{trial_id}.zip"
        data = self.objects.read(name)
        if data is None:
            return None
        try:
            return unpack(data, trial_id, f"{self.objects.where}/{name}")
        except StoreError as error:
            self.objects.rename(name, f"{name}.damaged")
            _log.warning("%s; put aside as %s.damaged, the trial counts as missing", error, name)
            return None

    def put(self, trial_id: str, stored: StoredTrial) -> None:
        """Keep a finished trial; nobody ever sees a part of it.

        Raises:
            StoreError: If the store cannot be written; what was there before is still there.
            TableError: If a table is not what its schema declares.
        """
        self.objects.write(f"{trial_id}.zip", pack(stored))

    def checkpoint(self, trial_id: str) -> CheckpointSlot:
        """Return the place for the checkpoint of an unfinished trial."""
        return CheckpointSlot(self.objects, trial_id)

    def probe_writable(self) -> None:
        """Write and remove a small object, so that a sweep fails before it has trained anything.

        Raises:
            StoreError: If the store cannot be reached or written.
        """
        name = f"probe-{uuid.uuid4().hex}"
        self.objects.write(name, b"writable")
        self.objects.delete(name)
        if isinstance(self.objects, FolderObjects):
            self.objects.remove_stale_temporaries()


def store_url(paths: Paths, trial_store: str | None) -> str:
    """Return where the trial store lies: what params.yaml says, absolute, or else the project's own folder.

    Ray workers run in other folders, so a relative one is taken from the project's root.
    """
    if trial_store is None:
        return str(paths.default_store)
    return trial_store if urlsplit(trial_store).scheme else str(paths.root / trial_store)
