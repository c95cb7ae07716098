"""A file from the network, believed only once its sha256 is the expected one, and then kept.

Kept files lie in $XDG_CACHE_HOME/gradient-dynamics, by default ~/.cache/gradient-dynamics, each under its sha256: what
is there is verified again, so a file that was copied there by hand is as good as a download.
"""

from __future__ import annotations

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from pipeline.errors import DatasetError

MAX_BYTES = 100_000_000
TIMEOUT_S = 30.0


def fetch(url: str, sha256: str) -> bytes:
    """Return the file with this checksum: the kept one, or that at `url`.

    Raises:
        DatasetError: If it is not kept and cannot be downloaded, is another file, or cannot be kept.
    """
    path = cache_path(sha256)
    if path.is_file() and _sha256(content := path.read_bytes()) == sha256:
        return content
    content = download(url, path)
    if _sha256(content) != sha256:
        raise DatasetError(f"{url}: expected a file with sha256 {sha256}, got one with {_sha256(content)}")
    _keep(content, path)
    return content


def cache_path(sha256: str) -> Path:
    """Return where the file with this checksum is kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "gradient-dynamics" / sha256


def download(url: str, instead: Path) -> bytes:
    """Return what is at `url`, of at most `MAX_BYTES`.

    Args:
        url: An http or https address.
        instead: Where a user without a network can put the file.

    Raises:
        DatasetError: If the server cannot be reached, refuses, breaks off, or sends more than that.
    """
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http(s): see `WebText`
            content: bytes = response.read(MAX_BYTES + 1)
            announced = response.headers.get("Content-Length", "")
    except HTTPError as error:
        error.close()
        raise DatasetError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DatasetError(f"{url}: cannot be downloaded ({reason}); or put the file at {instead}") from None
    if len(content) > MAX_BYTES:
        raise DatasetError(f"{url}: more than {MAX_BYTES} bytes, the most that is downloaded")
    if announced.isdigit() and len(content) < int(announced):
        raise DatasetError(f"{url}: broke off after {len(content)} of {announced} bytes; try again")
    return content


def _keep(content: bytes, path: Path) -> None:
    """Write a file whole or not at all.

    Raises:
        DatasetError: If it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        os.replace(new, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error.strerror}; set XDG_CACHE_HOME elsewhere") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
