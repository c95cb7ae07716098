"""Whether W&B is online, offline or off, found without asking anyone: no prompt is ever shown."""

from __future__ import annotations

import logging
import netrc
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, unknown_name

Mode = Literal["online", "offline", "disabled"]
Asked = Literal["auto", "online", "offline", "disabled"]

OF_VARIABLE: Mapping[str, Asked] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
    "auto": "auto",
}
"""What each value of `WANDB_MODE` asks for: W&B's own, its older names, and `auto`, which is params.yaml's."""

SWITCHES: Mapping[str, bool] = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""What each value of `WANDB_DISABLED` means."""

DEFAULT_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Hosts under which `wandb login` keeps the key of the public server, older and newer."""

PUBLIC_APP = "https://wandb.ai"

_log = logging.getLogger(__name__)


def asked_mode(of_params: Asked, environment: Mapping[str, str]) -> Asked:
    """Return what is asked for: `disabled` by `WANDB_DISABLED`, else by `WANDB_MODE`, else by params.yaml.

    Args:
        of_params: `tracking.mode` of params.yaml.
        environment: Variables of the process; an empty one counts as absent.

    Raises:
        ConfigError: If a variable has a value that W&B does not know: it could be meant to switch it off.
    """
    disabled, mode = environment.get("WANDB_DISABLED", "").lower(), environment.get("WANDB_MODE", "").lower()
    if disabled and disabled not in SWITCHES:
        raise ConfigError(f"WANDB_DISABLED: {unknown_name('value', disabled, SWITCHES)}")
    if mode and mode not in OF_VARIABLE:
        raise ConfigError(f"WANDB_MODE: {unknown_name('mode', mode, OF_VARIABLE)}")
    if disabled and SWITCHES[disabled]:
        return "disabled"
    return OF_VARIABLE[mode] if mode else of_params


def resolve_mode(asked: Asked, environment: Mapping[str, str]) -> Mode:
    """Return what is done where this is asked: online only with a key, of which `online` says so if there is none."""
    if asked in {"offline", "disabled"}:
        return asked
    if find_key(environment) is not None:
        return "online"
    if asked == "online":
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


def app_url(environment: Mapping[str, str]) -> str:
    """Return the address under which a browser sees the server of `WANDB_BASE_URL`, or the public one."""
    given = environment.get("WANDB_APP_URL") or environment.get("WANDB_BASE_URL", "")
    return (given or PUBLIC_APP).rstrip("/").replace("//api.wandb.ai", "//wandb.ai")


def _netrc_files(environment: Mapping[str, str]) -> list[Path]:
    if environment.get("NETRC"):
        return [Path(environment["NETRC"]).expanduser()]
    return [Path.home() / name for name in (".netrc", "_netrc")]
