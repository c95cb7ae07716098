from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.publish.mode import asked_mode, find_key, resolve_mode
from tests.publish.conftest import warnings_of

KEY = {"WANDB_API_KEY": "a" * 40}


@pytest.mark.parametrize(
    ("asked", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", KEY, "online"),
        ("offline", KEY, "offline"),
        ("disabled", KEY, "disabled"),
        ("online", KEY, "online"),
        ("disabled", {"WANDB_MODE": "offline"}, "offline"),
        ("offline", KEY | {"WANDB_MODE": "online"}, "online"),
        ("online", KEY | {"WANDB_MODE": "disabled"}, "disabled"),
        ("offline", KEY | {"WANDB_MODE": ""}, "offline"),
        ("online", KEY | {"WANDB_MODE": "dryrun"}, "offline"),
        ("offline", KEY | {"WANDB_MODE": "run"}, "online"),
        ("online", KEY | {"WANDB_DISABLED": "true"}, "disabled"),
        ("online", KEY | {"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled"),
        ("auto", KEY | {"WANDB_DISABLED": "false"}, "online"),
    ],
)
def test_environment_over_params_and_online_only_with_a_key(
    asked: str, environment: dict[str, str], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve_mode(asked_mode(asked, environment), environment) == mode
    assert not warnings_of(caplog)


def test_online_without_a_key_says_where_it_looked(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_mode("online", {}) == "offline"
    assert warnings_of(caplog) == ["W&B: no API key for api.wandb.ai in WANDB_API_KEY or netrc; writing offline"]


def test_an_unknown_value_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="^WANDB_MODE: unknown mode 'ofline'; did you mean 'offline'?"):
        asked_mode("auto", KEY | {"WANDB_MODE": "ofline"})
    with pytest.raises(ConfigError, match="^WANDB_DISABLED: unknown value 'treu'; did you mean 'true'?"):
        asked_mode("auto", KEY | {"WANDB_DISABLED": "treu"})


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_netrc_of_the_home_folder(name: str, host: str) -> None:
    _write_netrc(Path.home() / name, host)
    assert find_key({}) == "secret"
    assert find_key({"WANDB_BASE_URL": "https://wandb.example.org"}) is None


def test_netrc_of_an_own_server(tmp_path: Path) -> None:
    _write_netrc(tmp_path / "keys", "wandb.example.org:8080")
    environment = {"NETRC": str(tmp_path / "keys"), "WANDB_BASE_URL": "http://wandb.example.org:8080"}
    assert find_key(environment) == "secret"


def test_a_damaged_netrc_holds_no_key() -> None:
    (Path.home() / ".netrc").write_bytes(b"machine \xff\xfe nonsense")
    assert find_key({}) is None


def _write_netrc(path: Path, host: str) -> None:
    path.write_text(f"machine {host}\n  login user\n  password secret\n")
    path.chmod(0o600)
