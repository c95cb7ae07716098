"""Whether W&B is online, offline or off, found without asking anyone: no prompt is ever shown."""

from __future__ import annotations

import logging
import netrc
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from pipeline.errors import unknown_name

Mode = Literal["online", "offline", "disabled"]

MODES = ("auto", "online", "offline", "disabled")
DEFAULT_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Hosts under which `wandb login` keeps the key of the public server, older and newer."""

_log = logging.getLogger(__name__)


def resolve_mode(asked: str, environment: Mapping[str, str]) -> Mode:
    """Return what `WANDB_MODE` says, or else what params.yaml asks; online only with a key.

    Args:
        asked: `tracking.mode` of params.yaml.
        environment: Variables of the process.
    """
    source, name = ("WANDB_MODE", environment["WANDB_MODE"]) if environment.get("WANDB_MODE") else ("", asked)
    if name not in MODES:
        _log.warning("W&B: %s: %s; writing offline", source, unknown_name("mode", name, MODES))
        return "offline"
    if name in {"offline", "disabled"}:
        return cast(Mode, name)
    if find_key(environment) is not None:
        return "online"
    if name == "online":
        _log.warning("W&B: no API key for %s in WANDB_API_KEY or netrc; writing offline", hosts(environment)[0])
    return "offline"


def find_key(environment: Mapping[str, str]) -> str | None:
    """Return the API key in `WANDB_API_KEY`, or in the netrc file for the server of `WANDB_BASE_URL`."""
    if environment.get("WANDB_API_KEY"):
        return environment["WANDB_API_KEY"]
    for path in _netrc_files(environment):
        try:
            entries = netrc.netrc(path)
        except (OSError, ValueError, netrc.NetrcParseError):
            continue  # no such file, or not one that W&B could read either
        for host in hosts(environment):
            if found := entries.authenticators(host):
                return found[2] or None
    return None


def hosts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the server of `WANDB_BASE_URL` as netrc files name it, or the names of the public one."""
    url = environment.get("WANDB_BASE_URL")
    return (urlsplit(url).netloc,) if url else DEFAULT_HOSTS


def _netrc_files(environment: Mapping[str, str]) -> list[Path]:
    if environment.get("NETRC"):
        return [Path(environment["NETRC"]).expanduser()]
    return [Path.home() / name for name in (".netrc", "_netrc")]
